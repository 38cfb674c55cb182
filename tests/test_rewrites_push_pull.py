"""Rewrites of a picture's few maps give the same, fire where they should and nowhere else."""

import numpy as np
import pytest
from onnx_models import model_of, rewritten

from picme_export.rewrites import doublings, spread_channels

WEIGHTS = {
    "low": np.array(0.5, np.float32),
    "high": np.array(2, np.float32),
    "w": (5, 1, 3, 3),
    "low5": (6,),
}
CUT = {"axis": 1, "num_outputs": 4}


def weighed(*more, x=(4, 5, 6), cut=CUT, maker=("Tanh", ["x"], "m", {}), out="out"):
    """A map, divided by its last channel, which is first held to a range."""
    parts = [f"s{i}" for i in range(cut["num_outputs"])]
    nodes = [maker, ("Split", ["m"], parts, cut), ("Clip", [parts[-1], "low", "high"], "c", {}),
             ("Div", ["m", "c"], "out", {}), *more]  # fmt: skip
    return model_of(nodes, {"x": x}, WEIGHTS, out)


def test_a_channel_for_all_of_them_is_repeated():
    found = rewritten(spread_channels.rewrite, weighed(), 1)
    assert found == {"Tanh": 1, "Conv": 1, "Clip": 1, "Div": 1}


def test_where_several_take_it_all_take_the_same():
    nodes = [("Sub", ["high", "s3"], "d", {}), ("Mul", ["d", "out"], "e", {}),
             ("Mul", ["m", "s3"], "f", {}), ("Add", ["e", "f"], "g", {})]  # fmt: skip
    found = rewritten(spread_channels.rewrite, weighed(*nodes, out="g"), 1)
    assert found["Conv"] == 1
    assert "Split" not in found


ALSO = ("Add", ["out", "s0"], "d", {})
FIVE = [("Add", ["s3", "low5"], "d", {}), ("Mul", ["out", "d"], "e", {})]
CONV = [("Conv", ["s3", "w"], "d", {"kernel_shape": [3, 3], "pads": [1] * 4}),
        ("Concat", ["out", "d"], "e", {"axis": 1})]  # fmt: skip


@pytest.mark.parametrize(
    "model",
    [
        weighed(ALSO, out="d"),
        weighed(*FIVE, out="e"),
        weighed(*CONV, out="e"),
        weighed(x=(5, 5, 6), cut={"axis": 1, "num_outputs": 5}),
        weighed(x=(8, 5, 6), cut={"axis": 1, "num_outputs": 8}),
        weighed(x=(4, 8, 6), cut={"axis": 2, "num_outputs": 8}),
        weighed(x=(2, 5, 6), maker=("Concat", ["x", "x"], "m", {"axis": 1})),
    ],
    ids=["two channels", "a row", "a convolution", "five", "eight", "rows", "joined"],
)
def test_other_splits_stay(model):
    rewritten(spread_channels.rewrite, model, 0)


def test_a_channel_that_leaves_the_graph_stays():
    rewritten(spread_channels.rewrite, weighed(out="c"), 0)


def doubled(x=(4, 64, 70), by=(1, 1, 2, 2), **about):
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"} | about
    nodes = [("Tanh", ["x"], "m", {}), ("Resize", ["m", "", "by"], "out", how)]
    return model_of(nodes, {"x": x}, {"by": np.array(by, np.float32)})


@pytest.mark.parametrize("x", [(2, 64, 64), (4, 64, 70), (3, 65, 128)])
def test_bilinear_doubling_of_few_channels_makes_cells(x):
    found = rewritten(doublings.rewrite, doubled(x), 1)
    assert found == {"Tanh": 1, "Pad": 1, "Conv": 1, "DepthToSpace": 1}


@pytest.mark.parametrize(
    "model",
    [
        doubled((5, 64, 64)),
        doubled((1, 64, 64)),
        doubled((4, 63, 64)),
        doubled(by=(1, 1, 2, 3)),
        doubled(mode="nearest"),
        doubled(mode="cubic"),
        doubled(coordinate_transformation_mode="align_corners"),
    ],
    ids=["five", "one", "small", "thrice", "nearest", "cubic", "corners"],
)
def test_other_resizing_stays(model):
    rewritten(doublings.rewrite, model, 0)

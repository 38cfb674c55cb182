"""Each rewrite gives what the graph gave before, fires where it should and nowhere else."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_models import model_of, rewritten, run

from picme_export import export, plan_verb, rewrites, verb
from picme_export.rewrites import (
    joined_transposed,
    late_concat,
    phase_heads,
    pooled_convolutions,
    small_pools,
    transposed_phases,
    wide_strides,
)
from picme_export.rewrites.graph import Graph
from picme_rt import cli, graph_shapes
from picme_rt import engine as engines

POOL = {"kernel_shape": [2, 2], "strides": [2, 2], "count_include_pad": 1}
UP = {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1], "kernel_shape": [3, 3]}
SAME = {"pads": [1] * 4, "kernel_shape": [3, 3]}
REFLECT = np.array([0, 0, 1, 1, 0, 0, 1, 1])


def pooled(x, weight, pool=None, conv=None, more=()):
    nodes = [("Conv", ["x", "w", "b"], "c", SAME | (conv or {})),
             ("AveragePool", ["c"], "out", POOL | (pool or {})), *more]  # fmt: skip
    return model_of(nodes, {"x": x}, {"w": weight, "b": weight[:1]})


@pytest.mark.parametrize("sides", [(8, 8), (2, 6), (32, 4)])
def test_a_convolution_takes_the_mean_after_it_into_its_kernel(sides):
    found = rewritten(pooled_convolutions.rewrite, pooled((3, *sides), (5, 3, 3, 3)), 1)
    assert found == {"Conv": 1}


@pytest.mark.parametrize(
    "model",
    [
        pooled((3, 7, 8), (5, 3, 3, 3)),
        pooled((3, 8, 9), (5, 3, 3, 3)),
        pooled((3, 8, 8), (5, 3, 3, 3), pool={"strides": [1, 1]}),
        pooled((3, 8, 8), (5, 3, 3, 3), pool={"kernel_shape": [4, 4]}),
        pooled((3, 8, 8), (5, 3, 3, 3), pool={"pads": [1, 1, 1, 1]}),
        pooled((3, 8, 8), (5, 3, 3, 3), conv={"pads": [0, 0, 0, 0]}),
        pooled((3, 8, 8), (5, 3, 3, 3), conv={"strides": [2, 2]}),
        pooled((4, 8, 8), (6, 2, 3, 3), conv={"group": 2}),
    ],
    ids=["odd height", "odd width", "stride 1", "pool 4", "padded pool", "valid", "strided", "two"],
)
def test_other_pools_and_convolutions_stay(model):
    rewritten(pooled_convolutions.rewrite, model, 0)


def test_a_convolution_that_something_else_takes_stays():
    nodes = [("Conv", ["x", "w"], "c", SAME), ("AveragePool", ["c"], "p", POOL),
             ("AveragePool", ["c"], "q", POOL), ("Add", ["p", "q"], "out", {})]  # fmt: skip
    model = model_of(nodes, {"x": (3, 8, 8)}, {"w": (5, 3, 3, 3)})
    rewritten(pooled_convolutions.rewrite, model, 0)


@pytest.mark.parametrize(("channels", "times"), [(3, 1), (8, 1), (9, 0)])
def test_a_mean_before_a_narrow_1x1_goes_into_it(channels, times):
    rewritten(pooled_convolutions.rewrite, narrow(channels), times)


def two_up(other=(4, 5, 7), about=UP, more=()):
    nodes = [("ConvTranspose", ["h", "v", "a"], "one", UP),
             ("ConvTranspose", ["x", "w", "b"], "two", about),
             ("Add", ["one", "two"], "out", {}), *more]  # fmt: skip
    weights = {"v": (3, 6, 3, 3), "a": (6,), "w": (other[0], 6, 3, 3), "b": (6,)}
    return model_of(nodes, {"h": (3, 5, 7), "x": other}, weights, more[-1][2] if more else "out")


def test_two_transposed_convolutions_that_are_added_become_one():
    found = rewritten(joined_transposed.rewrite, two_up(), 1)
    assert found == {"Concat": 1, "ConvTranspose": 1}


@pytest.mark.parametrize(
    "model",
    [
        two_up((4, 10, 14), {"pads": [1] * 4, "kernel_shape": [3, 3]}),
        two_up(more=[("Mul", ["out", "one"], "last", {})]),
    ],
    ids=["another stride", "one is taken twice"],
)
def test_others_are_not_joined(model):
    rewritten(joined_transposed.rewrite, model, 0)


def test_a_concatenation_moves_behind_channelwise_operators_and_into_convolutions():
    nodes = [("Concat", ["x", "p"], "c", {"axis": 1}),
             ("InstanceNormalization", ["c", "s", "t"], "n", {"epsilon": 1e-5}),
             ("LeakyRelu", ["n"], "l", {"alpha": 0.1}),
             ("Conv", ["l", "w", "b"], "out", SAME)]  # fmt: skip
    weights = {"s": (35,), "t": (35,), "w": (6, 35, 3, 3), "b": (6,)}
    model = model_of(nodes, {"x": (32, 5, 9), "p": (3, 5, 9)}, weights)
    found = rewritten(late_concat.rewrite, model, 3)
    assert found == {"InstanceNormalization": 2, "LeakyRelu": 2, "Conv": 2, "Add": 1}


def test_a_concatenation_moves_behind_a_crop_of_its_sides():
    nodes = [("Concat", ["x", "p"], "c", {"axis": 1}),
             ("Slice", ["c", "first", "last", "sides"], "cropped", {}),
             ("Conv", ["cropped", "w", "b"], "out", SAME)]  # fmt: skip
    ends = {
        name: np.array(at) for name, at in (("first", [1, 2]), ("last", [4, 8]), ("sides", [2, 3]))
    }
    model = model_of(
        nodes, {"x": (32, 5, 9), "p": (3, 5, 9)}, {"w": (6, 35, 3, 3), "b": (6,), **ends}
    )
    found = rewritten(late_concat.rewrite, model, 2)
    assert found == {"Slice": 2, "Conv": 2, "Add": 1}


@pytest.mark.parametrize("widths", [(32, 16), (8, 3)], ids=["even", "small"])
def test_concatenations_that_lose_nothing_stay(widths):
    nodes = [("Concat", ["x", "p"], "c", {"axis": 1}), ("Conv", ["c", "w"], "out", SAME)]
    inputs = {"x": (widths[0], 5, 5), "p": (widths[1], 5, 5)}
    model = model_of(nodes, inputs, {"w": (6, sum(widths), 3, 3)})
    rewritten(late_concat.rewrite, model, 0)


@pytest.mark.parametrize("sides", [(5, 7), (1, 1), (1, 6), (8, 8)])
def test_a_transposed_convolution_becomes_its_four_phases(sides):
    model = lone_up(sides)
    found = rewritten(transposed_phases.rewrite, model, 1)
    assert found == {"Conv": 4, "Concat": 1, "DepthToSpace": 1}
    taps = {tuple(w.dims) for w in model.graph.initializer}
    assert taps == {(4,), (4, 3, 1, 1), (4, 3, 1, 2), (4, 3, 2, 1), (4, 3, 2, 2)}


def test_phases_take_a_concatenated_input_apart():
    model = two_up()
    graph = Graph(model)
    joined_transposed.rewrite(graph)
    graph.finish()
    found = rewritten(transposed_phases.rewrite, model, 1)
    assert found == {"Conv": 8, "Add": 4, "Concat": 1, "DepthToSpace": 1}


@pytest.mark.parametrize(
    "about",
    [
        UP | {"output_padding": [0, 0]}, UP | {"pads": [0] * 4}, UP | {"output_padding": [1, 0]},
        {"pads": [1] * 4, "kernel_shape": [3, 3]},
    ],
)  # fmt: skip
def test_other_transposed_convolutions_stay(about):
    model = model_of([("ConvTranspose", ["x", "w"], "out", about)], {"x": (3, 5, 7)},
                     {"w": (3, 4, 3, 3)})  # fmt: skip
    rewritten(transposed_phases.rewrite, model, 0)


def head(sides=(5, 7), colours=3, mode="reflect", pads=REFLECT, order="DCR"):
    nodes = [("Concat", ["p", "q", "r", "s"], "c", {"axis": 1}),
             ("DepthToSpace", ["c"], "d", {"blocksize": 2, "mode": order}),
             ("LeakyRelu", ["d"], "l", {"alpha": 0.1}), ("Pad", ["l", "pads"], "e", {"mode": mode}),
             ("Conv", ["e", "w", "b"], "f", {"kernel_shape": [3, 3]}),
             ("Tanh", ["f"], "out", {})]  # fmt: skip
    weights = {"w": (colours, 6, 3, 3), "b": (colours,), "pads": pads}
    return model_of(nodes, dict.fromkeys("pqrs", (6, *sides)), weights)


@pytest.mark.parametrize("sides", [(5, 7), (1, 1), (1, 4), (8, 8)])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_head_reads_the_phases_and_its_reflection_is_their_border(sides, colours):
    found = rewritten(phase_heads.rewrite, head(sides, colours), 1)
    assert found == {"LeakyRelu": 4, "Pad": 4, "Conv": 4, "Add": 3, "DepthToSpace": 1, "Tanh": 1}


@pytest.mark.parametrize(
    "model",
    [head(colours=5), head(mode="edge"), head(pads=REFLECT * 2), head(order="CRD")],
    ids=["many colours", "another padding", "more padding", "another order"],
)
def test_other_heads_stay(model):
    rewritten(phase_heads.rewrite, model, 0)


def narrow(channels):
    nodes = [("AveragePool", ["x"], "p", POOL), ("Conv", ["p", "w", "b"], "out", {})]
    return model_of(nodes, {"x": (channels, 6, 9)}, {"w": (5, channels, 1, 1), "b": (5,)})


def lone_up(sides=(5, 7)):
    nodes = [("ConvTranspose", ["x", "w", "b"], "out", UP)]
    return model_of(nodes, {"x": (3, *sides)}, {"w": (3, 4, 3, 3), "b": (4,)})


@pytest.mark.parametrize(
    ("one", "model"),
    [
        (pooled_convolutions, pooled((3, 8, 8), (5, 3, 3, 3))),
        (pooled_convolutions, narrow(3)),
        (joined_transposed, two_up()),
        (transposed_phases, lone_up()),
        (phase_heads, head()),
    ],
    ids=["pooled", "pooled before", "joined", "phases", "head"],
)
def test_a_bias_that_is_computed_is_never_lost(one, model):
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "b")
    half = numpy_helper.to_array(bias).astype(np.float16)
    bias.CopyFrom(numpy_helper.from_array(half, "half"))
    model.graph.node.insert(0, helper.make_node("Cast", ["half"], ["b"], "widen", to=1))
    rewritten(one.rewrite, model, 0)


def unshuffled(
    block, height=3, width=5, *, order=(0, 1, 3, 5, 2, 4), more=(), side=None, conv=None, y=()
):
    """Torch's pixel-unshuffle of (2, block height, block width) and a convolution of it."""
    six = np.array([-1, 2, height, block, width, side or block])
    out = np.array([-1, 2 * block**2, height, width])
    nodes = [("Reshape", ["x", "six"], "a", {}), ("Transpose", ["a"], "b", {"perm": order}),
             ("Reshape", ["b", "sides"], "c", {}),
             ("Conv", ["c", "w", "bias"], "out", SAME | (conv or {})), *more]  # fmt: skip
    x, w = (2, height * block, width * (side or block)), (5, 2 * block**2, 3, 3)
    weights = {"six": six, "sides": out, "w": w, "bias": w[:1]}
    inputs = {"x": x, "y": y} if y else {"x": x}
    return model_of(nodes, inputs, weights, more[-1][2] if more else "out")


@pytest.mark.parametrize("block", [2, 3, 4])
@pytest.mark.parametrize("pads", [[1] * 4, [0] * 4, [1, 0, 2, 1]])
def test_an_unshuffle_before_a_convolution_is_its_stride(block, pads):
    found = rewritten(wide_strides.rewrite, unshuffled(block, conv={"pads": pads}), 1)
    assert found == {"Conv": 1}


def test_a_weight_that_is_read_wider_keeps_its_name():
    model = unshuffled(4)
    rewritten(wide_strides.rewrite, model, 1)
    assert {t.name: list(t.dims) for t in model.graph.initializer} == {
        "w": [5, 2, 12, 12],
        "bias": [5],
    }


TWO = ("Conv", ["c", "w", "bias"], "d", SAME)


@pytest.mark.parametrize(
    "model",
    [
        unshuffled(2, order=(0, 1, 5, 3, 2, 4)),
        unshuffled(2, more=[("Tanh", ["b"], "d", {})]),
        unshuffled(2, 4, 2, side=4),
        unshuffled(2, conv={"strides": [2, 2]}),
        unshuffled(2, conv={"dilations": [2, 2], "pads": [2] * 4}),
        unshuffled(2, more=[TWO, ("Add", ["out", "d"], "e", {})]),
    ],
    ids=["another order", "a part is taken", "another width", "strided", "dilated", "two takers"],
)
def test_other_unshuffles_stay(model):
    rewritten(wide_strides.rewrite, model, 0)


def test_a_weight_of_two_convolutions_stays():
    nodes = [("Conv", ["y", "w", "bias"], "d", SAME), ("Add", ["out", "d"], "e", {})]
    rewritten(wide_strides.rewrite, unshuffled(2, more=nodes, y=(8, 3, 5)), 0)


def pooled_alone(channels, **other):
    nodes = [("Tanh", ["x"], "t", {}), ("AveragePool", ["t"], "out", POOL | other)]
    return model_of(nodes, {"x": (channels, 8, 6)}, {})


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_pool_over_a_picture_is_a_convolution(channels):
    found = rewritten(small_pools.rewrite, pooled_alone(channels), 1)
    assert found == {"Tanh": 1, "Conv": 1}


@pytest.mark.parametrize(
    ("channels", "other"),
    [
        (1, {}),
        (5, {}),
        (3, {"strides": [1, 1]}),
        (3, {"kernel_shape": [4, 4]}),
        (3, {"pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ],
)
def test_other_pools_stay(channels, other):
    rewritten(small_pools.rewrite, pooled_alone(channels, **other), 0)


@pytest.mark.parametrize("role", ["encoder", "decoder"])
@pytest.mark.parametrize("preset", ["picme", "pic", "cats"])
def test_the_report_of_an_engine_says_what_its_graphs_have(exported, preset, role):
    engine = engines.load(exported(preset).path)
    content, report = engine.read(f"fp32/{role}.onnx"), engine.provenance["graphs"][role]
    crops = engine.crops if role == "decoder" else ()
    cost = graph_shapes.check(content, getattr(engine.tables, role), crops)
    model = onnx.ModelProto.FromString(content)
    assert report["macs"][1] == cost.macs
    assert report["operators"][1] == len(model.graph.node)
    operators = {node.op_type for node in model.graph.node}
    assert "ConvTranspose" not in operators
    if preset == "cats":
        assert report["rewrites"] == ({"wide strides": 1} if role == "encoder" else {})
    else:
        assert report["rewrites"]
        assert (report["macs"][1] < 0.8 * report["macs"][0]) == (role == "encoder")


def test_a_new_node_has_a_name_that_no_node_of_an_earlier_pass_has():
    model = model_of([("Tanh", ["x"], "y", {}), ("Tanh", ["y"], "out", {})], {"x": (2,)}, {})
    for taken, given in (("x", "y"), ("y", "out")):
        graph = Graph(model)
        graph.give(given, graph.put("LeakyRelu", [taken], alpha=0.1))
        graph.finish()
    names = [node.name for node in model.graph.node]
    assert len(names) == len(set(names)) == 2


def test_for_a_gpu_transposed_convolutions_stay_and_pools_go():
    up, pool = two_up(), pooled((3, 8, 8), (5, 3, 3, 3))
    before = run(up), run(pool)
    for model in (up, pool):
        report = rewrites.apply(model, lambda _: 0, "gpu")
        assert report["rewrites"] == ({"pooled convolutions": 1} if model is pool else {})
    assert (run(up) == before[0]).all()
    np.testing.assert_allclose(run(pool), before[1], rtol=1e-5, atol=1e-5)
    assert rewrites.apply(up, lambda _: 0)["rewrites"].keys() >= {"transposed phases"}


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ([], "cpu"), (["--rewrites", "gpu"], "gpu"), (["--target", "tensorrt-rtx"], "gpu"),
        (["--target", "tensorrt-rtx", "--rewrites", "cpu"], "cpu"),
        (["--target", "tensorrt-rtx", "--precision", "bf16"], "cpu"),
    ],
)  # fmt: skip
def test_a_checkpoint_is_rewritten_for_what_runs_it(tmp_path, monkeypatch, options, target):
    asked = []
    monkeypatch.setattr(export, "export", lambda *_, **given: asked.append(given) or {})
    for module, name in ((verb, "_print"), (plan_verb, "run")):
        monkeypatch.setattr(module, name, lambda *_: {})
    assert cli.main(["export", str(tmp_path), "-o", str(tmp_path / "new"), *options]) == 0
    assert [given["rewritten_for"] for given in asked] == [target]


def test_applied_again_nothing_is_left_to_do(exported):
    engine = engines.load(exported("picme").path)
    for role in ("encoder", "decoder"):
        model = onnx.ModelProto.FromString(engine.read(f"fp32/{role}.onnx"))
        ends = getattr(engine.tables, role), engine.crops if role == "decoder" else ()
        report = rewrites.apply(
            model, lambda m, e=ends: graph_shapes.check(m.SerializeToString(), *e).macs
        )
        assert report["rewrites"] == {}
        assert report["macs"][0] == report["macs"][1]


def test_info_and_export_print_the_work_before_and_after(exported, capsys):
    engine = exported("picme").path
    assert cli.main(["info", str(engine)]) == 0
    printed = capsys.readouterr().out
    for role, report in engines.load(engine).provenance["graphs"].items():
        before, after = (n / 1e6 for n in report["macs"])
        line = next(line for line in printed.splitlines() if line.startswith(role))
        assert f"{before:.1f} -> {after:.1f} million multiply-adds" in line

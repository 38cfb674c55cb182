"""Rounding on OpenVINO: one operator a pair, once, and the numbers that the graph says."""

import numpy as np
import onnxruntime
import openvino
import pytest
from onnx_models import model_of

from picme_rt.backends import openvino_int8, openvino_rounding

STEP = np.array(0.03, np.float32)
KEPT = {
    "step": STEP, "zero": np.array(0, np.int8), "w": (8, 8, 2, 2),
    "steps": np.linspace(0.005, 0.02, 8, dtype=np.float32),
    "levels": np.random.default_rng(2).integers(-127, 128, (8, 8, 2, 2)).astype(np.int8),
    "first": np.array([1, 2]), "last": np.array([6, 7]), "sides": np.array([2, 3]),
    "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1]), "other": np.array(0.05, np.float32),
}  # fmt: skip


def pair(value, result, step="step"):
    """clip(round(x / s), -128, 127) s."""
    return [
        ("QuantizeLinear", [value, step, "zero"], f"{result}_levels", {}),
        ("DequantizeLinear", [f"{result}_levels", step, "zero"], result, {}),
    ]


def convolved(nodes, value):
    """A convolution in int8 of what the nodes make."""
    return model_of(
        [
            *nodes,
            ("DequantizeLinear", ["levels", "steps"], "weights", {"axis": 0}),
            ("Conv", [value, "weights"], "out", {"kernel_shape": [2, 2]}),
        ],
        {"x": (8, 9, 9)},
        KEPT,
    )


CROP = ("Slice", ["a", "first", "last", "sides"], "b", {})
MOVED = {
    "a crop": [*pair("x", "a"), CROP, *pair("b", "c")],
    "padding": [*pair("x", "a"), ("Pad", ["a", "pads"], "b", {"mode": "edge"}), *pair("b", "c")],
    "turned": [*pair("x", "a"), ("Transpose", ["a"], "b", {"perm": [0, 1, 3, 2]}), *pair("b", "c")],
    "a crop that is padded": [
        *pair("x", "a"), CROP, *pair("b", "d"),
        ("Pad", ["d", "pads"], "e", {"mode": "reflect"}), *pair("e", "c"),
    ],
}  # fmt: skip
OTHERS = {
    "side by side": [
        ("LeakyRelu", ["x"], "a", {"alpha": 0.2}), ("Mul", ["x", "step"], "d", {}),
        ("Concat", ["a", "d"], "e", {"axis": 1}), *pair("e", "f"),
        ("Split", ["f"], ["c", "g"], {"axis": 1, "num_outputs": 2}),
    ],
    "at another step": [*pair("x", "a"), CROP, *pair("b", "c", "other")],
    "restored at another step": [
        *pair("x", "a"), CROP,
        ("QuantizeLinear", ["b", "step", "zero"], "d", {}),
        ("DequantizeLinear", ["d", "other", "zero"], "c", {}),
    ],
    "computed on": [*pair("x", "a"), ("Tanh", ["a"], "b", {}), *pair("b", "c")],
    "alone": pair("x", "c"),
}  # fmt: skip


def read(model):
    found = openvino.Core().read_model(model.SerializeToString(), b"")
    found.reshape([1, 8, 9, 9])
    return found


def rounding(model):
    return sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def check(nodes, left):
    """OpenVINO gives ONNX Runtime's numbers, of so many operators that round."""
    model = convolved(nodes, "c")
    x = np.random.default_rng(3).standard_normal((1, 8, 9, 9)).astype(np.float32)
    x = (np.rint(x / STEP) + 0.25) * STEP  # far from the middle of two levels
    ours = read(model)
    openvino_rounding.fuse(ours)
    assert rounding(ours) == left
    options = {"INFERENCE_PRECISION_HINT": "f32", "CACHE_DIR": ""}
    options |= openvino_int8.IN_FLOAT if openvino_int8.saturates() else {}
    got = openvino.Core().compile_model(ours, "CPU", options)(x)[0]
    (want,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    assert want.std() > 0.1
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("case", MOVED)
def test_what_was_moved_alone_is_not_rounded_again(case):
    check(MOVED[case], left=1)


@pytest.mark.parametrize("case", OTHERS)
def test_all_else_is_rounded_as_the_graph_says(case):
    check(OTHERS[case], left=len([n for n in OTHERS[case] if n[0] == "QuantizeLinear"]))


def test_a_sum_that_is_rounded_after_it_is_put_together_has_the_steps_of_the_file():
    """OpenVINO 2026.4 by itself rounds the parts to whole numbers."""
    nodes = [
        ("Split", ["x"], ["a", "b"], {"axis": 1, "num_outputs": 2}),
        ("LeakyRelu", ["a"], "d", {"alpha": 0.2}),
        ("LeakyRelu", ["b"], "e", {"alpha": 0.2}),
        ("Concat", ["d", "e"], "f", {"axis": 1}),
        *pair("f", "c"),
    ]
    check(nodes, left=1)


def test_rounding_that_is_no_pair_is_left():
    from openvino import opset13 as ops

    x = ops.parameter([1, 4], np.float32)
    ends = [np.float32(n) for n in (-1, 1, -1, 1)]
    model = openvino.Model([ops.relu(ops.fake_quantize(x, *ends, 256))], [x], "t")
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]
    openvino_rounding.fuse(model)
    assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before

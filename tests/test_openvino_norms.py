"""Instance norms on OpenVINO: the same function, and one thread gives the bits of two."""

import numpy as np
import openvino
import pytest
from cpu_backends import BF16
from openvino import opset13 as ops

from picme_rt.backends import openvino_norms

SHAPE = (1, 32, 24, 20)
KINDS = ["f32"] + ["bf16"] * BF16


def graph(axes=(2, 3), epsilon=1e-3, mode="inside_sqrt"):
    """A convolution, whose map has its channels last, and its norm; a fresh one for each run."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 32, 3, 3), np.float32)
    x = ops.parameter(SHAPE, np.float32)
    made = ops.convolution(x, weight, [1, 1], [1, 1], [1, 1], [1, 1])
    normed = ops.mvn(made, np.int64(axes), True, epsilon, mode)
    return openvino.Model([ops.relu(normed)], [x], "norm")


def run(model, kind="f32", threads=1):
    """What it gives, and the operators that ran."""
    options = {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": threads, "CACHE_DIR": ""}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    given = np.random.default_rng(1).standard_normal(SHAPE, np.float32)
    nodes = compiled.get_runtime_model().get_ops()
    return compiled(given)[0].copy(), [node.get_rt_info()["layerType"].value for node in nodes]


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_do_not_depend_on_the_number_of_threads(kind):
    found = []
    for threads in (1, 2, 3):
        model = graph()
        openvino_norms.decompose(model)
        values, operators = run(model, kind, threads)
        assert "MVN" not in operators
        found.append(values.tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_is_the_same_function(kind):
    model = graph(axes=(-1, -2))
    openvino_norms.decompose(model)
    want, _ = run(graph())
    got, _ = run(model, kind)
    assert want.max() > 3
    atol = 1e-5 if kind == "f32" else 0.05
    np.testing.assert_allclose(got, want, atol=atol)


@pytest.mark.parametrize("other", [{"axes": (1, 2, 3)}, {"mode": "outside_sqrt"}])
def test_another_norm_is_left_as_it_is(other):
    model = graph(**other)
    openvino_norms.decompose(model)
    assert "MVN" in [node.get_type_name() for node in model.get_ops()]

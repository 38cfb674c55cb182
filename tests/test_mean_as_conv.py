"""A mean of neighbours as a convolution: the same numbers, where it pays and nowhere else."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from picme_export import graphs, mean_as_conv
from picme_training.config import NetworkConfig
from picme_training.networks import Picme, fold


def pooled(channels, **attributes):
    node = helper.make_node("AveragePool", ["x"], ["y"], "mean", count_include_pad=1, **attributes)
    tanh = helper.make_node("Tanh", ["given"], ["x"])
    ends = [
        helper.make_tensor_value_info(name, 1, ["B", channels, None, None])
        for name in ("given", "out")
    ]
    last = helper.make_node("Tanh", ["y"], ["out"])
    graph = helper.make_graph([tanh, node, last], "g", ends[:1], ends[1:])
    graph.value_info.append(helper.make_tensor_value_info("x", 1, ["B", channels, 9, 8]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    return model


def run(model, x):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["out"], {"given": x})[0]


@pytest.mark.parametrize("kernel", [[2, 2], [3, 1], [4, 5]])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_gives_what_the_mean_gives(channels, kernel):
    model = pooled(channels, kernel_shape=kernel)
    x = np.random.default_rng(0).standard_normal((2, channels, 9, 8)).astype(np.float32)
    want = run(model, x)
    assert mean_as_conv.rewrite(model.graph) == 1
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Tanh", "Conv", "Tanh"]
    np.testing.assert_allclose(run(model, x), want, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "attributes"),
    [
        (48, {"kernel_shape": [2, 2]}),
        (3, {"kernel_shape": [2, 2], "strides": [2, 2]}),
        (3, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ],
)
def test_many_channels_strides_and_pads_stay(channels, attributes):
    model = pooled(channels, **attributes)
    before = model.SerializeToString()
    assert mean_as_conv.rewrite(model.graph) == 0
    assert model.SerializeToString() == before


def test_a_decoder_with_a_pixel_shuffle_has_no_such_mean_left(tmp_path):
    model = fold(Picme(NetworkConfig("cats", 128)))
    path, table = tmp_path / "decoder.onnx", graphs.tables_of(model).decoder
    graphs.to_onnx(graphs.DecoderGraph(model, z_m=True), table, path)
    graph = onnx.load(path).graph
    assert "DepthToSpace" in {node.op_type for node in graph.node}
    for node in graph.node:
        if node.op_type == "AveragePool":
            options = {one.name: list(one.ints) for one in node.attribute}
            assert options["strides"] == options["kernel_shape"] != [1, 1]

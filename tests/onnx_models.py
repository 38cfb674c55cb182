"""Small ONNX models for tests of rewrites, and what a rewrite must keep."""

import collections

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from picme_export.rewrites.graph import Graph


def model_of(nodes, inputs, weights, out="out"):
    """A model of (operator, inputs, output(s), attributes); inputs, float weights by shape."""
    random = np.random.default_rng(0)
    kept = [
        numpy_helper.from_array(
            value if isinstance(value, np.ndarray)
            else random.standard_normal(value).astype(np.float32), name
        )
        for name, value in weights.items()
    ]  # fmt: skip
    made = [
        helper.make_node(
            op, names, [result] if isinstance(result, str) else result, f"n{i}", **about
        )
        for i, (op, names, result, about) in enumerate(nodes)
    ]
    ends = [helper.make_tensor_value_info(n, 1, ["B", *shape]) for n, shape in inputs.items()]
    graph = helper.make_graph(made, "g", ends, [helper.make_empty_tensor_value_info(out)], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def run(model, seed=1):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(seed)
    values = {
        i.name: random.standard_normal((2, *i.shape[1:])).astype(np.float32)
        for i in session.get_inputs()
    }
    return session.run(None, values)[0]


def rewritten(rewrite, model, times):
    """The model after a pass that must fire so often; what it gives is compared."""
    before, graph = run(model), Graph(model)
    assert rewrite(graph) == times
    graph.finish()
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model), before, rtol=1e-5, atol=1e-5)
    return collections.Counter(node.op_type for node in model.graph.node)

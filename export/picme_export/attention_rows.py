"""An attention whose weights int8 can hold: each row divided by its largest, the result times it.

What a place gathers is sum_j a_j v_j with a = softmax(s). Few steps would be left of a flat row's
weights, 1 / N each, beside a sharp one's; with m = max_j a_j it is m sum_j (a_j / m) v_j, and every
row's a / m reaches 1.
"""

import numpy as np
import onnx

from picme_export.rewrites.graph import Graph, attributes_of

_ROWS = -1


def rewrite(graph: Graph) -> int:
    """Divides the rows of every attention's weights; what the graph gives is the same.

    Returns:
        How many attentions there were.
    """
    done = 0
    for softmax in graph.nodes("Softmax"):
        takers = _products(graph, softmax)
        if not takers:
            continue
        axes = graph.keep(np.array([_ROWS], np.int64))
        largest = graph.put("ReduceMax", [softmax.output[0], axes], keepdims=1)
        scaled = graph.put("Div", [softmax.output[0], largest])
        weights = graph.put("Transpose", [scaled], perm=[0, 2, 1])
        back = graph.put("Transpose", [largest], perm=[0, 2, 1])
        for node in takers:
            product = graph.put("MatMul", [node.input[0], weights])
            graph.give(node.output[0], graph.put("Mul", [product, back]))
        done += 1
    return done


def products(graph: onnx.GraphProto) -> set[str]:
    """The names of the products with such weights."""
    makers = {name: node for node in graph.node for name in node.output}

    def made_by(name: str, *operators: str) -> bool:
        node = makers.get(name)
        if node is None or node.op_type != operators[0]:
            return False
        return len(operators) == 1 or made_by(node.input[-1], *operators[1:])

    return {
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and made_by(node.input[1], "Transpose", "Div", "ReduceMax")
    }


def _products(graph: Graph, softmax: onnx.NodeProto) -> list[onnx.NodeProto]:
    """What gathers with the rows of a softmax; none where anything else takes them."""
    turned = graph.only_taker(softmax.output[0])
    along = attributes_of(softmax).get("axis", -1)
    if turned is None or turned.op_type != "Transpose" or along not in (-1, 2):
        return []
    if attributes_of(turned).get("perm") != [0, 2, 1]:
        return []
    (weights,) = turned.output
    takers = graph.takers(weights)
    gather = all(
        node.op_type == "MatMul" and node.input[1] == weights != node.input[0] for node in takers
    )
    return takers if gather else []

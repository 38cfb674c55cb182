"""A Concat of channels moves behind what works on each channel alone, and into convolutions.

A convolution over concatenated maps is the sum of convolutions over each. ONNX Runtime keeps maps
of a multiple of 16 channels in blocks and adds in place; three colours beside 128 channels
throw the whole layer back to a slower layout.
"""

import numpy as np
import onnx

from picme_export.rewrites.graph import Graph, attributes_of

BLOCK = 16


def rewrite(graph: Graph) -> int:
    """Splits instance norms, leaky ReLUs and convolutions over uneven concatenations.

    Returns:
        How many nodes were split.
    """
    done = 0
    while True:
        found = next((p for c in graph.nodes("Concat") for p in _candidates(graph, c)), None)
        if found is None:
            return done
        concat, taker = found
        if taker.op_type == "Conv":
            graph.give(taker.output[0], _split_conv(graph, taker, list(concat.input)))
        else:
            graph.give(taker.output[0], _split_channelwise(graph, taker, list(concat.input)))
        done += 1


def _candidates(
    graph: Graph, concat: onnx.NodeProto
) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """What takes an uneven concatenation of channels and can be split."""
    widths = [graph.channels(name) for name in concat.input]
    if attributes_of(concat).get("axis") != 1 or 0 in widths:
        return []
    if not any(n % BLOCK for n in widths) or max(widths) < 2 * BLOCK:
        return []
    return [(concat, node) for node in graph.takers(concat.output[0]) if _splits(graph, node)]


def _splits(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type == "Conv":
        return attributes_of(node).get("group", 1) == 1 and graph.weight(node.input[1]) is not None
    if node.op_type == "InstanceNormalization":
        return all(graph.weight(name) is not None for name in node.input[1:])
    if node.op_type == "Slice":  # an engine's takes sides alone
        return True
    return node.op_type == "LeakyRelu"


def _split_conv(graph: Graph, conv: onnx.NodeProto, parts: list[str]) -> str:
    weight = graph.weight(conv.input[1])
    assert weight is not None
    at, total = 0, ""
    for part in parts:
        wide = graph.channels(part)
        inputs = [part, graph.keep(weight[:, at : at + wide])]
        if not total:
            inputs += conv.input[2:]
        one = graph.put("Conv", inputs, **attributes_of(conv))  # type: ignore[arg-type]
        total = graph.put("Add", [total, one]) if total else one
        at += wide
    return total


def _split_channelwise(graph: Graph, node: onnx.NodeProto, parts: list[str]) -> str:
    norm = node.op_type == "InstanceNormalization"
    weights = [graph.weight(name) for name in node.input[1:] if norm]
    at, made = 0, []
    for part in parts:
        wide = graph.channels(part)
        more = [graph.keep(np.asarray(w)[at : at + wide]) for w in weights]
        more = more if norm else list(node.input[1:])
        about = attributes_of(node)
        made.append(graph.put(node.op_type, [part, *more], **about))  # type: ignore[arg-type]
        at += wide
    return graph.put("Concat", made, axis=1)

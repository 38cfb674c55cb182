"""Rounding to int8 comes before what only moves values, too: `Pad`, `Slice` and `Transpose`.

OpenVINO rounds where a convolution ends, and for nothing; after a Pad, or a Slice whose sides are
free, it goes to float32 and another layout first. What moves then moves a quarter of the bytes, and
OpenVINO does not round a second time (its backend's openvino_rounding.py).
"""

import onnx
from onnx import helper

MOVERS = ("Pad", "Slice", "Transpose")


def rewrite(graph: onnx.GraphProto) -> int:
    """Puts pairs of `QuantizeLinear` and `DequantizeLinear` before what moves a value for a pair.

    What the graph gives is the same to the bit: to round twice is to round once, and 0, which Pad
    may add, is rounded to 0. The later pair stays: ONNX Runtime 1.31 brings its own where a rounded
    value is cut and not rounded again, and fails on it.

    Returns:
        How many pairs were put in.
    """
    done = 0
    while (found := _found(graph)) is not None:
        mover, quantise, restore = found
        source, early = mover.input[0], f"{mover.output[0]}_early"
        levels = f"{early}_levels"
        pair = [
            helper.make_node(
                "QuantizeLinear", [source, *quantise.input[1:]], [levels], f"{levels}_by"
            ),
            helper.make_node(
                "DequantizeLinear", [levels, *restore.input[1:]], [early], f"{early}_by"
            ),
        ]
        mover.input[0] = early
        nodes = [one for node in graph.node for one in ([*pair, node] if node is mover else [node])]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
        done += 1
    return done


def _found(graph: onnx.GraphProto) -> tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto] | None:
    """What moves a value that was not rounded before, and the pair that rounds it thereafter."""
    makers = {name: node for node in graph.node for name in node.output}
    for quantise in graph.node:
        mover = makers.get(quantise.input[0]) if quantise.op_type == "QuantizeLinear" else None
        if mover is None or mover.op_type not in MOVERS:
            continue
        source = makers.get(mover.input[0])
        if source is not None and source.op_type == "DequantizeLinear":
            continue
        takers = [node for node in graph.node if mover.output[0] in node.input]
        given = any(value.name == mover.output[0] for value in graph.output)
        if len(takers) == 1 and not given:
            (restore,) = (node for node in graph.node if quantise.output[0] in node.input)
            return mover, quantise, restore
    return None

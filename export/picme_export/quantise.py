"""int8: convolutions, and products of an attention, between QuantizeLinear and DequantizeLinear.

Activations are symmetric (zero point 0, one scale), weights have one scale an output channel and
lie in the file as int8; biases and everything between the convolutions stay float32, what they give
too. A backend that fuses nothing computes the same in float32.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from picme_export import attention_rows, early_rounding
from picme_export.rewrites.graph import infer_shapes

LEVELS = 127
"""Largest integer in use; -128 is not, so that a sign costs nothing."""
_OUTPUT_CHANNELS = {"Conv": 0, "ConvTranspose": 1}  # which axis of the weights
_RESHAPES = ("Reshape", "Transpose")
_ZERO = "int8_zero"


class Layer(NamedTuple):
    """What could be computed in int8: its node, the values that it takes, and its output."""

    name: str
    operator: str
    takes: tuple[str, ...]
    gives: str


def layers(model: onnx.ModelProto) -> list[Layer]:
    """Every convolution and product that could be, in the order of the graph.

    A convolution's weights lie in the file, and nobody reshapes what it gives: those are the
    queries of an attention, whose softmax magnifies differences, and ONNX Runtime 1.31 fails on
    int8 there. A product is one with the rows of attention_rows.py.
    """
    stored = {weight.name for weight in model.graph.initializer}
    reshaped = {node.input[0] for node in model.graph.node if node.op_type in _RESHAPES}
    products = attention_rows.products(model.graph)

    def takes(node: onnx.NodeProto) -> tuple[str, ...]:
        if node.name in products:
            return tuple(node.input)
        able = node.op_type in _OUTPUT_CHANNELS and node.input[1] in stored
        return (node.input[0],) if able and node.output[0] not in reshaped else ()

    return [
        Layer(node.name, node.op_type, values, node.output[0])
        for node in model.graph.node
        if (values := takes(node))
    ]


def activations(chosen: Collection[Layer]) -> list[str]:
    """The values that are quantised with these layers, their inputs, each once."""
    return list(dict.fromkeys(name for one in chosen for name in one.takes))


def quantise(
    model: onnx.ModelProto, chosen: Collection[Layer], ranges: Mapping[str, float]
) -> onnx.ModelProto:
    """A copy of a graph with some layers in int8.

    x -> clip(round(x / s), -128, 127) * s with s = range / 127, likewise each output channel of
    the weights with s = max |w| / 127.

    Args:
        model: A float32 graph.
        chosen: Of `layers`.
        ranges: Largest magnitude that is kept of each value of `activations`, over 0.
    """
    names = activations(chosen)
    of_layers = {one.name: one for one in chosen}
    done, stored = onnx.ModelProto(), {weight.name: weight for weight in model.graph.initializer}
    done.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    added = [numpy_helper.from_array(np.array(0, np.int8), _ZERO)]

    def put(operator: str, inputs: list[str], result: str) -> onnx.NodeProto:
        nodes.append(helper.make_node(operator, inputs, [result], f"{result}_by"))
        return nodes[-1]

    def round_values(made: Iterable[str]) -> None:
        for name in (name for name in made if name in names):
            scale = np.array(ranges[name] / LEVELS, np.float32)
            added.append(numpy_helper.from_array(scale, f"{name}_scale"))
            by = [f"{name}_scale", _ZERO]
            put("QuantizeLinear", [name, *by], f"{name}_int8")
            put("DequantizeLinear", [f"{name}_int8", *by], f"{name}_rounded")

    round_values(value.name for value in done.graph.input)
    for node in done.graph.node:
        if (layer := of_layers.get(node.name)) is not None:
            for place, name in enumerate(layer.takes):
                node.input[place] = f"{name}_rounded"
        if layer is not None and node.op_type in _OUTPUT_CHANNELS:
            axis = _OUTPUT_CHANNELS[node.op_type]
            int8, scales, back = (f"{node.name}_{what}" for what in ("int8", "scales", "weights"))
            numbers, steps = weights(numpy_helper.to_array(stored[node.input[1]]), axis)
            added += [
                numpy_helper.from_array(numbers, int8),
                numpy_helper.from_array(steps, scales),
            ]
            restore = put("DequantizeLinear", [int8, scales], back)
            restore.attribute.append(helper.make_attribute("axis", axis))
            node.input[1] = back
        nodes.append(node)
        round_values(node.output)
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in (*done.graph.initializer, *added) if weight.name in used]
    del done.graph.node[:], done.graph.initializer[:], done.graph.value_info[:]
    done.graph.node.extend(nodes)
    done.graph.initializer.extend(kept)
    early_rounding.rewrite(done.graph)
    infer_shapes(done)
    return done


def weights(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights as integers, and the scale of each channel along `axis`."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(LEVELS)
    levels = np.clip(np.rint(values / scales), -LEVELS, LEVELS).astype(np.int8)
    return levels, scales.reshape(-1)


def multiplications(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """Of each layer by name, for one item of a batch.

    Args:
        model: The graph.
        shapes: Of its values, as `picme_rt.graph_shapes.check` gives them.
    """
    stored = {weight.name: math.prod(weight.dims) for weight in model.graph.initializer}
    sizes = {node.name: stored.get(node.input[1], 0) for node in model.graph.node if node.input[1:]}

    def of(one: Layer) -> int:
        taken, given = shapes[one.takes[0]], shapes[one.gives]
        if one.operator == "MatMul":
            return math.prod(given[1:]) * taken[-1]
        return sizes[one.name] * math.prod((given if one.operator == "Conv" else taken)[2:])

    return {one.name: of(one) for one in layers(model)}

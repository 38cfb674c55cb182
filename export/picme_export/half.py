"""Two-byte numbers in a graph: convolutions in float16 or bfloat16, the rest where it must be fp32.

TensorRT is strongly typed: it computes in the types that the file says. Products and softmax of the
attention (without a scale they leave float16's range), instance norm, and everything from the first
matrix on that leads to the mixture stay float32; so do all inputs and outputs.
"""

from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Half = Literal["fp16", "bf16"]
_TYPES = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}
_FLOAT = onnx.TensorProto.FLOAT
_BFLOAT16_OPSET = 22
"""From here on convolutions may be bfloat16; nothing else of ours differs from opset 21."""
CONVOLUTIONS = ("Conv", "ConvTranspose")
FLOAT32 = ("Gemm", "MatMul", "Softmax", "LogSoftmax", "InstanceNormalization", "Clip", "Tanh")
"""What is computed in float32 whatever it takes."""
_OF_OTHER_TYPE = {"Resize": (1, 2)}
"""Inputs of float32 by the operator's own definition: roi and scales."""


def rewrite(model: onnx.ModelProto, half: Half) -> onnx.ModelProto:
    """A copy of a float32 graph with its convolutions in two bytes.

    An operator that could be either is float32 if all that it takes is: so nothing is rounded
    between two that are float32, as from the matrix of log sigma to its clip.

    Args:
        model: A float32 graph, whose weights all lie in the file.
        half: The type.
    """
    done = onnx.ModelProto()
    done.CopyFrom(model)
    graph = done.graph
    kind = _TYPES[half]
    if half == "bf16":
        done.opset_import[0].version = _BFLOAT16_OPSET
    weights = {one.name: one for one in graph.initializer}
    types = {one.name: one.type.tensor_type.elem_type for one in graph.input}
    nodes: list[onnx.NodeProto] = []
    made: dict[tuple[str, int], str] = {}  # a value in another type, by which name
    added: list[onnx.TensorProto] = []

    def cast(name: str, to: int, result: str) -> str:
        nodes.append(helper.make_node("Cast", [name], [result], f"{result}_by", to=to))
        return result

    def as_type(name: str, to: int) -> str:
        """The name of a value in this type, made where it is first asked for."""
        if name in weights:
            if to == _FLOAT or weights[name].data_type != _FLOAT:
                return name
            if (name, to) not in made:
                made[name, to] = f"{name}_{half}"
                added.append(_rounded(weights[name], to, made[name, to]))
        elif types[name] not in (to, onnx.TensorProto.INT64):
            if (name, to) not in made:
                made[name, to] = cast(name, to, f"{name}_{half if to == kind else 'fp32'}")
        else:
            return name
        return made[name, to]

    ends = {one.name for one in graph.output}
    for node in graph.node:
        values = [name for name in node.input if name and name not in weights]
        floats = {types[name] for name in values} - {onnx.TensorProto.INT64}
        two = node.op_type in CONVOLUTIONS or (node.op_type not in FLOAT32 and kind in floats)
        to = kind if two else _FLOAT
        other = _OF_OTHER_TYPE.get(node.op_type, ())
        integers = bool(values) and not floats  # indices and shapes, of no float at all
        if node.op_type != "Shape" and not integers:
            node.input[:] = [
                name if not name or place in other else as_type(name, to)
                for place, name in enumerate(node.input)
            ]
        gives = onnx.TensorProto.INT64 if node.op_type == "Shape" or integers else to
        types.update(dict.fromkeys(node.output, gives))
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in ends and two:  # what leaves the graph is float32
                node.output[place] = f"{name}_{half}"
                types[f"{name}_{half}"] = kind
                types[name] = _FLOAT
                cast(f"{name}_{half}", _FLOAT, name)
                made[name, kind] = f"{name}_{half}"
    used = {name for node in nodes for name in node.input}
    kept = [one for one in (*graph.initializer, *added) if one.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    onnx.checker.check_model(done, full_check=True)
    return done


def _rounded(weight: onnx.TensorProto, kind: int, name: str) -> onnx.TensorProto:
    """Weights in two bytes, to nearest even."""
    values: NDArray[np.float32] = numpy_helper.to_array(weight)
    if kind == onnx.TensorProto.FLOAT16:
        return numpy_helper.from_array(values.astype(np.float16), name)
    bits = values.view(np.uint32)
    bits = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    content = bits.astype("<u2").tobytes()
    return helper.make_tensor(name, kind, values.shape, content, raw=True)

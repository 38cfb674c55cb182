"""Weights that lie in a file as float16, each with a `Cast` back to float32 behind it.

Storage alone: what runs computes in float32 as ever, with weights that were rounded once.
"""

import math

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from picme_rt.errors import InputError
from picme_training.networks import Picme

LEAST = 1024
"""Numbers of a weight from which on it is rounded: smaller ones would save nothing."""
_WIDE = " as float32"


def round_(model: Picme) -> None:
    """Rounds the large weights of a folded model to float16, in place, and keeps them float32.

    Raises:
        InputError: A weight is beyond float16, or not a number.
    """
    most = torch.finfo(torch.float16).max
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.numel() < LEAST:
                continue
            largest = float(weight.abs().max())
            if not largest <= most:
                raise InputError(
                    f"weights of at most {most:g} can be stored as fp16, got {largest:g} in "
                    f"{name}; export with --weights fp32"
                )
            weight.copy_(weight.half().float())


def store(model: onnx.ModelProto) -> None:
    """Turns every large float32 weight that float16 holds exactly into float16 and a `Cast`."""
    graph, renamed = model.graph, {}
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or math.prod(tensor.dims) < LEAST:
            continue
        wide = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float16)
        if not np.array_equal(narrow.astype(np.float32), wide):
            continue
        renamed[tensor.name] = tensor.name + _WIDE
        tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    casts = [
        helper.make_node("Cast", [name], [wide], f"{name} cast", to=onnx.TensorProto.FLOAT)
        for name, wide in renamed.items()
    ]
    for value in graph.value_info:  # the exporter describes weights too
        if value.name in renamed:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *kept])


def widened(content: bytes) -> onnx.ModelProto:
    """A graph of an engine with all its weights in float32, as whoever rewrites graphs wants it."""
    model = onnx.load_from_string(content)
    graph = model.graph
    stored = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    casts = [n for n in graph.node if n.op_type == "Cast" and n.input[0] in stored]
    described = {value.name: value for value in graph.value_info}
    for node in casts:
        if node.input[0] in described:
            graph.value_info.remove(described[node.input[0]])
        wide = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
        stored[node.input[0]].CopyFrom(numpy_helper.from_array(wide, node.output[0]))
        graph.node.remove(node)
    return model

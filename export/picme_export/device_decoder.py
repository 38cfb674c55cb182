"""A decoder for plans: k latents of each picture in one run, the whole picture of each.

The engine's decoder takes as many maps as latents, and a box whose sides a graph of CUDA cannot
follow. Here the maps of B pictures are repeated inside the graph, once a latent, so that nothing is
copied outside of it, and the crops are gone.

    z (B, k, D) [, z_m (B, D)], f_0 (B, C, h, w), ..., hole (B, 1, S, S) -> picture (B, k, 3, S, S)
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from picme_rt import plans, tensors

_FLOAT = onnx.TensorProto.FLOAT
BATCH_AND_K = "B_and_k"
"""Name of the value that holds B and k while the graph runs."""


def rewrite(model: onnx.ModelProto, graph: tensors.Graph) -> onnx.ModelProto:
    """A copy of an engine's decoder, made for plans.

    Args:
        model: The decoder.
        graph: Its inputs and outputs, as the engine says them.
    """
    done = onnx.ModelProto()
    done.CopyFrom(model)
    _uncrop(done.graph)
    _repeat(done.graph, plans.decoder_table(graph))
    del done.graph.value_info[:]  # they say nothing of the new axis
    onnx.checker.check_model(done, full_check=True)
    return done


def _uncrop(graph: onnx.GraphProto) -> None:
    """Takes `box` away, and every `Slice` whose ends it gives: maps stay whole."""
    of_box, kept = {"box"}, []
    instead: dict[str, str] = {}  # what a Slice gave, by what it took
    for node in graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
        if of_box.isdisjoint(node.input):
            kept.append(node)
        elif node.op_type == "Slice":
            instead[node.output[0]] = node.input[0]
        else:
            of_box.update(node.output)
    del graph.node[:]
    graph.node.extend(kept)


def _repeat(graph: onnx.GraphProto, wanted: tensors.Graph) -> None:
    """Gives the inputs and the picture their axes; inside, B and k are one axis as before."""
    front = [helper.make_node("Shape", ["z"], [BATCH_AND_K], "B_and_k_of_z", start=0, end=2)]
    back: list[onnx.NodeProto] = []

    def keep(name: str, numbers: Sequence[int]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
        return name

    def put(nodes: list[onnx.NodeProto], operator: str, inputs: list[str], result: str) -> str:
        nodes.append(helper.make_node(operator, inputs, [result], f"{result}_by"))
        return result

    axis = keep("axis_of_k", [1])
    (picture,) = wanted.outputs
    for tensor in wanted.inputs:
        name = tensor.name
        for node in graph.node:
            node.input[:] = [f"{name}_of_each" if one == name else one for one in node.input]
        source = name
        if not tensor.repeated:
            put(front, "Concat", [BATCH_AND_K, keep(f"{name}_tail", tensor.shape)], f"{name}_shape")
            front[-1].attribute.append(helper.make_attribute("axis", 0))
            put(front, "Unsqueeze", [name, axis], f"{name}_once")
            source = put(front, "Expand", [f"{name}_once", f"{name}_shape"], f"{name}_k_times")
        rows = keep(f"{name}_rows", [-1, *tensor.shape])
        put(front, "Reshape", [source, rows], f"{name}_of_each")
    for node in graph.node:
        node.output[:] = [f"{n}_of_each" if n == picture.name else n for n in node.output]
    tail = keep(f"{picture.name}_tail", picture.shape)
    put(back, "Concat", [BATCH_AND_K, tail], f"{picture.name}_shape")
    back[-1].attribute.append(helper.make_attribute("axis", 0))
    each = f"{picture.name}_of_each"
    put(back, "Reshape", [each, f"{picture.name}_shape"], picture.name)
    nodes = [*front, *graph.node, *back]
    used = {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.node[:], graph.input[:], graph.output[:], graph.initializer[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    graph.input.extend(_declared(t) for t in wanted.inputs)
    graph.output.append(_declared(picture))


def _declared(tensor: tensors.Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _FLOAT, tensor.axes)

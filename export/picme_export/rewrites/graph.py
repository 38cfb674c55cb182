"""An exported graph under rewriting: who makes a value, who takes it, what lies in the file.

A pass adds nodes with `put` and lets the new value take an old one's name with `give`; nodes that
nobody takes from any more go at `finish`, which also brings the others into running order.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Attribute = int | float | str | list[int]
Parameters = tuple[NDArray[np.float32], NDArray[np.float32] | None]
_KEEP_CHANNELS = ("Add", "InstanceNormalization", "LeakyRelu", "Pad", "Slice", "Tanh")
"""A result has as many channels as the first input; an engine's Slice takes sides alone."""


class Graph:
    """A view of an ONNX model that changes it in place.

    Args:
        model: The whole model; every value's shape is inferred anew.
    """

    def __init__(self, model: onnx.ModelProto):
        infer_shapes(model)
        self.model, self._nodes = model, list(model.graph.node)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._fresh = 0
        ends = (*model.graph.value_info, *model.graph.input, *model.graph.output)
        self._shapes = {
            value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in ends
        }

    def nodes(self, operator: str) -> list[onnx.NodeProto]:
        """All nodes of one operator that are there now."""
        return [node for node in self._nodes if node.op_type == operator]

    def maker(self, name: str, operator: str) -> onnx.NodeProto | None:
        """The node of this operator that makes a value, if it is one."""
        return next((n for n in self._nodes if name in n.output and n.op_type == operator), None)

    def takers(self, name: str) -> list[onnx.NodeProto]:
        """Every node that takes a value."""
        return [node for node in self._nodes if name in node.input]

    def only_taker(self, name: str) -> onnx.NodeProto | None:
        """The one node that takes a value which does not leave the graph, else None."""
        takers = self.takers(name)
        leaves = any(value.name == name for value in self.model.graph.output)
        return takers[0] if len(takers) == 1 and not leaves else None

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value or weight; the free batch axis is 0, () where it is not known."""
        tensor = self._weights.get(name)
        return tuple(tensor.dims) if tensor is not None else self._shapes.get(name, ())

    def channels(self, name: str) -> int:
        """Length of axis 1 of a value, a new one's too; 0 where it is not known."""
        if len(shape := self.shape(name)) > 1 and shape[1]:
            return shape[1]
        node = next((n for n in self._nodes if name in n.output), None)
        if node is None:
            return 0
        if node.op_type in ("Conv", "ConvTranspose"):
            return self.shape(node.input[1])[node.op_type == "ConvTranspose"]
        if node.op_type == "Concat":
            return sum(self.channels(part) for part in node.input)
        if node.op_type == "DepthToSpace":
            return self.channels(node.input[0]) // int(str(attributes_of(node)["blocksize"])) ** 2
        if node.op_type not in _KEEP_CHANNELS:
            return 0
        return self.channels(node.input[0])

    def parts(self, name: str) -> list[str]:
        """What is concatenated along the channels to make a value; itself if nothing is."""
        concat = self.maker(name, "Concat")
        if concat is None or attributes_of(concat).get("axis") != 1:
            return [name]
        return [part for entry in concat.input for part in self.parts(entry)]

    def weight(self, name: str) -> NDArray[np.float32] | None:
        """A float weight that lies in the file."""
        tensor = self._weights.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        return np.asarray(numpy_helper.to_array(tensor), np.float32)

    def parameters(self, conv: onnx.NodeProto) -> Parameters | None:
        """Weight and bias (None without one) of a convolution, if all it has lies in the file."""
        found = [self.weight(name) for name in conv.input[1:] if name]
        there = [one for one in found if one is not None]
        if len(there) < len(found):
            return None
        return there[0], there[1] if len(there) > 1 else None

    def integers(self, name: str) -> list[int] | None:
        """Integers that lie in the file."""
        tensor = self._weights.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.INT64:
            return None
        return [int(n) for n in numpy_helper.to_array(tensor).reshape(-1)]

    def keep(self, array: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """A new weight's name."""
        name = self._name("weight")
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        self.model.graph.initializer.append(tensor)
        self._weights[name] = tensor
        return name

    def replace(self, name: str, array: NDArray[np.float32]) -> None:
        """Puts another weight in the place of one, under its name."""
        self._weights[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
        described = self.model.graph.value_info
        kept = [value for value in described if value.name != name]  # the exporter says its shape
        del described[:]
        described.extend(kept)

    def put(self, operator: str, inputs: Iterable[str], **attributes: Attribute) -> str:
        """A new node's only result."""
        out = self._name(operator)
        node = helper.make_node(operator, list(inputs), [out], f"node_{out}")
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self._nodes.append(node)
        return out

    def conv(
        self,
        x: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        *,
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int],
    ) -> str:
        """A new convolution, (Co, Ci, h, w) weights, pads top, left, bottom, right."""
        inputs = [x, self.keep(weight.astype(np.float32))]
        if bias is not None:
            inputs.append(self.keep(bias.astype(np.float32)))
        return self.put(
            "Conv", inputs, kernel_shape=list(weight.shape[2:]), strides=list(strides),
            pads=list(pads), dilations=[1, 1], group=1, auto_pad="NOTSET",
        )  # fmt: skip

    def give(self, old: str, new: str) -> None:
        """The value `old` is from now on what was just made as `new`."""
        self._nodes = [node for node in self._nodes if old not in node.output]
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [old if name == new else name for name in names]

    def finish(self) -> None:
        """Drops what leads nowhere, sorts the nodes, and infers shapes of what is new."""
        graph = self.model.graph
        makers = {name: node for node in self._nodes for name in node.output}
        ordered: dict[str, onnx.NodeProto] = {}
        stack = [(makers[value.name], False) for value in reversed(graph.output)]
        while stack:
            node, ready = stack.pop()
            if node.name in ordered:
                continue
            if ready:
                ordered[node.name] = node
                continue
            stack.append((node, True))
            stack += [(makers[name], False) for name in reversed(node.input) if name in makers]
        nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in ordered.values()]
        used = {name for node in nodes for name in (*node.input, *node.output)}
        for entries, kept in (
            (graph.initializer, [t for t in graph.initializer if t.name in used]),
            (graph.value_info, [v for v in graph.value_info if v.name in used]),
            (graph.node, nodes),
        ):
            copies = [type(entry).FromString(entry.SerializeToString()) for entry in kept]
            del entries[:]
            entries.extend(copies)
        infer_shapes(self.model)

    def _name(self, hint: str) -> str:
        known = {name for node in self._nodes for name in node.output} | set(self._weights)
        known |= {node.name.removeprefix("node_") for node in self._nodes}  # they keep theirs
        while (name := f"{hint.lower()}_r{self._fresh}") in known:
            self._fresh += 1
        self._fresh += 1
        return name


def infer_shapes(model: onnx.ModelProto) -> None:
    """Shapes of every value, in place; sides that ONNX only gives a name of its own stay unsaid."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    model.CopyFrom(inferred)
    ends = (*model.graph.input, *model.graph.output)
    known = {axis.dim_param for end in ends for axis in end.type.tensor_type.shape.dim}
    for value in model.graph.value_info:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param not in known:
                axis.ClearField("dim_param")


def attributes_of(node: onnx.NodeProto) -> dict[str, object]:
    """A node's attributes, texts decoded."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def is_plain(node: onnx.NodeProto, **expected: object) -> bool:
    """Whether a convolution is ungrouped, undilated, and has these attributes."""
    defaults = {"group": 1, "auto_pad": "NOTSET", "dilations": [1, 1], "strides": [1, 1]}
    got = {**defaults, "pads": [0, 0, 0, 0], **attributes_of(node)}
    return all(got.get(k) == v for k, v in {**defaults, **expected}.items())

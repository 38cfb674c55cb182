"""ONNX graphs written down as arithmetic: values that know their graph, nodes in their order."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import helper, numpy_helper

from picme_rt.onnx_file import OPSET

Axes = Sequence[int | str]
"""A shape: numbers, and names of the sides that are free."""
_IR = 10  # the first that has opset 21


class Steps:
    """A graph that is being written; every value of it is a `Value`."""

    def __init__(self) -> None:
        self._graph = onnx.GraphProto(name="pipeline")
        self._count = 0

    def input(self, name: str, dtype: DTypeLike, axes: Axes) -> "Value":
        """Declares an input of the graph."""
        self._graph.input.append(_declared(name, dtype, axes))
        return Value(self, name, np.dtype(dtype))

    def output(self, name: str, value: "Value", axes: Axes) -> None:
        """Declares that a value leaves the graph under a name."""
        self._graph.node.append(helper.make_node("Identity", [value.name], [name]))
        self._graph.output.append(_declared(name, value.dtype, axes))

    def constant(self, array: ArrayLike, dtype: DTypeLike | None = None) -> "Value":
        """A value that is known now."""
        found = np.ascontiguousarray(np.asarray(array, dtype))
        name = self._fresh("constant")
        # ascontiguousarray makes a scalar an array of one
        tensor = numpy_helper.from_array(found.reshape(np.shape(array)), name)
        self._graph.initializer.append(tensor)
        return Value(self, name, found.dtype)

    def op(
        self, kind: str, *inputs: "Value", dtype: DTypeLike | None = None, **attributes: Any
    ) -> "Value":
        """One node with one result, of the first input's type unless `dtype` says another."""
        name = self._fresh(kind)
        given = [value.name for value in inputs]
        self._graph.node.append(helper.make_node(kind, given, [name], name, **attributes))
        return Value(self, name, np.dtype(inputs[0].dtype if dtype is None else dtype))

    def inline(self, model: onnx.ModelProto, given: Mapping[str, "Value"]) -> dict[str, "Value"]:
        """Writes all nodes of another graph here; gives its outputs by name."""
        self._count += 1
        names = {name: value.name for name, value in given.items()} | {"": ""}
        for node in model.graph.node:
            assert not any(one.HasField("g") for one in node.attribute)  # no engine has an If
        for tensor in model.graph.initializer:
            own = copy.deepcopy(tensor)
            own.name = names[tensor.name] = f"{self._count}/{tensor.name}"
            self._graph.initializer.append(own)
        for node in model.graph.node:
            own = copy.deepcopy(node)
            own.name = f"{self._count}/{node.name}"
            names |= {name: f"{self._count}/{name}" for name in node.output if name}
            for field in ("input", "output"):
                renamed = [names[name] for name in getattr(node, field)]
                del getattr(own, field)[:]
                getattr(own, field).extend(renamed)
            self._graph.node.append(own)
        return {
            one.name: Value(self, names[one.name], np.dtype(np.float32))
            for one in model.graph.output
        }

    def model(self, about: Mapping[str, str]) -> onnx.ModelProto:
        """The finished graph, checked; `about` becomes its metadata.

        Args:
            about: Names and texts.
        """
        made = helper.make_model(
            self._graph,
            producer_name="picme_export",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR,
        )
        helper.set_model_props(made, dict(about))
        onnx.checker.check_model(made, full_check=True)
        return made

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"


class Value:
    """A tensor of a graph that is being written; the usual signs write a node each.

    Attributes:
        name: In the graph.
        dtype: Of its elements.
    """

    def __init__(self, steps: Steps, name: str, dtype: np.dtype[Any]):
        self.steps, self.name, self.dtype = steps, name, dtype

    def _with(self, kind: str, other: "Value | float", dtype: DTypeLike | None = None) -> "Value":
        if not isinstance(other, Value):
            other = self.steps.constant(other, self.dtype)
        return self.steps.op(kind, self, other, dtype=dtype)

    def __add__(self, other: "Value | float") -> "Value":
        return self._with("Add", other)

    def __sub__(self, other: "Value | float") -> "Value":
        return self._with("Sub", other)

    def __mul__(self, other: "Value | float") -> "Value":
        return self._with("Mul", other)

    def __truediv__(self, other: "Value | float") -> "Value":
        """Of integers: rounded towards zero, as ONNX has it."""
        return self._with("Div", other)

    def __matmul__(self, other: "Value") -> "Value":
        return self._with("MatMul", other)

    def __neg__(self) -> "Value":
        return self.steps.op("Neg", self)

    def __invert__(self) -> "Value":
        return self.steps.op("Not", self)

    def less(self, other: "Value | float") -> "Value":
        """Where it is smaller."""
        return self._with("Less", other, np.bool_)

    def at_most(self, other: "Value | float") -> "Value":
        """Where it is not larger."""
        return self._with("LessOrEqual", other, np.bool_)

    def smaller(self, other: "Value | float") -> "Value":
        """The smaller of both."""
        return self._with("Min", other)

    def larger(self, other: "Value | float") -> "Value":
        """The larger of both."""
        return self._with("Max", other)

    def where(self, one: "Value", other: "Value") -> "Value":
        """`one` where this is True, else `other`."""
        return self.steps.op("Where", self, one, other, dtype=one.dtype)

    def cast(self, dtype: DTypeLike) -> "Value":
        """Its elements as another type; to bool: whether they are not 0."""
        to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.steps.op("Cast", self, dtype=dtype, to=to)

    def size(self, axis: int) -> "Value":
        """(1,) int64: how long an axis is."""
        return self.steps.op("Shape", self, dtype=np.int64, start=axis, end=axis + 1)

    def transpose(self, *order: int) -> "Value":
        """Its axes in another order."""
        return self.steps.op("Transpose", self, perm=order)

    def insert(self, *axes: int) -> "Value":
        """With axes of length 1 at these places of the result."""
        return self.steps.op("Unsqueeze", self, self.steps.constant(axes, np.int64))

    def remove(self, *axes: int) -> "Value":
        """Without these axes of length 1."""
        return self.steps.op("Squeeze", self, self.steps.constant(axes, np.int64))

    def part(self, axis: int, first: "Value | int", last: "Value | int") -> "Value":
        """Places first:last of an axis; each a number or (1,) int64."""
        ends = [
            end if isinstance(end, Value) else self.steps.constant([end], np.int64)
            for end in (first, last)
        ]
        return self.steps.op("Slice", self, *ends, self.steps.constant([axis], np.int64))

    def join(self, axis: int, *others: "Value") -> "Value":
        """It and others, one after the other."""
        return self.steps.op("Concat", self, *others, axis=axis)

    def expand(self, front: "Value") -> "Value":
        """A first axis of length 1 repeated `front` times, (1,) int64."""
        ones = self.steps.op("Shape", self, dtype=np.int64, start=1)
        return self.steps.op("Expand", self, front.join(0, ones))

    def total(self, axis: int) -> "Value":
        """The sum over an axis, which stays with length 1."""
        return self.steps.op("ReduceSum", self, self.steps.constant([axis], np.int64), keepdims=1)


def _declared(name: str, dtype: DTypeLike, axes: Axes) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, axes)

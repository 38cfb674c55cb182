"""The bytes of an ONNX graph, read without the package `onnx` and checked to the last field.

It reads what our exporter writes and refuses all else: a field that is not in the tables below, a
field given twice, a number in more bytes than it needs. So there is one way to read a file that
passes, and ONNX Runtime reads it in the same way. Nothing is copied but names and small numbers.
"""

import math
import struct
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt.errors import EngineError

OPSET = 21  # from 23 on, attention becomes one operator that TensorRT's parser refuses
IR_VERSIONS = (8, 13)
_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
    "int64": np.dtype("<i8"),
}
ITEM_BYTES: dict[str, int] = {kind: dtype.itemsize for kind, dtype in _DTYPES.items()}
MOST_ENTRIES = 4096  # nodes, weights or values of a graph; ours have up to 170
MOST_NUMBERS = 64  # inputs, outputs, axes or attributes in a row
MOST_TEXT = 1024  # bytes of a name
MOST_AXES = 8

Kind = Literal["float32", "float16", "int8", "int64"]
Attribute = int | float | str | tuple[int, ...]


class Weight(NamedTuple):
    """Numbers that lie in the file; `content` is a view of its bytes, little-endian."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    content: memoryview

    @property
    def numbers(self) -> NDArray[Any]:
        """A view of them, of this shape."""
        return np.frombuffer(self.content, _DTYPES[self.kind]).reshape(self.shape)


class Declared(NamedTuple):
    """What the file says of a value: each axis is a number, a symbol such as "B", or unknown."""

    name: str
    kind: Kind
    shape: tuple[int | str | None, ...]


class Node(NamedTuple):
    """One operator; an input that is left out has the name ""."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


class Model(NamedTuple):
    """One graph, its nodes in the order in which they run."""

    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    values: tuple[Declared, ...]
    weights: tuple[Weight, ...]
    nodes: tuple[Node, ...]


class _Field(NamedTuple):
    """One field of a message: `type` is int, float, str, bytes or the fields of a message."""

    name: str
    type: Any
    repeated: bool = False


_Fields = Mapping[int, _Field]

# Field numbers of onnx.proto3. A message holds no message of its own kind: the depth is bounded.
_AXIS: _Fields = {1: _Field("dim_value", int), 2: _Field("dim_param", str)}
_SHAPE: _Fields = {1: _Field("dim", _AXIS, True)}
_TENSOR_TYPE: _Fields = {1: _Field("elem_type", int), 2: _Field("shape", _SHAPE)}
_TYPE: _Fields = {1: _Field("tensor_type", _TENSOR_TYPE)}
_VALUE: _Fields = {
    1: _Field("name", str),
    2: _Field("type", _TYPE),
    3: _Field("doc_string", str),
}
_TENSOR: _Fields = {
    1: _Field("dims", int, True),
    2: _Field("data_type", int),
    8: _Field("name", str),
    9: _Field("raw_data", bytes),
    12: _Field("doc_string", str),
}
_ATTRIBUTE: _Fields = {
    1: _Field("name", str),
    2: _Field("f", float),
    3: _Field("i", int),
    4: _Field("s", str),
    8: _Field("ints", int, True),
    13: _Field("doc_string", str),
    20: _Field("type", int),
}
_NODE: _Fields = {
    1: _Field("input", str, True),
    2: _Field("output", str, True),
    3: _Field("name", str),
    4: _Field("op_type", str),
    5: _Field("attribute", _ATTRIBUTE, True),
    6: _Field("doc_string", str),
    7: _Field("domain", str),
}
_GRAPH: _Fields = {
    1: _Field("node", _NODE, True),
    2: _Field("name", str),
    5: _Field("initializer", _TENSOR, True),
    10: _Field("doc_string", str),
    11: _Field("input", _VALUE, True),
    12: _Field("output", _VALUE, True),
    13: _Field("value_info", _VALUE, True),
}
_OPSET: _Fields = {1: _Field("domain", str), 2: _Field("version", int)}
_MODEL: _Fields = {
    1: _Field("ir_version", int),
    2: _Field("producer_name", str),
    3: _Field("producer_version", str),
    6: _Field("doc_string", str),
    7: _Field("graph", _GRAPH),
    8: _Field("opset_import", _OPSET, True),
}
_KINDS: dict[int, Kind] = {1: "float32", 3: "int8", 7: "int64", 10: "float16"}
_ATTRIBUTE_TYPES = {1: "f", 2: "i", 3: "s", 7: "ints"}


def parse(content: bytes | bytearray) -> Model:
    """Reads one graph.

    Args:
        content: All bytes of the file; the weights of the result are views of them.

    Raises:
        EngineError: It is no ONNX graph, or it has what our exporter never writes: weights outside
            of the file, functions, sparse weights, graphs inside of nodes, metadata,
            another opset, weights whose bytes are not their shape's, one name twice.
    """
    model = _message(memoryview(content), _MODEL, "model")
    graph = model.get("graph", {})
    opsets = [(o.get("domain", ""), o.get("version")) for o in model.get("opset_import", [])]
    if opsets != [("", OPSET)]:
        raise EngineError(f"its opset must be {OPSET}, got {opsets}")
    low, high = IR_VERSIONS
    if not low <= model.get("ir_version", 0) <= high:
        raise EngineError(f"its IR version must be in {low}..{high}, got {model.get('ir_version')}")
    found = Model(
        tuple(_declared(entry) for entry in graph.get("input", [])),
        tuple(_declared(entry) for entry in graph.get("output", [])),
        tuple(_declared(entry) for entry in graph.get("value_info", [])),
        tuple(_weight(entry) for entry in graph.get("initializer", [])),
        tuple(_node(entry) for entry in graph.get("node", [])),
    )
    made = [name for node in found.nodes for name in node.outputs]
    given = [entry.name for entry in found.inputs] + [weight.name for weight in found.weights]
    described = [entry.name for entry in found.values]
    named = [node.name for node in found.nodes if node.name]
    for what, names in (("value", made + given), ("value", described), ("node", named)):
        if "" in names or len(set(names)) != len(names):
            raise EngineError(f"a {what} has no name, or the name of another one")
    return found


def _declared(entry: dict[str, Any]) -> Declared:
    name, described = entry.get("name", ""), entry.get("type", {}).get("tensor_type", {})
    shape = described.get("shape")
    if shape is None or len(shape.get("dim", [])) > MOST_AXES:
        raise EngineError(f"value {name!r} must be a tensor of at most {MOST_AXES} axes")
    axes = shape.get("dim", [])
    if any(len(axis) > 1 or axis.get("dim_value", 1) < 1 for axis in axes):
        raise EngineError(f"an axis of value {name!r} must be one positive number or one symbol")
    kind = _kind(name, described.get("elem_type"))
    return Declared(
        name, kind, tuple(axis.get("dim_value", axis.get("dim_param")) for axis in axes)
    )


def _weight(entry: dict[str, Any]) -> Weight:
    name, shape = entry.get("name", ""), tuple(entry.get("dims", []))
    kind = _kind(name, entry.get("data_type"))
    if len(shape) > MOST_AXES or not all(1 <= n < 1 << 31 for n in shape):
        raise EngineError(f"weight {name!r} must have up to {MOST_AXES} positive axes, got {shape}")
    content, expected = entry.get("raw_data", memoryview(b"")), math.prod(shape) * ITEM_BYTES[kind]
    if len(content) != expected:
        raise EngineError(
            f"weight {name!r} must have {expected} bytes for {shape}, got {len(content)}"
        )
    return Weight(name, kind, shape, content)


def _node(entry: dict[str, Any]) -> Node:
    operator = entry.get("op_type", "")
    if domain := entry.get("domain", ""):
        raise EngineError(f"operator {operator!r} must be a standard one, got domain {domain!r}")
    attributes = {}
    for attribute in entry.get("attribute", []):
        name, key = attribute.get("name", ""), _ATTRIBUTE_TYPES.get(attribute.get("type", 0))
        if key is None or set(attribute) - {key, "name", "type", "doc_string"}:
            raise EngineError(f"attribute {name!r} of {operator!r} has a type that no engine has")
        if name in attributes:
            raise EngineError(f"attribute {name!r} of {operator!r} is given twice")
        empty = {"f": 0.0, "i": 0, "s": "", "ints": []}[key]
        value = attribute.get(key, empty)
        attributes[name] = tuple(value) if key == "ints" else value
    return Node(
        entry.get("name", ""),
        operator,
        tuple(entry.get("input", [])),
        tuple(entry.get("output", [])),
        attributes,
    )


def _kind(name: str, number: int | None) -> Kind:
    if number not in _KINDS:
        raise EngineError(
            f"value {name!r} must be float32, float16, int8 or int64, got ONNX type {number}"
        )
    return _KINDS[number]


def _message(data: memoryview, fields: _Fields, what: str) -> dict[str, Any]:
    """The fields of one message by name; a repeated one as a list, one that is absent left out."""
    found: dict[str, Any] = {}
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        field = fields.get(number)
        if field is None:
            raise EngineError(f"{what} has the ONNX field {number}, which no engine has")
        if field.repeated:
            row = found.setdefault(field.name, [])
            if len(row) >= (MOST_NUMBERS if field.type in (int, str) else MOST_ENTRIES):
                raise EngineError(f"{what} has too many entries in {field.name}")
        elif field.name in found:
            raise EngineError(f"{what} has two entries in {field.name}")
        if wire == 2 and field.type is int and field.repeated:  # all numbers in one stretch
            part, at = _stretch(data, at)
            begin = 0
            while begin < len(part):
                if len(row) >= MOST_NUMBERS:
                    raise EngineError(f"{what} has too many entries in {field.name}")
                value, begin = _varint(part, begin)
                row.append(_signed(value))
            continue
        read, at = _entry(data, at, wire, field)
        if field.repeated:
            row.append(read)
        else:
            found[field.name] = read
    return found


def _entry(data: memoryview, at: int, wire: int, field: _Field) -> tuple[Any, int]:
    """One value of a field, and where the next tag begins."""
    if wire == 0 and field.type is int:
        value, at = _varint(data, at)
        return _signed(value), at
    if wire == 5 and field.type is float and at + 4 <= len(data):
        return struct.unpack_from("<f", data, at)[0], at + 4
    if wire != 2 or field.type in (int, float):
        raise EngineError(f"{field.name} is damaged")
    part, at = _stretch(data, at)
    if field.type is bytes:
        return part, at
    if field.type is not str:
        return _message(part, field.type, field.name), at
    if len(part) > MOST_TEXT:
        raise EngineError(f"{field.name} is longer than {MOST_TEXT} bytes")
    try:
        return str(part, "utf-8"), at
    except UnicodeDecodeError as exc:
        raise EngineError(f"{field.name} is no text") from exc


def _stretch(data: memoryview, at: int) -> tuple[memoryview, int]:
    length, at = _varint(data, at)
    if length > len(data) - at:
        raise EngineError("it ends too early")
    return data[at : at + length], at + length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of up to 64 bits, written in as few bytes as it needs."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise EngineError("it ends too early")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64 or (byte == 0 and shift):
                break
            return value, at
    raise EngineError("a number is damaged")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value

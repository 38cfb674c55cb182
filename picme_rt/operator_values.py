"""What the rules of operators ask of a node's inputs: axes, contents, shapes that go together."""

import math

from picme_rt.errors import EngineError
from picme_rt.graph_nodes import Call, Shape, Value
from picme_rt.onnx_file import MOST_AXES, MOST_NUMBERS, Kind


def axis(call: Call, rank: int, default: int | None) -> int:
    """The attribute `axis`, from 0 to rank - 1."""
    if rank == 0:
        raise EngineError("its input must have axes")
    return call.integer("axis", default, -rank, rank - 1) % rank


def broadcast(one: Shape, other: Shape) -> Shape:
    """The shape of two values together, by NumPy's rule."""
    rank = max(len(one), len(other))
    a, b = (1,) * (rank - len(one)) + one, (1,) * (rank - len(other)) + other
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        raise EngineError(f"shapes must broadcast, got {one} and {other}")
    return tuple(max(m, n) for m, n in zip(a, b, strict=True))


def known(value: Value) -> tuple[float, ...]:
    """The numbers of a value that is known before the graph runs."""
    if value.content is None or value.free:
        raise EngineError("an input that must be known before the graph runs is not")
    return value.content


def vector(value: Value, low: int, high: int) -> Shape:
    """A known row of up to `MOST_AXES * 2` integers in low..high."""
    numbers = known(value)
    if len(value.shape) != 1 or len(numbers) > 2 * MOST_AXES:
        raise EngineError(f"it needs one row of numbers, got shape {value.shape}")
    if not all(low <= n <= high for n in numbers):
        raise EngineError(f"its numbers must be in {low}..{high}, got {numbers}")
    return tuple(int(n) for n in numbers)


def int_or_float(kind: Kind, shape: Shape, content: tuple[float, ...] | None) -> Value:
    """A result of either kind; integers are known, floats are not."""
    if kind == "int64" and math.prod(shape) > MOST_NUMBERS:
        raise EngineError(f"integers are for shapes, got {shape} of them")
    return Value(kind, shape, content if kind == "int64" else None)


def shapes(values: list[Value]) -> list[Shape]:
    """Of each value."""
    return [value.shape for value in values]

"""Rules of the operators that move numbers and compute none."""

import math
import operator
from collections.abc import Callable

from picme_rt import operator_values as values
from picme_rt.errors import EngineError
from picme_rt.graph_nodes import Call, Results, Value
from picme_rt.onnx_file import MOST_NUMBERS


def concat(call: Call) -> Results:
    """Concat: parts one after the other along an axis."""
    parts = call.some(None, 1, MOST_NUMBERS)
    rank = len(parts[0].shape)
    axis = values.axis(call, rank, default=None)
    if parts[0].kind == "int8":
        raise EngineError("its inputs must be float32 or int64, got int8")
    if len({(*one.shape[:axis], *one.shape[axis + 1 :], len(one.shape)) for one in parts}) != 1:
        raise EngineError(f"inputs must be alike but for axis {axis}, got {values.shapes(parts)}")
    if any(one.free for one in parts):
        raise EngineError("what comes with a call may only crop")
    total = sum(one.shape[axis] for one in parts)
    shape = (*parts[0].shape[:axis], total, *parts[0].shape[axis + 1 :])
    content: tuple[float, ...] | None = ()
    for one in parts:
        content = None if one.content is None or content is None else content + one.content
    return Results([values.int_or_float(parts[0].kind, shape, content if rank == 1 else None)])


def split(call: Call) -> Results:
    """Split: an axis in equal parts."""
    (x,) = call.inputs("float32")
    axis, count = values.axis(call, len(x.shape), default=0), len(call.results)
    call.only(num_outputs=count)
    if x.shape[axis] % count:
        raise EngineError(f"axis {axis} must divide by {count}, got {x.shape}")
    part = (*x.shape[:axis], x.shape[axis] // count, *x.shape[axis + 1 :])
    return Results([Value("float32", part)] * count)


def transpose(call: Call) -> Results:
    """Transpose: the axes in another order."""
    (x,) = call.inputs("float32")
    rank = len(x.shape)
    order = call.integers("perm", None, 0, rank - 1, row=rank)
    if len(set(order)) != rank:
        raise EngineError(f"perm must name each axis once, got {order}")
    return Results([Value("float32", tuple(x.shape[i] for i in order))])


def reshape(call: Call) -> Results:
    """Reshape: the same numbers under another shape."""
    x, wanted = call.inputs("float32", "int64")
    keeps = call.integer("allowzero", 0, 0, 1) == 0
    given = values.vector(wanted, -1, 1 << 31)
    shape = [
        x.shape[i] if n == 0 and keeps and i < len(x.shape) else n for i, n in enumerate(given)
    ]
    if shape.count(-1) == 1:
        others = math.prod(n for n in shape if n != -1)
        shape[shape.index(-1)] = x.numbers // others if others > 0 else 0
    if any(n < 1 for n in shape) or math.prod(shape) != x.numbers:
        raise EngineError(f"{x.shape} cannot have the shape {given}")
    return Results([Value("float32", tuple(shape))])


def unsqueeze(call: Call) -> Results:
    """Unsqueeze: axes of length 1 put in."""
    x, wanted = call.inputs("float32", "int64")
    rank = len(x.shape) + wanted.numbers
    axes = [n % rank for n in values.vector(wanted, -rank, rank - 1)]
    if len(set(axes)) != len(axes):
        raise EngineError(f"its axes must be different ones, got {axes}")
    rest = iter(x.shape)
    return Results([Value("float32", tuple(1 if i in axes else next(rest) for i in range(rank)))])


def expand(call: Call) -> Results:
    """Expand: axes of length 1 repeated."""
    x, wanted = call.inputs("float32", "int64")
    return Results([Value("float32", values.broadcast(x.shape, values.vector(wanted, 1, 1 << 31)))])


def gather(call: Call) -> Results:
    """Gather: known places along an axis of floats, or one row of a box."""
    x, indices = call.inputs(call.kind(), "int64")
    axis = values.axis(call, len(x.shape), default=0)
    if not all(-x.shape[axis] <= n < x.shape[axis] for n in values.known(indices)):
        raise EngineError(f"its indices must be in axis {axis} of {x.shape}")
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    if x.kind == "float32":
        return Results([Value("float32", shape)])
    if not x.free or x.content is None or len(x.shape) != 2 or axis or indices.shape:
        raise EngineError("integers that it takes must be one row of a box")
    first = 2 * (int(values.known(indices)[0]) % x.shape[0])
    return Results([Value("int64", shape, x.content[first : first + 2], free=True)])


def slice_(call: Call) -> Results:
    """Slice: the window of a map that a box says; inside of the map, whatever the file holds."""
    x, starts, ends, axes = call.inputs("float32", "int64", "int64", "int64")
    if len(x.shape) != 4 or values.known(axes) != (2, 3) or axes.shape != (2,):
        raise EngineError(f"it must crop the two last of 4 axes, got {x.shape}")
    sides = list(zip(_free(starts), _free(ends), x.shape[2:], strict=True))
    if not all(0 <= first < last <= n for first, last, n in sides):
        raise EngineError(f"a window must be inside of {x.shape}, got {sides}")
    window = (int(last - first) for first, last, _ in sides)
    return Results([Value("float32", (*x.shape[:2], *window))])


def sum_of_ends(call: Call) -> Results:
    """Add of integers: where a window lies in a map that was not cropped before it."""
    return _ends(call, operator.add, "one or both of")


def multiple_of_ends(call: Call) -> Results:
    """Mul of integers: likewise, at another map's scale."""
    return _ends(call, operator.mul, "one of")


_MOST_END = 1 << 31


def _ends(call: Call, of: Callable[[float, float], float], which: str) -> Results:
    """Of a row of a box and numbers of the file, or another row, none of them below 0.

    So no number wraps around in a library's 64 bits, and what is too large stays so.
    """
    pair = call.inputs("int64", "int64")
    free = sum(value.free for value in pair)
    if free not in ((1, 2) if of is operator.add else (1,)):
        raise EngineError(f"{which} the integers that it takes must be a row of a box")
    rows = [(value.content or ()) * (1 if value.numbers == 2 else 2) for value in pair]
    if any(value.shape not in ((), (2,)) for value in pair) or min(map(min, rows)) < 0:
        raise EngineError(f"integers that it takes must be one or two of 0 or more, got {rows}")
    found = tuple(map(of, *rows))
    if max(found) > _MOST_END:
        raise EngineError(f"a window must end at {_MOST_END} at most, got {found}")
    return Results([Value("int64", (2,), found, free=True)])


def shape(call: Call) -> Results:
    """Shape: the sides of a value, as a row of integers."""
    (x,) = call.inputs("float32")
    call.default(start=0)
    if not x.shape:
        raise EngineError("its input must have axes")
    return Results([values.int_or_float("int64", (len(x.shape),), x.shape)])


def _free(value: Value) -> tuple[float, ...]:
    """Two numbers of a box, as they are in the case that is looked at."""
    if not value.free or value.content is None or value.shape != (2,):
        raise EngineError("what it begins and ends with must be two numbers of a box")
    return value.content


def depth_to_space(call: Call) -> Results:
    """DepthToSpace: (B, C b b, h, w) -> (B, C, b h, b w), C outermost (CRD) or innermost (DCR)."""
    (x,) = call.inputs("float32")
    call.word("mode", "DCR", ("CRD", "DCR"))
    block = call.integer("blocksize", None, 1, 64)
    if len(x.shape) != 4 or x.shape[1] % block**2 != 0:
        raise EngineError(f"it needs (B, C, h, w) with C a multiple of {block**2}, got {x.shape}")
    batch, channels, height, width = x.shape
    return Results([Value("float32", (batch, channels // block**2, block * height, block * width))])


def space_to_depth(call: Call) -> Results:
    """SpaceToDepth: (B, C, b h, b w) -> (B, b b C, h, w), the place in the block outermost."""
    (x,) = call.inputs("float32")
    block = call.integer("blocksize", None, 1, 64)
    if len(x.shape) != 4 or x.shape[2] % block or x.shape[3] % block:
        raise EngineError(f"it needs (B, C, h, w) with sides that {block} divides, got {x.shape}")
    batch, channels, height, width = x.shape
    shape = (batch, channels * block**2, height // block, width // block)
    return Results([Value("float32", shape)])

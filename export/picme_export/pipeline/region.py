"""Where the hole lies and which square the engine sees: `picme_rt.framing` for one region."""

import dataclasses

import numpy as np

from picme_export.pipeline.steps import Steps, Value
from picme_rt.framing import Framing


@dataclasses.dataclass(frozen=True)
class Region:
    """The square and the hole's box, in the picture's rows and columns; each (1,) int64."""

    top: Value
    left: Value
    side: Value
    box_top: Value
    box_left: Value
    box_bottom: Value
    box_right: Value

    def packed(self) -> Value:
        """All of it as one tensor, (7,) int64, in the order of the fields."""
        first, *rest = (getattr(self, field.name) for field in dataclasses.fields(self))
        return first.join(0, *rest)


def unpacked(packed: Value) -> Region:
    """What `Region.packed` made."""
    names = [field.name for field in dataclasses.fields(Region)]
    return Region(**{name: packed.part(0, i, i + 1) for i, name in enumerate(names)})


def region(steps: Steps, hole: Value, *, size: int, framing: Framing) -> Region:
    """The square around a hole (H, W) bool, as `picme_rt.framing.regions` has it.

    Always one: of a hole whose parts a session completes apart (`free` alone), the joint crop. An
    empty hole counts as all of the picture.
    """
    ends = []
    for axis in (1, 0):  # rows, columns
        line = steps.op("ReduceMax", hole.cast(np.float32), steps.constant([axis]), keepdims=0)
        extent = line.size(0)
        first = steps.op("ArgMax", line, axis=0, keepdims=1, dtype=np.int64)
        last = steps.op("ArgMax", line, axis=0, keepdims=1, select_last_index=1, dtype=np.int64)
        ends.append((first, last + 1, extent))
    (top, bottom, height), (left, right, width) = ends
    longest, shortest = (bottom - top).larger(right - left), height.smaller(width)
    if framing == "free":
        shortest = (longest * 2).larger(size).smaller(shortest)
    side = shortest.larger(longest)
    return Region(
        _place(top, bottom, height, side),
        _place(left, right, width, side),
        side,
        top,
        left,
        bottom,
        right,
    )


def _place(low: Value, high: Value, extent: Value, side: Value) -> Value:
    """Where the square begins: centred on low..high, moved inside as far as it fits."""
    over = -((side - extent + 1) / 2)  # (extent - side) // 2, rounded down
    inside = ((low + high - side) / 2).larger(0).smaller(extent - side)
    return extent.at_most(side).where(over, inside)

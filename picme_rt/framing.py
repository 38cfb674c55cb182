"""Which squares of a picture the engine sees, for pictures and holes of any size.

`aligned` (faces): the largest square around the hole. `free` (scenes, textures): a crop with
context around the hole; holes too far apart for one crop are completed apart.
"""

import heapq
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt.images import Hole

Framing = Literal["aligned", "free"]

FAR = 4  # a joint crop over this many engine sides is split (`free` only)
MOST = 64  # regions of one hole (`free` only); their crops are larger where more would be wanted


class Box(NamedTuple):
    """Half-open rows top:bottom and columns left:right of the picture."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def longest(self) -> int:
        """The longer side in pixels."""
        return max(self.bottom - self.top, self.right - self.left)


class Region(NamedTuple):
    """A square of the picture and the part of the hole that is completed in it.

    Attributes:
        top: First row of the square; negative where it reaches over the picture's border.
        left: First column, likewise.
        side: Side of the square in pixels.
        box: The hole's bounding box, in the picture's rows and columns.
    """

    top: int
    left: int
    side: int
    box: Box


def regions(hole: Hole, size: int, framing: Framing) -> list[Region]:
    """The squares in which a hole is completed, largest first; none for an empty hole.

    Args:
        hole: (H, W) bool.
        size: Side of the engine's picture in pixels.
        framing: How the engine was trained.
    """
    if not hole.any():
        return []
    height, width = hole.shape
    shortest = min(height, width)
    if framing == "aligned":
        box = _part(hole, Box(0, 0, height, width), size).box
        return [_square(box, max(shortest, box.longest), hole.shape)]
    return [
        _square(box, _crop(box, size, shortest), hole.shape)
        for box in sorted(_pieces(hole, size), key=lambda b: -b.longest)
    ]


def _crop(box: Box, size: int, shortest: int) -> int:
    """Side with context: twice the hole, not enlarged unless the picture is below the engine's."""
    return max(min(max(size, 2 * box.longest), shortest), box.longest)


def _square(box: Box, side: int, shape: tuple[int, ...]) -> Region:
    """The square of `side` centred on `box`, moved inside the picture as far as it fits."""

    def place(low: int, high: int, extent: int) -> int:
        if side >= extent:
            return (extent - side) // 2
        return min(max((low + high - side) // 2, 0), extent - side)

    top = place(box.top, box.bottom, shape[0])
    return Region(top, place(box.left, box.right, shape[1]), side, box)


class _Part(NamedTuple):
    """A part of the hole: its box, the side of its crop, and its halves where it is to be cut."""

    box: Box
    side: int
    halves: tuple[Box, Box] | None


def _pieces(hole: Hole, size: int) -> list[Box]:
    """Cuts a hole, the largest crop first, until each is within `FAR` sides or there are `MOST`.

    A cut below which no crop is smaller than the one that was cut gains nothing: it is taken back.
    """
    parts = [_part(hole, Box(0, 0, *hole.shape), size)]
    cuts: dict[int, int] = {}  # the place of a part that is cut: that of its first half
    waiting = [(-parts[0].side, 0)]
    while waiting and len(cuts) < MOST - 1:
        at = heapq.heappop(waiting)[1]
        halves = parts[at].halves
        if halves is None:
            continue
        cuts[at] = len(parts)
        for half in halves:
            parts.append(_part(hole, half, size))
            heapq.heappush(waiting, (-parts[-1].side, len(parts) - 1))
    smallest = [part.side for part in parts]
    for at in sorted(cuts, reverse=True):  # halves before what they are halves of
        smallest[at] = min(smallest[cuts[at]], smallest[cuts[at] + 1])
        if smallest[at] == parts[at].side:
            del cuts[at]
    found, left = [], [0]
    while left:
        at = left.pop()
        if at in cuts:
            left += [cuts[at] + 1, cuts[at]]
        else:
            found.append(parts[at].box)
    return found


def _part(hole: Hole, within: Box, size: int) -> _Part:
    """What of the hole lies in a box; it is cut at its widest empty rows or columns, if any."""
    part = hole[within.top : within.bottom, within.left : within.right]
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    box = Box(
        within.top + int(rows[0]),
        within.left + int(columns[0]),
        within.top + int(rows[-1]) + 1,
        within.left + int(columns[-1]) + 1,
    )
    side = _crop(box, size, min(hole.shape))
    down, across = _widest_gap(rows), _widest_gap(columns)
    if side <= FAR * size or down.width == across.width == 0:
        return _Part(box, side, None)
    lengths = box.bottom - box.top, box.right - box.left
    if (down.width, lengths[0]) > (across.width, lengths[1]):
        cut = within.top + down.middle
        return _Part(box, side, (box._replace(bottom=cut), box._replace(top=cut)))
    cut = within.left + across.middle
    return _Part(box, side, (box._replace(right=cut), box._replace(left=cut)))


class _Gap(NamedTuple):
    """Empty rows or columns: how many, and the first behind their middle."""

    width: int
    middle: int


def _widest_gap(filled: NDArray[np.intp]) -> _Gap:
    """The widest gap between rising places; among equals that nearest to the middle of all."""
    steps = np.diff(filled)
    if len(steps) == 0 or steps.max() == 1:
        return _Gap(0, 0)
    middles = filled[:-1] + steps // 2 + 1
    widest = np.flatnonzero(steps == steps.max())
    at = widest[abs(2 * middles[widest] - filled[0] - filled[-1] - 1).argmin()]
    return _Gap(int(steps[at]) - 1, int(middles[at]))

"""Which squares of a picture the engine sees, for pictures and holes of any size.

`aligned` (faces): the largest square around the hole. `free` (scenes, textures): a crop with
context around the hole; holes too far apart for one crop are completed apart.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt.images import Hole

Framing = Literal["aligned", "free"]

FAR = 4  # a joint crop over this many engine sides is split (`free` only)


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
        box = _bounds(hole, Box(0, 0, height, width))
        return [_square(box, max(shortest, box.longest), hole.shape)]
    boxes = _pieces(hole, Box(0, 0, height, width), size)
    return [
        _square(box, _crop(box, size, shortest), hole.shape)
        for box in sorted(boxes, key=lambda b: -b.longest)
    ]


def _crop(box: Box, size: int, shortest: int) -> int:
    """Side with context: twice the hole, not enlarged unless the picture is below the engine's."""
    return max(min(max(size, 2 * box.longest), shortest), box.longest)


def _bounds(hole: Hole, within: Box) -> Box:
    part = hole[within.top : within.bottom, within.left : within.right]
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    top, left = within.top + int(rows[0]), within.left + int(columns[0])
    return Box(top, left, within.top + int(rows[-1]) + 1, within.left + int(columns[-1]) + 1)


def _square(box: Box, side: int, shape: tuple[int, ...]) -> Region:
    """The square of `side` centred on `box`, moved inside the picture as far as it fits."""

    def place(low: int, high: int, extent: int) -> int:
        if side >= extent:
            return (extent - side) // 2
        return min(max((low + high - side) // 2, 0), extent - side)

    top = place(box.top, box.bottom, shape[0])
    return Region(top, place(box.left, box.right, shape[1]), side, box)


def _pieces(hole: Hole, within: Box, size: int) -> list[Box]:
    """Cuts a hole at its widest empty rows or columns until every crop is within `FAR` sides."""
    box = _bounds(hole, within)
    if _crop(box, size, min(hole.shape)) <= FAR * size:
        return [box]
    part = hole[box.top : box.bottom, box.left : box.right]
    gaps = [(*_widest_gap(np.asarray(part.any(axis=axis))), axis) for axis in (0, 1)]
    width, cut, axis = max(gaps)
    if width == 0:
        return [box]
    if axis == 1:
        halves = box._replace(bottom=box.top + cut), box._replace(top=box.top + cut)
    else:
        halves = box._replace(right=box.left + cut), box._replace(left=box.left + cut)
    return [piece for half in halves for piece in _pieces(hole, half, size)]


def _widest_gap(filled: NDArray[np.bool_]) -> tuple[int, int]:
    """(length, middle) of the longest run of False in a line that begins and ends with True."""
    places = np.flatnonzero(filled)
    gaps = np.diff(places)
    if len(gaps) == 0 or gaps.max() == 1:
        return 0, 0
    at = int(gaps.argmax())
    return int(gaps[at]) - 1, int(places[at] + gaps[at] // 2 + 1)

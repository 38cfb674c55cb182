"""Which part of each map a decoder needs for a box of its picture: work that follows the hole.

After the last operation over the whole image a decoder's map may be cropped: what is left goes on
as if it were the whole, with zeros or reflections beyond its edges. Where an edge is the picture's
own that is right; elsewhere the values near it are wrong, as far as the operators that follow
reach, and the window is larger than what is needed by just so much (docs/engine-format.md).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt.framing import Box

STEP = 4
"""Windows are so many places or a multiple of them, so that few sizes are met."""


class Crop(NamedTuple):
    """Where a decoder crops a map, and what is needed of it for places a..b of the next finer one.

    With q places of the finer map to one of this, these are (a - before) / q - halo, rounded down,
    to (b + after) / q + halo, rounded up.

    Attributes:
        side: Of the map before any crop, in places.
        before: How far back the way to the finer map reaches (bilinear: 1), in its places.
        after: Likewise onwards.
        halo: Reach of what follows at this map's scale, in its own places.
    """

    side: int
    before: int
    after: int
    halo: int


class Windows(NamedTuple):
    """How a decoder makes a box of its picture.

    Attributes:
        rows: (2 n, 2) int64, the input `box`: first row and column, then last row and column + 1,
            of each of n windows, coarse to fine, counted from where the window before it begins.
        made: The pixels that the decoder gives.
        box: The pixels of these that are right: at least those asked for.
    """

    rows: NDArray[np.int64]
    made: Box
    box: Box


def windows(size: int, crops: tuple[Crop, ...], box: Box) -> Windows:
    """The windows for a box of a picture, 0 <= top < bottom <= size and likewise across.

    Args:
        size: S, side of the whole picture in pixels.
        crops: Of the decoder, coarse to fine; their sides divide one another and S.
        box: The pixels that are asked for.
    """
    lines = [_line(size, crops, *ends) for ends in ((box.top, box.bottom), (box.left, box.right))]
    rows = np.empty((2 * len(crops), 2), np.int64)
    for axis, line in enumerate(lines):
        begin, side = 0, crops[0].side if crops else size
        for i, (crop, (first, last)) in enumerate(zip(crops, line, strict=True)):
            begin *= crop.side // side
            rows[2 * i : 2 * i + 2, axis] = first - begin, last - begin
            begin, side = first, crop.side
    if not crops:
        return Windows(rows, Box(0, 0, size, size), box)
    ratio = size // crops[-1].side
    (top, bottom), (left, right) = (line[-1] for line in lines)
    return Windows(rows, Box(ratio * top, ratio * left, ratio * bottom, ratio * right), box)


def _line(size: int, crops: tuple[Crop, ...], first: int, last: int) -> list[tuple[int, int]]:
    """What is needed along one axis of each crop's map."""
    found, finer = [], size
    for crop in reversed(crops):
        ratio = finer // crop.side
        low = (first - crop.before) // ratio - crop.halo
        high = -((-last - crop.after) // ratio) + crop.halo
        first, last = _widened(max(low, 0), min(high, crop.side), crop.side)
        found.append((first, last))
        finer = crop.side
    return found[::-1]


def _widened(first: int, last: int, side: int) -> tuple[int, int]:
    """A stretch of whole steps, moved inside where it would leave the map."""
    length = min(-(-(last - first) // STEP) * STEP, side)
    first = min(first, side - length)
    return first, first + length

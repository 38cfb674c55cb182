"""Which part of each scale of a pyramid the pixels of its hole need.

From the finest scale back: the hole's box and a little of what is known around it; then half a
generator's receptive field more on each side, as the scale before has it, as far as the resize
reaches. Where a window ends inside of the picture all that it needs is there, so its values are
those of the whole scale; where it ends at the picture's border that is padded as the whole is.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from picme_rt.framing import Box
from picme_rt.images import Hole
from picme_rt.pyramid import REACH
from picme_training.internal.cascade import Frozen

MARGIN = 4
"""Known pixels around the hole that a result is joined to, and that it is enlarged with."""


def windows(scales: Sequence[Frozen]) -> tuple[Box, ...]:
    """The places of each scale that its hole needs, the coarsest first."""
    hole = scales[-1].depth[0, 0, REACH:-REACH, REACH:-REACH].numpy() > 0
    found = [_grown(_bounds(hole), MARGIN, scales[-1].size)]
    for scale in reversed(scales[1:]):
        box = _grown(found[-1], REACH, scale.size)
        top, bottom = _support(scale.rows, box.top, box.bottom)
        left, right = _support(scale.columns, box.left, box.right)
        found.append(Box(top, left, bottom, right))
    return tuple(reversed(found))


def whole(scales: Sequence[Frozen]) -> tuple[Box, ...]:
    """All of each scale."""
    return tuple(Box(0, 0, *scale.size) for scale in scales)


def _bounds(hole: Hole) -> Box:
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def _grown(box: Box, by: int, size: tuple[int, int]) -> Box:
    return Box(
        max(box.top - by, 0),
        max(box.left - by, 0),
        min(box.bottom + by, size[0]),
        min(box.right + by, size[1]),
    )


def _support(matrix: Tensor, first: int, last: int) -> tuple[int, int]:
    """First and last + 1 of the values that go into first:last with a weight other than 0."""
    used = np.flatnonzero((matrix[first:last] != 0).any(0).numpy())
    return int(used[0]), int(used[-1]) + 1

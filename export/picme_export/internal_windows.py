"""Which part of each scale of a pyramid the pixels of its hole need.

From the finest scale back: the hole's box and a little of what is known around it; then half a
generator's receptive field more on each side, as the scale before has it, as far as the resize
reaches. Where a window ends inside of the picture all that it needs is there, so its values are
those of the whole scale; where it ends at the picture's border that is padded as the whole is.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from picme_rt import graph_shapes
from picme_rt.errors import InputError
from picme_rt.framing import Box
from picme_rt.images import Hole
from picme_rt.pyramid import REACH
from picme_training.internal.cascade import Frozen
from picme_training.internal.plan import Plan
from picme_training.internal.presets import Preset
from picme_training.internal.stack import BLOCKS

MARGIN = 4
"""Known pixels around the hole that a result is joined to, and that it is enlarged with."""
COUNTED = 0.9
"""Share of a graph's values that `check_size` counts."""


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


def check_size(plans: Sequence[Plan], preset: Preset) -> None:
    """Refuses, before it is trained, a pyramid that no runtime would open.

    Counted are the maps of the inner convolutions and of what follows them: nine tenths of all.

    Args:
        plans: The scales to be trained, the coarsest first.
        preset: Their widths.

    Raises:
        InputError: Its graph would hold more than `graph_shapes.MOST_BYTES`.
    """
    size = plans[-1].level.hole.shape
    box = _grown(_bounds(plans[-1].level.hole), MARGIN, size)
    sides, floats = (box.bottom - box.top, box.right - box.left), 0
    for one in reversed(plans):
        here = one.level.hole.shape
        # what the finest needs, as large as it is here, and what finer scales reach beyond it on
        # each side: of a ratio of about 3/4, 3/4 + 9/16 + ... = 3 times REACH at most
        tall, wide = (
            min(-(-side * own // whole) + 6 * REACH * (one.place < plans[-1].place), own)
            for side, own, whole in zip(sides, here, size, strict=True)
        )
        layers = 2 * (BLOCKS - 1) * preset.width_of(one.place)
        floats += layers * (tall + 2 * REACH) * (wide + 2 * REACH)
    taken = 4 * floats / COUNTED
    if taken > graph_shapes.MOST_BYTES:
        raise InputError(
            f"what a result takes must be at most {graph_shapes.MOST_BYTES / 2**30:.0f} GiB, got "
            f"about {taken / 2**30:.1f} for the {sides[0]} x {sides[1]} pixels around the hole; "
            "take a smaller --size, or --preset fast"
        )


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

"""What a hole means at one scale: places that count, the soft mask, the distance from known pixels.

All of it follows from the hole alone and is worked out once a scale.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from picme_rt.errors import InputError
from picme_rt.images import Hole
from picme_training.internal.stack import BLOCKS, REACH

SOFT_SIGMA = 5.0  # pixels
SOFT_RADIUS = 5  # pixels, the most that the hole is dilated by
MOST_COVERED = 0.6  # share of places that see the hole, up to which a scale is fine ...
MOST_COVERED_FIRST = 0.25  # ... at the coarsest ...
STEEP = 2.0**13  # of the line between noise that stays and noise that is new
MANY = 5000  # ... and valid places that are enough whatever their share


class Places(NamedTuple):
    """Which places of a discriminator's maps count.

    Attributes:
        shares: For each of the norms (1, 1, h w) float32: 1 / count where a place counts, else 0.
        valid: (1, 1, h, w) float32 of the final map, 1 where a place counts.
    """

    shares: list[Tensor]
    valid: Tensor

    def to(self, device: torch.device) -> "Places":
        """The same there."""
        return Places([share.to(device) for share in self.shares], self.valid.to(device))


def places(hole: Hole, *, masked: bool) -> Places:
    """Places whose receptive field touches no pixel of the hole; all where `masked` is not set.

    Raises:
        InputError: No place of the final map counts.
    """
    known = torch.from_numpy(~hole if masked else np.ones_like(hole))[None, None].float()
    maps = []
    for _ in range(BLOCKS):
        known = -F.max_pool2d(-known, 3, stride=1)
        maps.append(known)
    if not known.any():
        side = 2 * REACH + 1
        raise InputError(
            f"mask must leave patches of {side} x {side} known pixels to learn from, got none in "
            f"{hole.shape[0]} x {hole.shape[1]} pixels; take a smaller hole, or --engine patch"
        )
    return Places([(m / m.sum()).flatten(2) for m in maps[:-1]], maps[-1])


def seeing(hole: Hole) -> Tensor:
    """(1, 1, h, w) float32 of the final map: 1 at places whose receptive field touches the hole."""
    known = torch.from_numpy(hole)[None, None].float()
    return F.max_pool2d(known, 2 * REACH + 1, stride=1)


def is_fine(hole: Hole, first: bool) -> bool:
    """Whether enough of a scale is known to learn from it without a naive completion.

    Args:
        hole: (h, w) bool.
        first: Whether it is the coarsest scale.
    """
    reach = 2 * REACH + 1
    seen = F.max_pool2d(torch.from_numpy(hole)[None, None].float(), reach, stride=1)
    covered = float(seen.mean())
    if first:
        return covered < MOST_COVERED_FIRST
    return covered < MOST_COVERED or float((1 - seen).sum()) > MANY


def soft_mask(hole: Hole, radius: int) -> Tensor:
    """(h, w) float32: the hole dilated by a disc, blurred (sigma 5), inverted, 0 in the hole.

    Args:
        hole: (h, w) bool.
        radius: Of the disc in pixels, at most `SOFT_RADIUS` of it.
    """
    wide = distance(~hole) <= min(radius, SOFT_RADIUS)
    lines = [_gaussian(side) for side in hole.shape]
    blurred = lines[0] @ torch.from_numpy(wide).double() @ lines[1].T
    return torch.where(torch.from_numpy(hole), 0.0, 1 - blurred).clamp(min=0).float()


def _gaussian(side: int) -> Tensor:
    """(side, side): the blur of a line whose ends go on with their last value."""
    far = int(4 * SOFT_SIGMA)
    offsets = torch.arange(-far, far + 1)
    weights = torch.exp(-0.5 * (offsets.double() / SOFT_SIGMA) ** 2)
    to = (torch.arange(side)[:, None] + offsets).clamp(0, side - 1)
    found = torch.zeros(side, side, dtype=torch.float64)
    return found.scatter_add_(1, to, (weights / weights.sum()).expand(side, -1))


def distance(inside: Hole) -> Hole:
    """(h, w) float32: pixels from each True place to the nearest False one, 0 where False.

    Nothing outside of the picture counts; infinity where no place is False.
    """
    height, width = inside.shape
    down = np.full(inside.shape, np.inf)
    run = np.full(width, np.inf)
    for order in (range(height), range(height - 1, -1, -1)):
        run[:] = np.inf
        for y in order:
            run = np.where(inside[y], run + 1, 0)
            down[y] = np.minimum(down[y], run)
    across = np.square(np.arange(width)[:, None] - np.arange(width)[None, :])
    squared = np.square(down)
    rows = [np.min(row[None, :] + across, axis=1) for row in squared]
    return np.sqrt(np.stack(rows)).astype(np.float32)


def depth(hole: Hole) -> Tensor:
    """(1, 1, h + 10, w + 10): pixels from the known ones, of the noise that a generator takes.

    Beyond the picture's border a place is as deep as the nearest one of the picture.
    """
    found = torch.from_numpy(distance(hole))[None, None]
    return F.pad(found, [REACH] * 4, mode="replicate")


def renewed(depth: Tensor, erosion: Tensor) -> Tensor:
    """1 where noise is drawn anew, 0 where the fixed noise of the reconstruction stays.

    A place deeper in the hole than `erosion` pixels is new. Written as min(max(., 0), 1) of a steep
    line, which a graph has operators for; known pixels, of depth 0, stay whatever the erosion.
    """
    inside = (depth * STEEP).clamp(0, 1)
    return (depth * STEEP - erosion * STEEP).clamp(0, 1) * inside

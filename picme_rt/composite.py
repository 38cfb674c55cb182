"""From a picture to the engine's square and back, known pixels kept to the bit.

`fit` brings the known pixels of a region to the engine's size without ever reading a byte under the
hole; `Canvas.paste` resizes a result back and writes it into the hole alone.
"""

from typing import NamedTuple

import numpy as np

from picme_rt import resample
from picme_rt.framing import Region
from picme_rt.images import Float, Hole, Image, to_levels, to_network

SEAM = 1.5 / 64  # width of the seam's blend, as a share of the engine's side
GRID = 64  # places a side on which the seam's correction is computed
_ROWS = 256  # rows of the picture that are held as float at a time, on both ways


class Fit(NamedTuple):
    """A region at the engine's size.

    Attributes:
        image: (3, S, S) float32 in [-1, 1]; 0 in the hole.
        hole: (1, S, S) float32: 1 where any pixel of the picture under a place is unknown.
    """

    image: Float
    hole: Float


def fit(img: Image, hole: Hole, region: Region, size: int) -> Fit:
    """A region of the picture, brought to (size, size) from its known pixels alone.

    Each value is the weighted mean of the known pixels under it, R(img * known) / R(known) with a
    triangle kernel R; what lies beyond the picture's border is unknown.
    """
    height, width = hole.shape
    top, left = max(region.top, 0), max(region.left, 0)
    bottom, right = min(region.top + region.side, height), min(region.left + region.side, width)
    down = resample.matrix(region.side, size, "triangle")
    columns = down[:, left - region.left : right - region.left].T
    total = np.zeros((4, size, size), np.float32)  # red, green, blue, known
    for first in range(top, bottom, _ROWS):
        last = min(first + _ROWS, bottom)
        known = (~hole[first:last, left:right]).astype(np.float32)
        rows = down[:, first - region.top : last - region.top]
        total[3] += rows @ (known @ columns)
        for channel in range(3):
            pixels = img[first:last, left:right, channel] * known
            total[channel] += rows @ (pixels @ columns)
    share = total[3]
    levels = total[:3] / np.maximum(share, np.float32(1e-6))
    unknown = share < np.float32(1 - 1e-5)
    return Fit(
        np.where(unknown, np.float32(0), to_network(levels)), unknown[None].astype(np.float32)
    )


class Canvas:
    """Where the results of one region go: everything about it that all k results share."""

    def __init__(self, fitted: Fit, hole: Hole, region: Region):
        size, box = fitted.hole.shape[-1], region.box
        self.box = box
        self.inside = hole[box.top : box.bottom, box.left : box.right]
        up = resample.taps(size, region.side, "cubic")
        self.rows = up.part(box.top - region.top, box.bottom - region.top)
        self.columns = up.part(box.left - region.left, box.right - region.left)
        self.image, self.known = fitted.image, 1 - fitted.hole
        # the seam's correction is smooth: it is computed on a grid of at most about GRID a side
        self.pooled = next(f for f in range(max(1, size // GRID), 0, -1) if size % f == 0)
        grid = size // self.pooled
        self.blur = resample.blur(grid, max(SEAM * grid, 0.5))
        self.grow = resample.taps(grid, size, "triangle")
        self.pull = np.float32(1) / (self._spread(self.known) + np.float32(0.05))

    def _spread(self, planes: Float) -> Float:
        """(C, S, S) averaged to the seam's grid and blurred there: (C, grid, grid)."""
        grid = planes.shape[-1] // self.pooled
        cells = planes.reshape(-1, grid, self.pooled, grid, self.pooled).mean((2, 4))
        return np.stack([self.blur @ plane @ self.blur.T for plane in cells])

    def paste(self, picture: Float, target: Image) -> None:
        """Writes a result into the hole of `target`, and nothing outside of it.

        Args:
            picture: (3, S, S) float32 in [-1, 1], as the decoder made it.
            target: (H, W, 3) uint8, a copy of the original.
        """
        # What g missed at the known pixels, spread a little way into the hole: no visible seam.
        missed = (self.image - picture) * self.known
        shift = resample.apply(self._spread(missed) * self.pull, self.grow, self.grow)
        blended = picture + np.where(self.known > 0, missed, shift)
        place = target[self.box.top : self.box.bottom, self.box.left : self.box.right]
        for first in range(0, len(place), _ROWS):
            last = min(first + _ROWS, len(place))
            strip = resample.apply(blended, self.rows.part(first, last), self.columns)
            pixels = np.clip(np.rint(to_levels(strip)), 0, 255).astype(np.uint8)
            inside = self.inside[first:last]
            place[first:last][inside] = pixels.transpose(1, 2, 0)[inside]

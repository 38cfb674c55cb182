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
_ROWS = 256  # rows of the picture that are held as float at a time


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
        self.window = (
            slice(box.top - region.top, box.bottom - region.top),
            slice(box.left - region.left, box.right - region.left),
        )
        self.same = region.side == size
        up = resample.matrix(size, region.side, "cubic")
        self.rows, self.columns = up[self.window[0]], up[self.window[1]].T
        self.image, self.known = fitted.image, 1 - fitted.hole
        self.blur = resample.blur(size, max(SEAM * size, 0.5))
        weight = self.blur @ self.known[0] @ self.blur.T
        self.pull = np.float32(1) / (weight + np.float32(0.05))

    def _back(self, plane: Float) -> Float:
        """The box of the hole, in the picture's pixels, of a plane at the engine's size."""
        if self.same:
            return plane[self.window]
        return self.rows @ (plane @ self.columns)

    def paste(self, picture: Float, target: Image) -> None:
        """Writes a result into the hole of `target`, and nothing outside of it.

        Args:
            picture: (3, S, S) float32 in [-1, 1], as the decoder made it.
            target: (H, W, 3) uint8, a copy of the original.
        """
        # What g missed at the known pixels, spread a little way into the hole: no visible seam.
        missed = (self.image - picture) * self.known
        for channel in range(3):
            shift = (self.blur @ missed[channel] @ self.blur.T) * self.pull
            blended = picture[channel] + np.where(self.known[0] > 0, missed[channel], shift)
            levels = to_levels(self._back(blended))
            pixels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
            box = self.box
            place = target[box.top : box.bottom, box.left : box.right, channel]
            place[self.inside] = pixels[self.inside]

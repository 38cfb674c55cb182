"""From a picture to the engine's square and back, known pixels kept to the bit.

`fit` brings the known pixels of a region to the engine's size without ever reading a byte under the
hole; `canvas` prepares the way back, which `picme_rt.kernels.composite` goes for each result.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from picme_rt import resample
from picme_rt.framing import Box, Region
from picme_rt.images import Float, Hole, Image
from picme_rt.known_mean import known_mean
from picme_rt.resample import Taps

SEAM = 1.5 / 64  # width of the seam's blend, as a share of the engine's side
GRID = 64  # places a side on which the seam's correction is computed


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
    return Fit(*known_mean(img, hole, region, size))


@dataclasses.dataclass(frozen=True)
class Canvas:
    """Where the results of one region go: everything about it that all k results share.

    S is the engine's side, g that of the seam's grid, which divides S.

    Attributes:
        box: The hole's bounding box in the picture, of height h and width w.
        inside: (h, w) bool, True in the hole.
        image: (3, S, S) float32, the known picture at the engine's size.
        known: (S, S) bool, where `image` holds it.
        blur: g to g; how far into the hole the seam's correction reaches.
        pull: (g, g) float32, its factor: large where little is known nearby.
        grow: g to S.
        rows: S to h, of the region's way back to its own size.
        columns: S to w, likewise.
    """

    box: Box
    inside: Hole
    image: Float
    known: Hole
    blur: Taps
    pull: Float
    grow: Taps
    rows: Taps
    columns: Taps

    def __post_init__(self) -> None:
        """Makes every True a byte of 1, as kernels read it: Pillow's masks have 255."""
        for name in ("inside", "known"):
            value = getattr(self, name)
            if isinstance(value, np.ndarray) and value.dtype == np.bool_:
                object.__setattr__(self, name, value.view(np.uint8) != 0)

    @property
    def size(self) -> int:
        """S."""
        return int(self.image.shape[-1])

    @property
    def cell(self) -> int:
        """Places a side of a cell of the seam's grid: S / g."""
        return self.size // len(self.pull)


class Seam(NamedTuple):
    """The grid of a seam's correction: places a side of a cell, and the taps of `Canvas`."""

    cell: int
    blur: Taps
    grow: Taps


def seam(size: int) -> Seam:
    """The seam's grid for pictures of a size; the correction is smooth, so the grid is coarse.

    Args:
        size: S.
    """
    cell = next(f for f in range(max(1, size // GRID), 0, -1) if size % f == 0)
    grid = size // cell
    blur = resample.blur(grid, max(SEAM * grid, 0.5))
    return Seam(cell, blur, resample.taps(grid, size, "triangle"))


def canvas(fitted: Fit, hole: Hole, region: Region) -> Canvas:
    """Prepares what `picme_rt.kernels.composite` needs to paste the results of a region."""
    size, box = fitted.hole.shape[-1], region.box
    cell, blur, grow = seam(size)
    known = fitted.hole == 0
    near = resample.apply(resample.pool(known.astype(np.float32), cell), blur, blur)[0]
    up = resample.taps(size, region.side, "cubic")
    return Canvas(
        box=box,
        inside=np.ascontiguousarray(hole[box.top : box.bottom, box.left : box.right]),
        image=np.ascontiguousarray(fitted.image),
        known=known[0],
        blur=blur,
        pull=np.float32(1) / (near + np.float32(0.05)),
        grow=grow,
        rows=up.part(box.top - region.top, box.bottom - region.top),
        columns=up.part(box.left - region.left, box.right - region.left),
    )


def needed(canvas: Canvas) -> Box:
    """The pixels of the decoder's picture on which a result depends: the hole and its surroundings.

    Half-open rows and columns of (S, S). Whatever other pixels hold, NaN and infinity left aside,
    the bytes of `picme_rt.kernels.composite` are the same.
    """
    if canvas.known.all():  # the hole is smaller than a place
        return Box(0, 0, canvas.size, canvas.size)
    ends = []
    for axis in (1, 0):  # rows, columns
        (places,) = np.nonzero(~canvas.known.all(axis))
        first, last = int(places[0]), int(places[-1]) + 1
        if canvas.known.any():
            for taps in (canvas.grow, canvas.blur):
                first, last = taps.support(first, last)
            first, last = first * canvas.cell, last * canvas.cell
        ends.append((first, last))
    (top, bottom), (left, right) = ends
    return Box(top, left, bottom, right)

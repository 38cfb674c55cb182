"""From a picture's bytes to the engine's square: the weighted mean of the known pixels.

docs/compositing.md is the specification; the compiled kernel gives the same bits.
"""

import numpy as np

from picme_rt import compiled, resample
from picme_rt.compiled import Impl
from picme_rt.framing import Region
from picme_rt.images import Float, Hole, Image, to_network
from picme_rt.resample import Taps

_ROWS = 16  # rows of the square that the reference makes at a time


def known_mean(
    img: Image,
    hole: Hole,
    region: Region,
    size: int,
    *,
    threads: int | None = None,
    impl: Impl = "auto",
) -> tuple[Float, Float]:
    """R(img * known) / R(known) with a triangle kernel R, down and then across.

    No byte under the hole is read into a value; what lies beyond the picture's border is unknown.

    Args:
        img: (H, W, 3) uint8.
        hole: (H, W) bool.
        region: The square of the picture that is wanted; it may reach beyond the border.
        size: S, the side of what is made.
        threads: At most so many; None takes as many as the work is worth. No bit depends on it.
        impl: As for `picme_rt.kernels.composite`.

    Returns:
        (3, S, S) float32 in [-1, 1], 0 where unknown; and (1, S, S) float32, 1 where any pixel
        under a place is unknown, else 0.

    Raises:
        UnavailableError: impl="native" and the compiled module is not built.
    """
    module, count = compiled.find(impl), compiled.thread_count(threads)
    taps = resample.taps(region.side, size, "triangle")
    if module is None:
        return _reference(img, hole, region, taps)
    found: tuple[Float, Float] = module.known_mean(
        np.ascontiguousarray(img),
        np.ascontiguousarray(hole),
        region.top,
        region.left,
        region.side,
        *taps,
        threads=count,
    )
    return found


def _reference(img: Image, hole: Hole, region: Region, taps: Taps) -> tuple[Float, Float]:
    size = len(taps.first)
    total = np.empty((4, size, size), np.float32)  # red, green, blue, known
    for y in range(0, size, _ROWS):
        rows = taps.part(y, min(y + _ROWS, size))
        first, last = int(rows.first[0]), int(rows.first[-1]) + len(rows.weights)
        planes = _planes(img, hole, region, first, last)
        # what goes across a picture on its side goes down the picture
        down = resample.apply(planes.swapaxes(1, 2), taps, rows._replace(first=rows.first - first))
        total[:, y : y + _ROWS] = down.swapaxes(1, 2)
    share = total[3]
    levels = total[:3] / np.maximum(share, np.float32(1e-6))
    unknown = share < np.float32(1) - np.float32(1e-5)
    return np.where(unknown, np.float32(0), to_network(levels)), unknown[None].astype(np.float32)


def _planes(img: Image, hole: Hole, region: Region, first: int, last: int) -> Float:
    """Rows first:last of the region as (4, rows, side) float32: img * known, and known."""
    planes = np.zeros((4, last - first, region.side), np.float32)
    height, width = hole.shape
    top, bottom = max(region.top + first, 0), min(region.top + last, height)
    left, right = max(region.left, 0), min(region.left + region.side, width)
    if top < bottom and left < right:
        known = ~hole[top:bottom, left:right]
        inside = planes[
            :,
            top - region.top - first : bottom - region.top - first,
            left - region.left : right - region.left,
        ]
        inside[:3] = np.moveaxis(img[top:bottom, left:right], 2, 0) * known
        inside[3] = known
    return planes

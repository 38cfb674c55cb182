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
    rows, columns = _inside(taps, region.top, len(img)), _inside(taps, region.left, img.shape[1])
    if rows is None or columns is None:
        total = np.zeros((4, size, size), np.float32)
    else:
        blocks = (rows.part(y, min(y + _ROWS, size)) for y in range(0, size, _ROWS))
        total = np.concatenate([_sums(img, hole, block, columns) for block in blocks], 1)
    share = total[3]
    levels = total[:3] / np.maximum(share, np.float32(1e-6))
    unknown = share < np.float32(1) - np.float32(1e-5)
    return np.where(unknown, np.float32(0), to_network(levels)), unknown[None].astype(np.float32)


def _sums(img: Image, hole: Hole, rows: Taps, columns: Taps) -> Float:
    """(4, rows, S) float32: red, green, blue, known, down and then across."""
    (top, bottom), (left, right) = (
        (int(line.first[0]), int(line.first[-1]) + len(line.weights)) for line in (rows, columns)
    )
    planes = _planes(img[top:bottom, left:right], hole[top:bottom, left:right])
    rows = rows._replace(first=rows.first - top)
    columns = columns._replace(first=columns.first - left)
    # what goes across a picture on its side goes down the picture
    return resample.apply(planes.swapaxes(1, 2), columns, rows).swapaxes(1, 2)


def _inside(taps: Taps, offset: int, length: int) -> Taps | None:
    """Taps of a line that begins at `offset` of a picture's, as those of the picture's own places.

    What lies beyond has weight 0, so that no sum changes; None where all of it does.
    """
    first = taps.first + offset
    begin, end = max(int(first[0]), 0), min(int(first[-1]) + len(taps.weights), length)
    width = min(len(taps.weights), end - begin)
    if width < 1:
        return None
    moved = np.clip(first, begin, end - width)
    return Taps(moved, resample.shifted(taps.weights, moved - first, width))


def _planes(img: Image, hole: Hole) -> Float:
    """(4, h, w) float32: img * known, and known."""
    planes = np.empty((4, *hole.shape), np.float32)
    planes[3] = ~hole
    planes[:3] = np.moveaxis(img, 2, 0) * ~hole
    return planes

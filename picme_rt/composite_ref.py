"""The composite's reference in NumPy: short, and the same bits as the compiled kernel.

NumPy never fuses a multiplication with an addition, so every line below is one float32 rounding per
operator, in the order in which it is written. docs/compositing.md is the specification in words.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picme_rt import resample
from picme_rt.composite import Canvas
from picme_rt.images import Float, Image, to_levels

_ROWS = 256  # rows of the box that are held as float at a time


def composite_ref(
    pictures: NDArray[Any],
    originals: NDArray[np.uint8] | None,
    canvases: Sequence[Canvas],
    out: NDArray[np.uint8],
) -> None:
    """`picme_rt.kernels.composite` on checked arguments."""
    for b, canvas in enumerate(canvases):
        for picture, target in zip(pictures[b], out[b], strict=True):
            if originals is not None:
                target[:] = originals[b]
            with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are defined
                _paste(_as_float32(picture), canvas, target)


def _as_float32(picture: NDArray[Any]) -> Float:
    if picture.dtype == np.uint16:  # bfloat16 is the upper half of float32
        return (picture.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return picture.astype(np.float32)


def _paste(picture: Float, canvas: Canvas, target: Image) -> None:
    """Writes one result (3, S, S) into the hole of `target`, and nothing outside of it."""
    # What g missed at the known pixels, spread a little way into the hole: no visible seam.
    missed = np.where(canvas.known, canvas.image - picture, np.float32(0))
    cells = resample.apply(resample.pool(missed, canvas.cell), canvas.blur, canvas.blur)
    shift = resample.apply(cells * canvas.pull, canvas.grow, canvas.grow)
    blended = np.where(canvas.known, canvas.image, picture + shift)
    box = canvas.box
    place = target[box.top : box.bottom, box.left : box.right]
    for first in range(0, len(place), _ROWS):
        last = min(first + _ROWS, len(place))
        rows = canvas.rows.part(first, last)
        top, bottom = rows.first[0], rows.first[-1] + len(rows.weights)
        rows = rows._replace(first=rows.first - top)
        strip = resample.apply(blended[:, top:bottom], rows, canvas.columns)
        inside = canvas.inside[first:last]
        place[first:last][inside] = _to_bytes(strip).transpose(1, 2, 0)[inside]


def _to_bytes(picture: Float) -> NDArray[np.uint8]:
    """To nearest, ties to even; NaN gives 0."""
    levels = to_levels(picture)
    return np.rint(np.where(levels > 0, np.minimum(levels, 255), 0)).astype(np.uint8)

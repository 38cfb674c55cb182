"""Canvases as one array of bytes, which `composite_cuda` reads on the GPU.

kernels/composite_cuda.h says what the bytes are: a header for each canvas, then its arrays. All of
it is checked here, for a kernel looks at nothing twice.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt.composite import Canvas
from picme_rt.errors import InputError
from picme_rt.resample import Taps

MOST_SIDE = 4096  # kMostSide of kernels/composite_cuda.h
_HEADER = 37  # 64-bit integers of a PackedCanvas
_ALIGNMENT = 16  # bytes


class PackedCanvases(NamedTuple):
    """Canvases of B pictures, to be copied to the GPU.

    Attributes:
        data: (N,) uint8.
        batch: B.
        size: S, the side of the decoder's pictures.
        grid: g, the largest side of a seam's grid.
        height: Of every box at least up to its lower edge: pictures must be so high.
        width: Likewise.
    """

    data: NDArray[np.uint8]
    batch: int
    size: int
    grid: int
    height: int
    width: int

    def scratch_shape(self, k: int) -> tuple[int, int, int, int, int]:
        """(B, k, 3, g, g + S): the scratch memory of `composite_cuda`, float32."""
        return self.batch, k, 3, self.grid, self.grid + self.size


def pack(canvases: Sequence[Canvas]) -> PackedCanvases:
    """Packs canvases of one size, as `picme_rt.composite.canvas` makes them.

    Raises:
        InputError: There is none, their sizes differ, or an array of one is not as `Canvas` says.
    """
    if not canvases:
        raise InputError("canvases must be at least one, got none")
    size = canvases[0].size
    if not 1 <= size <= MOST_SIDE:
        raise InputError(
            f"canvases must be of a size from 1 to {MOST_SIDE} for a GPU, got {size}: "
            "use picme_rt.kernels.composite"
        )
    headers = np.zeros((len(canvases), _HEADER), np.int64)
    arrays: list[NDArray[Any]] = [headers]
    end = _padded(headers.nbytes)
    for header, canvas in zip(headers, canvases, strict=True):
        if canvas.size != size:
            raise InputError(f"canvases must be of one size, got {size} and {canvas.size}")
        numbers: list[int] = []
        for entry in _entries(canvas):
            if isinstance(entry, int):
                numbers.append(entry)
                continue
            numbers.append(end)
            arrays.append(entry)
            end += _padded(entry.nbytes)
        header[:] = numbers
    data = np.zeros(end, np.uint8)
    at = 0
    for array in arrays:
        data[at : at + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        at += _padded(array.nbytes)
    return PackedCanvases(
        data,
        len(canvases),
        size,
        max(len(canvas.pull) for canvas in canvases),
        max(canvas.box.bottom for canvas in canvases),
        max(canvas.box.right for canvas in canvases),
    )


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _entries(canvas: Canvas) -> Iterator[int | NDArray[Any]]:
    """The fields of a PackedCanvas in their order; an array stands for its place."""
    size, grid, box = canvas.size, len(canvas.pull), canvas.box
    height, width = box.bottom - box.top, box.right - box.left
    if grid < 1 or size % grid:
        raise InputError(f"pull must be (g, g) with g a divisor of {size}, got {canvas.pull.shape}")
    if box.top < 0 or box.left < 0 or height < 1 or width < 1:
        raise InputError(f"box must lie inside the picture and hold a pixel, got {box}")
    yield _checked("image", canvas.image, np.float32, (3, size, size))
    yield _checked("known", canvas.known, np.bool_, (size, size))
    yield _checked("pull", canvas.pull, np.float32, (grid, grid))
    yield _checked("inside", canvas.inside, np.bool_, (height, width))
    yield grid
    sides = {"blur": (grid, grid), "grow": (grid, size), "rows": (size, height)}
    for name, (source, target) in (sides | {"columns": (size, width)}).items():
        taps: Taps = getattr(canvas, name)
        count, span = len(taps.first), len(taps.weights)
        yield _checked(f"{name}.first", taps.first, np.int32, (target,))
        yield _checked(f"{name}.weights", taps.weights, np.float32, (span, target))
        if span < 1 or taps.first[0] < 0 or taps.first[-1] + span > source:
            raise InputError(f"{name} must take values of 0 to {source - 1}, got others")
        if (np.diff(taps.first) < 0).any():
            raise InputError(f"{name}.first must never fall, got one that does")
        yield count
        yield span
    yield from (box.top, box.left, height, width)
    yield from _parts(canvas)


def _checked(
    name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]
) -> NDArray[Any]:
    if array.dtype != dtype or array.shape != shape:
        expected = f"{shape} {np.dtype(dtype)}"
        raise InputError(
            f"{name} of a canvas must be {expected}, got {array.shape} {array.dtype}: "
            "picme_rt.composite.canvas makes them"
        )
    return array


def _parts(canvas: Canvas) -> Iterator[int]:
    """Top, left, bottom and right: what is not known, and the shifts and cells that it takes up."""
    if canvas.known.all() or not canvas.known.any():
        yield from (0,) * 12  # no seam
        return
    edges = []
    for axis in (1, 0):  # rows, columns
        (places,) = np.nonzero(~canvas.known.all(axis))
        first, last = int(places[0]), int(places[-1]) + 1
        line = [(first, last)]
        for taps in (canvas.grow, canvas.blur):
            first, last = int(taps.first[first]), int(taps.first[last - 1]) + len(taps.weights)
            line.append((first, last))
        edges.append(line)
    for (top, bottom), (left, right) in zip(*edges, strict=True):
        yield from (top, left, bottom, right)

"""Resizing by two constant matrices, rows X columns': y = W_h x W_w'.

Shrinking widens the kernel by the ratio (antialiasing); every row of a matrix sums to 1. Equal
sizes give the identity, so that a picture of the engine's own size passes unchanged.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt.images import Float

_Line = NDArray[np.float64]


def _triangle(x: _Line) -> _Line:
    return (1 - np.abs(x)).clip(min=0)


def _catmull_rom(x: _Line) -> _Line:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


_KERNELS = {"triangle": _triangle, "cubic": _catmull_rom}


@functools.lru_cache(maxsize=16)
def matrix(source: int, target: int, kernel: str) -> Float:
    """The (target, source) float32 matrix that resizes a line of `source` values.

    Args:
        source: Number of values that go in.
        target: Number of values that come out.
        kernel: `triangle` (positive weights: may be normalised by known pixels) or `cubic`
            (Catmull-Rom).
    """
    scale = source / target
    places = (np.arange(target) + 0.5) * scale - 0.5
    distance = (np.arange(source)[None, :] - places[:, None]) / max(scale, 1.0)
    weights = _KERNELS[kernel](distance)
    weights /= weights.sum(1, keepdims=True)
    found = weights.astype(np.float32)
    found.setflags(write=False)
    return found


class Taps(NamedTuple):
    """The few entries of each row of a `matrix` that are not zero.

    Attributes:
        places: (target, T) of the values that go in.
        weights: (target, T) float32.
    """

    places: NDArray[np.intp]
    weights: Float

    def part(self, first: int, last: int) -> "Taps":
        """The rows first:last."""
        return Taps(self.places[first:last], self.weights[first:last])


@functools.lru_cache(maxsize=16)
def taps(source: int, target: int, kernel: str) -> Taps:
    """The rows of `matrix(source, target, kernel)` as taps."""
    dense = matrix(source, target, kernel)
    first = (dense != 0).argmax(1)
    last = source - (dense != 0)[:, ::-1].argmax(1)
    width = int((last - first).max())
    places = np.minimum(first, source - width)[:, None] + np.arange(width)
    found = Taps(places, np.take_along_axis(dense, places, 1))
    for array in found:
        array.setflags(write=False)
    return found


def apply(planes: Float, rows: Taps, columns: Taps) -> Float:
    """Resizes (C, h, w) to (C, H, W): each value a short sum, in a fixed order, without BLAS.

    Between two decodes the threads of a BLAS and of the backend would be in each other's way.
    """
    tall = np.zeros((planes.shape[0], len(rows.places), planes.shape[2]), np.float32)
    for place, weight in zip(rows.places.T, rows.weights.T, strict=True):
        tall += planes[:, place] * weight[:, None]
    wide = np.zeros((*tall.shape[:2], len(columns.places)), np.float32)
    for place, weight in zip(columns.places.T, columns.weights.T, strict=True):
        wide += tall[:, :, place] * weight
    return wide


@functools.lru_cache(maxsize=16)
def blur(side: int, sigma: float) -> Float:
    """The (side, side) float32 matrix of a Gaussian blur of `sigma` places; rows sum to 1."""
    distance = np.arange(side)[:, None] - np.arange(side)[None, :]
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    weights /= weights.sum(1, keepdims=True)
    found = weights.astype(np.float32)
    found.setflags(write=False)
    return found

"""Resizing by constant weights, each value a short sum of taps.

Shrinking widens the kernel by the ratio (antialiasing); the weights of every value sum to 1. Equal
sizes give the identity, so that a picture of the engine's own size passes unchanged.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt.images import Float

CUT = 2
"""How far a blur reaches, in standard deviations."""
_Line = NDArray[np.float64]


def _triangle(x: _Line) -> _Line:
    return (1 - np.abs(x)).clip(min=0)


def _catmull_rom(x: _Line) -> _Line:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


_KERNELS = {"triangle": _triangle, "cubic": _catmull_rom}
_REACH = {"triangle": 1, "cubic": 2}
_SUMMED = 1 << 17  # numbers at a time, 1 MiB


class Taps(NamedTuple):
    """Few weights for each value: value i is sum_t weights[t, i] * line[first[i] + t].

    Attributes:
        first: (target,) int32; never falls from one value to the next.
        weights: (T, target) float32.
    """

    first: NDArray[np.int32]
    weights: Float

    def part(self, first: int, last: int) -> "Taps":
        """The values first:last, C-contiguous."""
        return Taps(self.first[first:last], np.ascontiguousarray(self.weights[:, first:last]))

    def support(self, first: int, last: int) -> tuple[int, int]:
        """First and last + 1 of the values that go into first:last with a weight other than 0."""
        places = self.first[first:last] + np.arange(len(self.weights))[:, None]
        used = places[self.weights[:, first:last] != 0]
        return int(used.min()), int(used.max()) + 1


def _frozen(first: NDArray[np.intp], weights: NDArray[np.floating]) -> Taps:
    found = Taps(first.astype(np.int32), np.ascontiguousarray(weights.T, np.float32))
    for array in found:
        array.setflags(write=False)
    return found


@functools.lru_cache(maxsize=16)
def taps(source: int, target: int, kernel: str) -> Taps:
    """The weights that resize a line; as many for each value as the one that needs most has.

    Args:
        source: Number of values that go in.
        target: Number of values that come out.
        kernel: `triangle` (positive weights: may be normalised by known pixels) or `cubic`
            (Catmull-Rom).
    """
    begin, band = _band(source, target, kernel)
    weights = (band / _sums(begin, band, source)[:, None]).astype(np.float32)
    used = weights != 0
    first = begin + used.argmax(1)
    first = np.minimum.accumulate(first[::-1])[::-1]  # a place on a value has no neighbours
    width = int((begin + band.shape[1] - used[:, ::-1].argmax(1) - first).max())
    first = np.minimum(first, source - width)
    return _frozen(first, shifted(weights.T, first - begin, width).T)


def _band(source: int, target: int, kernel: str) -> tuple[NDArray[np.intp], _Line]:
    """First places (target,) and weights (target, T) around each value, not yet normalised."""
    scale = source / target
    places = (np.arange(target) + 0.5) * scale - 0.5
    reach = _REACH[kernel] * max(scale, 1.0)
    width = min(math.ceil(2 * reach) + 2, source)
    begin = np.clip(np.floor(places - reach).astype(np.intp), 0, source - width)
    distance = (begin[:, None] + np.arange(width) - places[:, None]) / max(scale, 1.0)
    return begin, _KERNELS[kernel](distance)


def _sums(begin: NDArray[np.intp], band: _Line, source: int) -> _Line:
    """Of each value's weights, added as lines of `source`: NumPy's order hangs on their places."""
    found, step = np.empty(len(begin)), max(1, _SUMMED // source)
    for y in range(0, len(begin), step):
        part, lines = begin[y : y + step, None], np.zeros((len(begin[y : y + step]), source))
        np.put_along_axis(lines, part + np.arange(band.shape[1]), band[y : y + step], 1)
        found[y : y + step] = lines.sum(1)
    return found


def shifted(weights: Float, by: NDArray[np.intp], width: int) -> Float:
    """Weights (T, m) as (width, m) that begin `by` places later each; 0 where there are none."""
    places = by + np.arange(width)[:, None]
    inside = (places >= 0) & (places < len(weights))
    found = np.take_along_axis(weights, places.clip(0, len(weights) - 1), 0)
    return np.where(inside, found, np.float32(0))


def matrix(source: int, target: int, kernel: str) -> Float:
    """The (target, source) float32 matrix of `taps(source, target, kernel)`, zeros and all."""
    few = taps(source, target, kernel)
    found = np.zeros((target, source), np.float32)
    for t, weight in enumerate(few.weights):
        found[np.arange(target), few.first + t] = weight
    return found


@functools.lru_cache(maxsize=16)
def blur(side: int, sigma: float) -> Taps:
    """A Gaussian blur of `sigma` places, cut off beyond `CUT` sigma: what is far need not be known.

    A short reach is what keeps the part of the picture small that a decoder makes for a hole.
    """
    reach = max(1, math.floor(CUT * sigma))
    width = min(2 * reach + 1, side)
    first = np.clip(np.arange(side) - reach, 0, side - width)
    distance = first[:, None] + np.arange(width) - np.arange(side)[:, None]
    weights = np.where(abs(distance) <= reach, np.exp(-0.5 * (distance / sigma) ** 2), 0)
    return _frozen(first, weights / weights.sum(1, keepdims=True))


def apply(planes: Float, rows: Taps, columns: Taps) -> Float:
    """Resizes (C, h, w) to (C, H, W), across and then down: short sums, each in the taps' order.

    Between two decodes the threads of a BLAS and of the backend would be in each other's way.
    """
    wide = planes[:, :, columns.first] * columns.weights[0]
    for t, weight in enumerate(columns.weights[1:], 1):
        wide = wide + planes[:, :, columns.first + t] * weight
    tall: Float = wide[:, rows.first] * rows.weights[0][:, None]
    for t, weight in enumerate(rows.weights[1:], 1):
        tall = tall + wide[:, rows.first + t] * weight[:, None]
    return tall


def pool(planes: Float, side: int) -> Float:
    """(C, h, w) to (C, h / side, w / side): the mean of each cell, its rows summed first."""
    _, height, width = planes.shape
    rows = planes.reshape(-1, height // side, side, width)
    total = rows[:, :, 0]
    for row in range(1, side):
        total = total + rows[:, :, row]
    cells = total.reshape(-1, height // side, width // side, side)
    total = cells[..., 0]
    for column in range(1, side):
        total = total + cells[..., column]
    return total * (np.float32(1) / np.float32(side * side))

"""The taps of `picme_rt.resample` for sizes that are known when the graph runs."""

import numpy as np
from numpy.typing import NDArray

from picme_export.pipeline.steps import Value
from picme_rt.resample import Taps


def matrix(
    source: Value,
    target: Value,
    kernel: str,
    *,
    first: Value | None = None,
    last: Value | None = None,
) -> Value:
    """Rows first:last (all by default) of `picme_rt.resample.matrix`, (target, source) float32.

    A distance is a quotient of integers, which are exact: one rounding.

    Args:
        source: How many values go in, (1,) int64.
        target: How many come out, likewise.
        kernel: `triangle` or `cubic`.
        first: Likewise.
        last: Likewise.
    """
    steps = source.steps
    zero = steps.constant([0], np.int64)
    into = _range(zero if first is None else first, target if last is None else last).insert(1)
    comes = _range(zero, source).insert(0)
    places = comes * target * 2 - (into * 2 + 1) * source + target
    distance = places.cast(np.float32) / (source.larger(target) * 2).cast(np.float32)
    weights = {"triangle": _triangle, "cubic": _catmull_rom}[kernel](steps.op("Abs", distance))
    return weights / weights.total(1)


def dense(taps: Taps, source: int) -> NDArray[np.float32]:
    """Taps whose sizes are known now, as a matrix (target, source)."""
    found = np.zeros((len(taps.first), source), np.float32)
    rows = np.arange(len(taps.first))
    for t, weights in enumerate(taps.weights):
        found[rows, taps.first + t] += weights
    return found


def resize(planes: Value, rows: Value, columns: Value) -> Value:
    """(..., h, w) to (..., H, W) by matrices (H, h) and (W, w), across and then down."""
    return rows @ (planes @ columns.transpose(1, 0))


def _range(first: Value, last: Value) -> Value:
    steps = first.steps
    return steps.op("Range", first.remove(0), last.remove(0), steps.constant(np.int64(1)))


def _triangle(x: Value) -> Value:
    return (-x + 1).larger(0)


def _catmull_rom(x: Value) -> Value:
    near = (x * 1.5 - 2.5) * x * x + 1
    far = ((x * -0.5 + 2.5) * x - 4) * x + 2
    return x.less(1).where(near, x.less(2).where(far, x * 0))

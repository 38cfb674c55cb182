"""Colours from averaged gradients: nothing shows where patches of different light meet.

The screened Poisson equation (Bhat et al. 2008; Darabi et al. 2012): inside the hole

    minimise  SCREEN * sum (x - voted)^2 + sum (x_q - x_p - g_pq)^2  over neighbours p, q,

with x equal to the known pixels outside and g the gradients that the patches vote for. Then the one
ring beside the known pixels is drawn on from them, in part.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from picme_rt import patch_search
from picme_rt.images import Float, Hole
from picme_rt.patch_search import Places

SCREEN = 0.01
SOFT = 4
DRAWN_ON = np.float32(0.45)  # share of the way to the cubic through the pixels around
STEPS = 80  # of the Chebyshev iteration: the error falls by exp(2 * sqrt(SCREEN / 8)) a step


def finish(
    known: Float,
    hole: Hole,
    query_at: Places,
    found: Places,
    ballots: tuple[Float, Float],
    current: Float,
) -> None:
    """Votes for the last time and solves for the hole's pixels of `current`, in place.

    Beside the known pixels all patches count, which is soft and shows no seam; from `SOFT` pixels
    on those that are nearest count, for a mean of many is blurred.

    Args:
        known: (H, W, 3) float32, the known picture.
        hole: (H, W) bool.
        query_at: (H, W) int32, as for `patch_search.vote`.
        found: (Q,) int32, the queries' keys.
        ballots: Two of (Q,) float32, what their votes count: soft and sharp.
        current: (H, W, 3) float32, known outside the hole.
    """
    soft, sharp = (known.copy() for _ in ballots)
    steps = []
    for weights, picture in zip(ballots, (soft, sharp), strict=True):
        patch_search.vote(known, hole, query_at, found, weights, picture)
        steps.append(_gradients(known, hole, query_at, found, weights))
    share = _sharpness(hole)
    current[:] = soft + (sharp - soft) * share
    (right, down), (sharp_right, sharp_down) = steps
    right += (sharp_right - right) * share
    down += (sharp_down - down) * share
    _solve(hole, right, down, current)
    _draw_on(hole, current)


def _sharpness(hole: Hole) -> Float:
    """0 where known and in the ring beside it, rising to 1 `SOFT` rings deeper, (H, W, 1)."""
    share, left = np.zeros(hole.shape, np.float32), hole
    for _ in range(SOFT):
        padded = np.pad(left, 1, constant_values=True)  # the border of the picture is no seam
        rows = padded[:-2] & padded[1:-1] & padded[2:]
        left = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
        share += left * np.float32(1 / SOFT)
    return share[..., None]


def _draw_on(hole: Hole, current: Float) -> None:
    """Moves the hole's pixels beside known ones towards what continues these smoothly, in place.

    Of four pixels a b | c d in a row, c being the hole's first, that is b + (d - a) / 3: there the
    step across the border is the mean of those beside it. A pixel at a corner has more than one.
    """
    wanted = np.zeros_like(current)
    ways = np.zeros((*hole.shape, 1), np.float32)
    for turn in (lambda x: x, lambda x: x[:, ::-1], _turned, lambda x: _turned(x)[:, ::-1]):
        picture, inside = turn(current), turn(hole)
        a, b, d = picture[:, :-3], picture[:, 1:-2], picture[:, 3:]
        first = (inside[:, 2:-1] & ~inside[:, 1:-2])[..., None]
        turn(wanted)[:, 2:-1] += first * (b + (d - a) * np.float32(1 / 3))
        turn(ways)[:, 2:-1] += first
    ring = ways > 0
    mean = wanted / np.maximum(ways, np.float32(1))
    current += np.where(ring, (mean - current) * DRAWN_ON, np.float32(0))


def _turned(x: NDArray[Any]) -> NDArray[Any]:
    return x.swapaxes(0, 1)


def _solve(hole: Hole, right: Float, down: Float, current: Float) -> None:
    """Minimises the sum above; `current` is what was voted for, and then x."""
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    part = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    free = hole[part][..., None].astype(np.float32)
    x = current[part].copy()
    # what is left of the normal equations; the screen's part is 0 at the start
    residual = np.zeros_like(x)
    _add_edges(residual, x, right[part], down[part])
    residual *= free
    # Chebyshev semi-iteration (Saad, Iterative Methods, alg. 12.1) for eigenvalues between SCREEN
    # and SCREEN + 8: no sum over the picture, so that no order of summation matters
    middle, half = SCREEN + 4.0, 4.0
    ratio = middle / half
    rho = 1 / ratio
    step = residual * np.float32(1 / middle)
    for _ in range(STEPS):
        x += step
        change = step * np.float32(-SCREEN)
        _add_edges(change, step, None, None)
        residual += change * free
        after = 1 / (2 * ratio - rho)
        step = step * np.float32(after * rho) + residual * np.float32(2 * after / half)
        rho = after
    current[part] = np.where(free > 0, x, current[part])


def _add_edges(total: Float, x: Float, right: Float | None, down: Float | None) -> None:
    """Adds to each place the sum of x_q - x_p - g_pq over its neighbours q."""
    across = x[:, 1:] - x[:, :-1]
    along = x[1:] - x[:-1]
    if right is not None and down is not None:
        across, along = across - right[:, :-1], along - down[:-1]
    total[:, :-1] += across
    total[:, 1:] -= across
    total[:-1] += along
    total[1:] -= along


def _gradients(
    known: Float, hole: Hole, query_at: Places, found: Places, weights: Float
) -> tuple[Float, Float]:
    """The steps to the right and down, (H, W, 3) each, that the patches vote for."""
    height, width = hole.shape
    values = np.zeros((height, width, 8), np.float32)  # 3 of a step, and whether it is known
    both = ~hole[:, 1:] & ~hole[:, :-1]
    values[:, :-1, :3] = (known[:, 1:] - known[:, :-1]) * both[..., None]
    values[:, :-1, 3] = both
    both = ~hole[1:] & ~hole[:-1]
    values[:-1, :, 4:7] = (known[1:] - known[:-1]) * both[..., None]
    values[:-1, :, 7] = both
    wanted = hole.copy()
    wanted[:, :-1] |= hole[:, 1:]
    wanted[:-1] |= hole[1:]
    mean = np.zeros_like(values)
    patch_search.vote(values, wanted, query_at, found, weights, mean)
    share: Float = np.maximum(mean, np.float32(1e-6))
    return mean[..., :3] / share[..., 3:4], mean[..., 4:7] / share[..., 7:]

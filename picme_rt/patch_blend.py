"""Colours from averaged gradients: nothing shows where patches of different light meet.

The screened Poisson equation (Bhat et al. 2008; Darabi et al. 2012): inside the hole

    minimise  SCREEN * sum (x - voted)^2 + sum (x_q - x_p - g_pq)^2  over neighbours p, q,

with x equal to the known pixels outside and g the gradients that the patches vote for.
"""

import numpy as np

from picme_rt import patch_search
from picme_rt.images import Float, Hole
from picme_rt.patch_search import Places

SCREEN = 0.01
STEPS = 80  # of the Chebyshev iteration: the error falls by exp(2 * sqrt(SCREEN / 8)) a step


def blend(
    known: Float, hole: Hole, query_at: Places, found: Places, weights: Float, current: Float
) -> None:
    """Solves for the hole's pixels of `current`, in place.

    Args:
        known: (H, W, 3) float32, the known picture.
        hole: (H, W) bool.
        query_at: (H, W) int32, as for `patch_search.vote`.
        found: (Q,) int32, the queries' keys.
        weights: (Q,) float32, what their votes count.
        current: (H, W, 3) float32, what was voted for in the hole, known outside.
    """
    right, down = _gradients(known, hole, query_at, found, weights)
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

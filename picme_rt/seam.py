"""No seam: what a filling misses at the known pixels beside its hole is spread into the hole.

The membrane of Poisson image editing (Perez et al. 2003), on a screen: inside the hole

    minimise  screen * sum s^2 + sum (s_q - s_p)^2  over neighbours p, q,

with s what was missed outside. Fine differences end within few pixels, a wrong light further in.
"""

import numpy as np

from picme_rt.images import Float, Hole


def spread(missed: Float, hole: Hole, *, screen: float, steps: int) -> Float:
    """The membrane s.

    Args:
        missed: (C, h, w) float32, what was missed where known; places in the hole do not matter.
        hole: (h, w) bool. Where it reaches the border of the map nothing is known beyond.
        screen: Pulls s to 0 further than about 1 / sqrt(screen) places from the known ones.
        steps: Of the Chebyshev iteration; the error falls by exp(2 sqrt(screen / 8)) a step.

    Returns:
        (C, h, w) float32, `missed` outside of the hole.
    """
    found = np.where(hole, np.float32(0), missed)
    if not hole.any():
        return found
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    part = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    free = hole[part].astype(np.float32)
    s = found[:, part[0], part[1]].copy()
    residual = np.zeros_like(s)
    _add_edges(residual, s)
    residual *= free
    # Saad, Iterative Methods, alg. 12.1, for eigenvalues between screen and screen + 8: no sum over
    # the map, so that no order of summation matters
    middle, half = screen + 4.0, 4.0
    ratio = middle / half
    rho = 1 / ratio
    step = residual * np.float32(1 / middle)
    for _ in range(steps):
        s += step
        change = step * np.float32(-screen)
        _add_edges(change, step)
        change *= free
        residual += change
        after = 1 / (2 * ratio - rho)
        step *= np.float32(after * rho)
        step += residual * np.float32(2 * after / half)
        rho = after
    found[:, part[0], part[1]] = np.where(free > 0, s, found[:, part[0], part[1]])
    return found


def _add_edges(total: Float, s: Float) -> None:
    """Adds to each place the sum of s_q - s_p over its neighbours q."""
    across = s[:, :, 1:] - s[:, :, :-1]
    total[:, :, :-1] += across
    total[:, :, 1:] -= across
    along = s[:, 1:] - s[:, :-1]
    total[:, :-1] += along
    total[:, 1:] -= along

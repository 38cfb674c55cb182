"""Internal completion without training: the hole is filled with patches of the picture itself.

From coarse to fine, each patch that the hole touches looks for the known patch nearest to it, and
what those say is averaged (Wexler et al. 2007; PatchMatch, Barnes et al. 2009). Results differ by
the noise that the coarsest level begins with, and by the keys that its normalised distance favours
(GPNN, Granot et al. 2022). At the end gradients are averaged too and the colours solved for, so
that nothing shows where patches meet (Image Melding, Darabi et al. 2012). docs/patch.md has it all.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt import kernels, patch_blend, patch_search, resample
from picme_rt.errors import InputError
from picme_rt.images import Float, Hole, Image
from picme_rt.patch_search import REACH, Picture, Places, Search

CONTEXT = 96  # least pixels of known picture around the hole that keys come from
COARSEST = 20  # least shorter side of a level
FEWEST = 60  # least keys of a level that is coarser than the picture
PASSES = (8, 6, 4, 3, 2, 2, 1)  # searches and votes a level, from the coarsest; then the last
ROUNDS = 3  # of PatchMatch a pass
EXACT = 1 << 21  # most pairs of query and key that are compared one by one
BEGIN = 1 << 24  # likewise at the coarsest level, where prices count; 64 MB of distances
ALPHA = 30_000.0  # of the normalised distance, in units of d
NOISE = 30.0  # levels, standard deviation at the coarsest level
FIELD = (4, 4)  # places of the field of prices
PRICE = 1.0  # what a key costs more by one standard deviation of it
DEAREST = 999_999.0  # what a key costs at most
KNOWN = 4  # weight of a known pixel in a query, where one of the hole counts 1
TRUST = np.float32(1.3)  # a query's vote counts so much less a pixel deeper in the hole

_NOISE_PLACE, _FIELD_PLACE, _SEARCH_PLACE = 1, 2, 3  # counter words of Philox; the last and on


class Level(NamedTuple):
    """One size of the picture.

    Attributes:
        known: (H, W, 3) float32 levels, the mean of the known pixels; 0 in the hole.
        hole: (H, W) bool.
        valid: (H, W) bool, the places of keys.
        keys: (K,) int32, the same as places.
        queries: (Q,) int32 places.
        query_at: (H, W) int32, the query's number or -1.
        weights: (H, W, 4) int16 of `patch_search.Picture`.
        trust: (Q,) float32, what a query's vote counts.
    """

    known: Float
    hole: Hole
    valid: NDArray[np.bool_]
    keys: Places
    queries: Places
    query_at: Places
    weights: NDArray[np.int16]
    trust: Float


class Prepared(NamedTuple):
    """What all results of a picture share.

    Attributes:
        top: First row of the part of the picture that is worked on.
        left: First column.
        levels: Of that part, the finest first.
    """

    top: int
    left: int
    levels: list[Level]


def prepare(img: Image, hole: Hole) -> Prepared:
    """Cuts out the hole with its surroundings and makes its levels.

    Args:
        img: (H, W, 3) uint8; bytes under the hole change nothing.
        hole: (H, W) bool, not empty.

    Raises:
        InputError: No patch of 7 x 7 pixels near the hole is known.
    """
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    reach = max(CONTEXT, int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    top, left = max(int(rows[0]) - reach, 0), max(int(columns[0]) - reach, 0)
    part = np.s_[top : int(rows[-1]) + 1 + reach, left : int(columns[-1]) + 1 + reach]
    inside = hole[part]
    levels = [_level(np.where(inside[..., None], np.float32(0), img[part]), inside)]
    if len(levels[0].keys) == 0:
        side = 2 * REACH + 1
        raise InputError(
            f"patch mode needs a known patch of {side} x {side} pixels near the hole, got none in "
            f"{inside.shape[0]} x {inside.shape[1]} pixels; take a smaller hole, or an engine"
        )
    while min(levels[-1].hole.shape) >= 2 * COARSEST:
        coarser = _half(levels[-1])
        if len(coarser.keys) < FEWEST:
            break
        levels.append(coarser)
    return Prepared(top, left, levels)


def complete(prepared: Prepared, seed: int, index: int, temperature: float) -> Float:
    """One result: the finest level with its hole filled, (H, W, 3) float32 levels.

    A function of the picture, its hole, `seed`, `index` and `temperature` alone, to the bit.

    Args:
        prepared: Of the picture.
        seed: 0 to 2**64 - 1.
        index: Which result of the seed, below 2**32.
        temperature: Factor on the noise that results differ by.
    """
    coarsest = prepared.levels[-1]
    noise = kernels.normal(
        np.array([seed], np.uint64), coarsest.known.shape, k=1, first=index, place=_NOISE_PLACE
    )[0, 0]
    filled = _onion(coarsest) + noise * np.float32(NOISE * temperature)
    current = np.where(coarsest.hole[..., None], filled, coarsest.known)
    prices = _prices(coarsest, seed, index, temperature)
    found: Places | None = None
    for number, level in enumerate(reversed(prepared.levels)):
        if found is not None:
            found = _lifted(prepared.levels[-number], level, found)
            current = level.known.copy()
            _vote(level, found, level.trust, current)
        elif len(level.queries) * len(level.keys) > BEGIN:
            # a mesh leaves no keys at half the size
            found = patch_search.any_keys(len(level.queries), level.keys)
        place = _SEARCH_PLACE + number * PASSES[0] * ROUNDS
        for _ in range(PASSES[min(number, len(PASSES) - 1)]):
            pixels = np.zeros((*level.hole.shape, 4), np.int16)
            pixels[..., :3] = np.rint(current).clip(0, 255)
            picture = Picture(pixels, level.weights, level.queries)
            if found is None or len(level.queries) * len(level.keys) <= EXACT:
                first = level is coarsest
                found, distance = patch_search.nearest(
                    picture,
                    level.keys,
                    prices if first else np.ones(len(level.keys)),
                    ALPHA if first else np.inf,
                )
            else:
                radius = min(max(level.hole.shape), 1 << 14)
                to = Search(
                    level.valid, level.query_at, ROUNDS, radius, seed, index, place
                )  # fmt: skip
                found, distance = patch_search.search(picture, to, found)
                place += ROUNDS
            _vote(level, found, level.trust * _nearness(distance), current)
    assert found is not None
    finest = prepared.levels[0]
    near = _nearness(distance)
    ballots = finest.trust, finest.trust * np.square(np.square(near))
    patch_blend.finish(finest.known, finest.hole, finest.query_at, found, ballots, current)
    return current


def _prices(level: Level, seed: int, index: int, temperature: float) -> NDArray[np.float64]:
    """What the keys of a level cost in this result: some parts of the picture more than others."""
    height, width = level.hole.shape
    field = kernels.normal(
        np.array([seed], np.uint64), (1, *FIELD), k=1, first=index, place=_FIELD_PLACE
    )[0, 0]
    rows = resample.taps(FIELD[0], height, "triangle")
    columns = resample.taps(FIELD[1], width, "triangle")
    smooth = np.abs(resample.apply(field, rows, columns)).ravel()[level.keys]
    return np.minimum(1.0 + PRICE * temperature * smooth.astype(np.float64), DEAREST)


def _level(known: Float, hole: Hole) -> Level:
    height, width = hole.shape
    inner = np.zeros(hole.shape, bool)
    inner[REACH : height - REACH, REACH : width - REACH] = True
    touched = _spread(hole.astype(np.float32)) > 0
    queries = np.flatnonzero(touched & inner).astype(np.int32)
    query_at = np.full(hole.shape, -1, np.int32)
    query_at.ravel()[queries] = np.arange(len(queries), dtype=np.int32)
    valid = ~touched & inner
    weights = np.where(hole, 1, KNOWN).astype(np.int16)
    trust = _spread(_depth(hole)).ravel()[queries]
    return Level(
        known=np.ascontiguousarray(known, np.float32),
        hole=np.ascontiguousarray(hole),
        valid=valid,
        keys=np.flatnonzero(valid).astype(np.int32),
        queries=queries,
        query_at=query_at,
        weights=np.repeat(weights[..., None], 4, axis=2),
        trust=trust,
    )


def _half(level: Level) -> Level:
    """Half the size; a place is known where all under it is."""
    height, width = level.hole.shape
    rows = resample.taps(height, (height + 1) // 2, "triangle")
    columns = resample.taps(width, (width + 1) // 2, "triangle")
    known = (~level.hole).astype(np.float32)
    planes = np.concatenate([np.moveaxis(level.known, 2, 0) * known, known[None]])
    total = resample.apply(planes, rows, columns)
    hole = total[3] < np.float32(1 - 1e-5)
    levels = total[:3] / np.maximum(total[3], np.float32(1e-6))
    return _level(np.where(hole[..., None], np.float32(0), np.moveaxis(levels, 0, 2)), hole)


def _spread(values: Float) -> Float:
    """The sum over the 7 x 7 places around each, 0 beyond the border: down, then across."""
    height, width = values.shape
    padded = np.pad(values, REACH)
    down = padded[:height]
    for step in range(1, 2 * REACH + 1):
        down = down + padded[step : step + height]
    total = down[:, :width]
    for step in range(1, 2 * REACH + 1):
        total = total + down[:, step : step + width]
    return total


def _depth(hole: Hole) -> Float:
    """1 where known, then `TRUST` times less a ring deeper in the hole, down to 32 rings."""
    trust = np.ones(hole.shape, np.float32)
    left, factor = hole, np.float32(1)
    for _ in range(32):
        factor = factor / TRUST
        trust[left] = factor
        if not left.any():
            break
        left = left & ~_beside(~left)
    return trust


def _beside(places: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a place or one of its eight neighbours is True."""
    padded = np.pad(places, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def _onion(level: Level) -> Float:
    """The hole filled ring by ring, each place with the mean of its neighbours so far."""
    current, left = level.known.copy(), level.hole
    height, width = left.shape
    while left.any():
        values = np.concatenate([current, np.ones((height, width, 1), np.float32)], axis=2)
        values[left] = 0
        padded = np.pad(values, ((1, 1), (1, 1), (0, 0)))
        total = np.zeros_like(values)
        for dy in range(3):
            for dx in range(3):
                total += padded[dy : dy + height, dx : dx + width]
        ring = left & (total[..., 3] > 0)
        current[ring] = total[ring, :3] / total[ring, 3:]
        left = left & ~ring
    return current


def _lifted(coarse: Level, fine: Level, found: Places) -> Places:
    """Keys for the queries of a finer level: where those of the coarser one lead."""
    height, width = fine.hole.shape
    rows, columns = coarse.hole.shape
    y, x = np.divmod(fine.queries.astype(np.int64), width)
    at_y = (y * rows // height).clip(REACH, rows - REACH - 1)
    at_x = (x * columns // width).clip(REACH, columns - REACH - 1)
    query = coarse.query_at[at_y, at_x]
    key_y, key_x = np.divmod(found[np.maximum(query, 0)].astype(np.int64), columns)
    new_y = y + ((key_y - at_y) * height * 2 + rows) // (2 * rows)
    new_x = x + ((key_x - at_x) * width * 2 + columns) // (2 * columns)
    new_y, new_x = new_y.clip(REACH, height - REACH - 1), new_x.clip(REACH, width - REACH - 1)
    good = (query >= 0) & fine.valid[new_y, new_x]
    # where that is no key: any; search mends it
    other = patch_search.any_keys(len(fine.queries), fine.keys)
    return np.where(good, new_y * width + new_x, other).astype(np.int32)


def _nearness(distance: Places) -> Float:
    """1 / (1 + d / median)^2: what a query's vote counts by how near its key is."""
    middle = len(distance) // 2
    scale = np.float32(np.partition(distance, middle)[middle]) + np.float32(1)
    share = np.float32(1) + distance.astype(np.float32) / scale
    return np.reciprocal(share * share)


def _vote(level: Level, found: Places, weights: Float, current: Float) -> None:
    patch_search.vote(level.known, level.hole, level.query_at, found, weights, current)

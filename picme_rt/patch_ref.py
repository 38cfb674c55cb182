"""The reference of kernels/patches.cpp in NumPy: the same whole numbers and the same bits.

Arguments are those of picme_rt/patch_search.py.
"""

import numpy as np
from numpy.typing import NDArray

from picme_rt.images import Float
from picme_rt.patch_search import REACH, Picture, Places, Search
from picme_rt.sampling_ref import philox4x32_10

_STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0), (0, 4), (0, -4), (4, 0), (-4, 0))
_AT_ONCE = 1 << 16  # distances that are computed together


def nearest(
    picture: Picture, keys: Places, prices: NDArray[np.float64], alpha: float
) -> tuple[Places, Places]:
    """See `patch_search.nearest`."""
    rows = max(1, _AT_ONCE // len(keys))
    parts = [
        _distances(picture, picture.queries[i : i + rows, None], keys[None])
        for i in range(0, len(picture.queries), rows)
    ]
    every = np.concatenate([np.empty((0, len(keys)), np.int32), *parts])
    least = every.min(0, initial=np.iinfo(np.int32).max).astype(np.float64)
    score = prices * every
    if np.isfinite(alpha):
        score = score / (alpha + least)
    at = score.argmin(1)
    return keys[at], np.take_along_axis(every, at[:, None], 1)[:, 0]


def search(picture: Picture, to: Search, start: Places) -> tuple[Places, Places]:
    """See `patch_search.search`."""
    found, best = start.copy(), _distances(picture, picture.queries, start)
    width = picture.pixels.shape[1]
    rows, columns = np.divmod(picture.queries, width)
    for number in range(to.rounds):
        before = found.copy()
        for down, right in _STEPS:
            y, x = rows + down, columns + right
            here = _inside(picture, y, x)
            query = np.where(here, to.query_at.ravel()[np.where(here, y * width + x, 0)], -1)
            key = before[np.maximum(query, 0)]
            y, x = key // width - down, key % width - right
            _look_at(picture, to, found, best, y, x, query >= 0)
        radius, step = to.radius, 0
        words = np.zeros((len(found), 4), np.uint32)
        while radius >= 1:
            if step % 4 == 0:
                words = _words(to, picture.queries, number, step)
            word = words[:, step % 4].astype(np.int64)
            span = 2 * radius + 1
            y = found // width + ((word >> 16) * span >> 16) - radius
            x = found % width + ((word & 0xFFFF) * span >> 16) - radius
            _look_at(picture, to, found, best, y, x, np.ones(len(found), bool))
            radius, step = radius // 2, step + 1
    return found, best


def vote(
    values: Float,
    wanted: NDArray[np.bool_],
    query_at: Places,
    found: Places,
    query_weights: Float,
    out: Float,
) -> None:
    """See `patch_search.vote`."""
    height, width, channels = values.shape
    rows, columns = np.nonzero(wanted)
    sums = np.zeros((len(rows), channels), np.float32)
    total = np.zeros(len(rows), np.float32)
    flat = values.reshape(-1, channels)
    for dy in range(-REACH, REACH + 1):
        for dx in range(-REACH, REACH + 1):
            y, x = rows + dy, columns + dx
            here = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            query = np.where(here, query_at[np.where(here, y, 0), np.where(here, x, 0)], -1)
            at = np.flatnonzero(query >= 0)
            weight = query_weights[query[at]]
            sums[at] += weight[:, None] * flat[found[query[at]] - dy * width - dx]
            total[at] += weight
    said = total > 0
    out[rows[said], columns[said]] = sums[said] / total[said, None]


def _distances(picture: Picture, queries: Places, keys: Places) -> Places:
    """Sum of weight * (query - key)^2 over a patch, for places that broadcast."""
    height, width, lanes = picture.pixels.shape
    pixels = picture.pixels.reshape(height * width, lanes).astype(np.int32)
    weights = picture.weights.reshape(height * width, lanes).astype(np.int32)
    total = np.zeros(np.broadcast_shapes(queries.shape, keys.shape), np.int32)
    for y in range(-REACH, REACH + 1):
        for x in range(-REACH, REACH + 1):
            step = y * width + x
            difference = pixels[queries + step] - pixels[keys + step]
            total += (weights[queries + step] * difference * difference).sum(-1, dtype=np.int32)
    return total


def _inside(
    picture: Picture, y: NDArray[np.signedinteger], x: NDArray[np.signedinteger]
) -> NDArray[np.bool_]:
    height, width, _ = picture.pixels.shape
    here: NDArray[np.bool_] = (
        (y >= REACH) & (y < height - REACH) & (x >= REACH) & (x < width - REACH)
    )
    return here


def _look_at(
    picture: Picture,
    to: Search,
    found: Places,
    best: Places,
    y: NDArray[np.signedinteger],
    x: NDArray[np.signedinteger],
    ask: NDArray[np.bool_],
) -> None:
    """Takes the keys at (y, x) where one is asked for, is valid, and is nearer."""
    width = picture.pixels.shape[1]
    good = ask & _inside(picture, y, x)
    key = np.where(good, y * width + x, REACH * width + REACH)
    good &= to.valid.ravel()[key] & (key != found)
    at = np.flatnonzero(good)
    distance = _distances(picture, picture.queries[at], key[at])
    nearer = distance < best[at]
    found[at[nearer]] = key[at[nearer]]
    best[at[nearer]] = distance[nearer]


def _words(to: Search, queries: Places, number: int, step: int) -> NDArray[np.uint32]:
    """The random words of a round: Philox at (place + round, query, index, radius number)."""
    counter = (
        np.array([(to.place + number) & 0xFFFFFFFF], np.uint64),
        queries.astype(np.uint64),
        np.array([to.index], np.uint64),
        np.array([step], np.uint64),
    )
    key = np.array([to.seed & 0xFFFFFFFF], np.uint64), np.array([to.seed >> 32], np.uint64)
    return philox4x32_10(counter, key)

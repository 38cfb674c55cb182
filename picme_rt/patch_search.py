"""The face of kernels/patches.cpp: nearest patches, PatchMatch, votes; compiled or in NumPy.

A patch is 7 x 7 pixels and named by the flat place of its middle, which is at least `REACH` from
every border. A query touches the hole, a key does not.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt import compiled
from picme_rt.compiled import Impl
from picme_rt.images import Float

REACH = 3
Places = NDArray[np.int32]


class Picture(NamedTuple):
    """A picture as it is now, and its queries.

    Attributes:
        pixels: (H, W, 4) int16: red, green, blue in 0..255, and 0.
        weights: (H, W, 4) int16 in 0..8: what a pixel of a query counts.
        queries: (Q,) int32 places.
    """

    pixels: NDArray[np.int16]
    weights: NDArray[np.int16]
    queries: Places


@dataclasses.dataclass(frozen=True)
class Search:
    """How `search` goes.

    Attributes:
        valid: (H, W) bool, True at the places of keys.
        query_at: (H, W) int32, the number of the query at a place, or -1.
        rounds: How often every query looks at 8 neighbours' keys and at random ones.
        radius: Of the first random one, below 2**15; halved down to 1.
        seed: 0 to 2**64 - 1.
        index: Which result of the seed.
        place: Counter of the first round; each round takes the next.
    """

    valid: NDArray[np.bool_]
    query_at: Places
    rounds: int
    radius: int
    seed: int
    index: int
    place: int


def any_keys(count: int, keys: Places) -> Places:
    """A key for each of `count` queries to begin with, spread over the picture, always the same."""
    return keys[np.arange(count, dtype=np.int64) * 40503 % len(keys)]


def nearest(
    picture: Picture,
    keys: Places,
    prices: NDArray[np.float64],
    alpha: float,
    *,
    impl: Impl = "auto",
) -> tuple[Places, Places]:
    """The key of each query with the least price * d / (alpha + least d of that key to any query).

    GPNN's normalised distance (Granot et al. 2022): keys that no query is near to become cheap, so
    that more of the picture is used; `alpha` = infinity is price * d. d is the weighted sum of
    squared differences; the first of equal keys is taken. `prices` is (K,), 1 or more.

    Returns:
        (Q,) int32 places of keys, and (Q,) int32 their d.
    """
    if module := compiled.find(impl):
        found: tuple[Places, Places] = module.nearest_patches(*picture, keys, prices, alpha)
        return found
    from picme_rt import patch_ref

    return patch_ref.nearest(picture, keys, prices, alpha)


def search(
    picture: Picture, to: Search, start: Places, *, impl: Impl = "auto"
) -> tuple[Places, Places]:
    """PatchMatch (Barnes et al. 2009) from the keys `start`, by d alone; results as `nearest`.

    All queries of a round look at the keys of the round before, so that no order matters.
    """
    if module := compiled.find(impl):
        found: tuple[Places, Places] = module.search_patches(
            *picture,
            to.valid,
            to.query_at,
            start,
            rounds=to.rounds,
            radius=to.radius,
            seed=to.seed,
            index=to.index,
            place=to.place,
        )
        return found
    from picme_rt import patch_ref

    return patch_ref.search(picture, to, start)


def vote(
    values: Float,
    wanted: NDArray[np.bool_],
    query_at: Places,
    found: Places,
    query_weights: Float,
    out: Float,
    *,
    impl: Impl = "auto",
) -> None:
    """Writes, where `wanted`, the weighted mean of what the keys of the covering queries say.

    Args:
        values: (H, W, C) float32, what is voted on.
        wanted: (H, W) bool.
        query_at: As in `Search`.
        found: (Q,) int32 places of keys.
        query_weights: (Q,) float32.
        out: (H, W, C) float32; a place that no query covers stays as it is.
        impl: As for `nearest`.
    """
    if module := compiled.find(impl):
        module.vote_patches(values, wanted, query_at, found, query_weights, out)
        return
    from picme_rt import patch_ref

    patch_ref.vote(values, wanted, query_at, found, query_weights, out)

"""A result at the picture's own size: what a small one lacks is taken from the picture's patches.

The small result is enlarged, and so is the small picture around it. Each enlarged patch that the
hole touches looks for the enlarged known patch that is nearest to it; what the picture has there
beyond its own enlarged copy, the detail, is added. So a result keeps the small one's colours and
shapes, and has the picture's grain and edges.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt import patch_search, resample, seam
from picme_rt.framing import Box
from picme_rt.images import Float, Hole, Image, to_levels
from picme_rt.patch_search import REACH, Picture, Places, Search
from picme_rt.resample import Taps

CONTEXT = (96, 256)  # pixels of known picture around the hole that keys come from: as it is wide
EXACT = 1 << 21  # most pairs of query and key that are compared one by one
ROUNDS = 8  # of PatchMatch, which begins with any keys
SCREEN, STEPS = 0.3, 16  # of the membrane: only grain is left to join, within few pixels


class Detail(NamedTuple):
    """What all results of a picture share; all maps are of the part around the hole.

    Attributes:
        box: The part, in the picture.
        hole: (h, w) bool.
        known: (h, w, 3) float32 levels, the picture; 0 in the hole.
        beyond: (h, w, 3) float32 levels: `known` less its enlarged copy, 0 where that needs places
            of the hole.
        valid: (h, w) bool, the places of keys.
        keys: (K,) int32, the same as places.
        queries: (Q,) int32 places of patches that the hole touches.
        query_at: (h, w) int32, the query's number or -1.
        start: (Q,) int32, the keys that PatchMatch begins with.
        rows: The way from the small picture to the part's rows.
        columns: Likewise.
    """

    box: Box
    hole: Hole
    known: Float
    beyond: Float
    valid: Hole
    keys: Places
    queries: Places
    query_at: Places
    start: Places
    rows: Taps
    columns: Taps


def prepare(img: Image, hole: Hole, small: Float, inside: Hole) -> Detail:
    """Cuts out the hole with its surroundings and finds its patches.

    Args:
        img: (H, W, 3) uint8; bytes under the hole change nothing.
        hole: (H, W) bool, not empty.
        small: (3, h, w) float32 in [-1, 1], the picture at the size that is enlarged.
        inside: (h, w) bool, its hole.
    """
    found = _part(img, hole, small, inside, _around(hole))
    if len(found.keys) == 0:
        found = _part(img, hole, small, inside, Box(0, 0, *hole.shape))
    return found


def enlarge(detail: Detail, small: Float, target: Image) -> None:
    """Writes the pixels of the hole.

    Where the picture has no known patch at all, or the hole reaches into a strip too narrow for
    patches, they stay as smooth as they were enlarged.

    Args:
        detail: Of the picture.
        small: (3, h, w) float32 in [-1, 1], the picture with its hole filled.
        target: (H, W, 3) uint8.
    """
    smooth = _enlarged(small, detail.rows, detail.columns)
    added = np.zeros_like(smooth)
    if len(detail.keys) and len(detail.queries):
        found, distance = _search(detail, smooth)
        near = np.square(np.square(_nearness(distance)))
        patch_search.vote(detail.beyond, _grown(detail.hole), detail.query_at, found, near, added)
    made = smooth + added
    missed = np.moveaxis(detail.known - made, 2, 0)
    made += np.moveaxis(seam.spread(missed, detail.hole, screen=SCREEN, steps=STEPS), 0, 2)
    part = target[detail.box.top : detail.box.bottom, detail.box.left : detail.box.right]
    part[detail.hole] = np.rint(made[detail.hole]).clip(0, 255).astype(np.uint8)


def _search(detail: Detail, smooth: Float) -> tuple[Places, Places]:
    pixels = np.zeros((*detail.hole.shape, 4), np.int16)
    pixels[..., :3] = np.rint(smooth).clip(0, 255)
    picture = Picture(pixels, np.ones_like(pixels), detail.queries)
    if len(detail.queries) * len(detail.keys) <= EXACT:
        return patch_search.nearest(picture, detail.keys, np.ones(len(detail.keys)), np.inf)
    radius = min(max(detail.hole.shape), 1 << 14)
    to = Search(detail.valid, detail.query_at, ROUNDS, radius, 0, 0, 1)
    return patch_search.search(picture, to, detail.start)


def _nearness(distance: Places) -> Float:
    """1 / (1 + d / median), squared: what a query's vote counts by how near its key is."""
    middle = len(distance) // 2
    scale = np.float32(np.partition(distance, middle)[middle]) + np.float32(1)
    share = np.float32(1) + distance.astype(np.float32) / scale
    return np.reciprocal(share * share)


def _around(hole: Hole) -> Box:
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    wide = max(int(np.ptp(rows)), int(np.ptp(columns))) + 1
    reach = min(max(wide, CONTEXT[0]), CONTEXT[1])
    return Box(
        max(int(rows[0]) - reach, 0),
        max(int(columns[0]) - reach, 0),
        min(int(rows[-1]) + 1 + reach, hole.shape[0]),
        min(int(columns[-1]) + 1 + reach, hole.shape[1]),
    )


def _part(img: Image, hole: Hole, small: Float, inside: Hole, box: Box) -> Detail:
    part = np.s_[box.top : box.bottom, box.left : box.right]
    here = np.ascontiguousarray(hole[part])
    up = [resample.taps(a, b, "cubic") for a, b in zip(inside.shape, hole.shape, strict=True)]
    rows, columns = up[0].part(box.top, box.bottom), up[1].part(box.left, box.right)
    known = np.where(here[..., None], np.float32(0), img[part].astype(np.float32))
    # a pixel whose enlarged copy is made of places in the hole says nothing about detail
    parts = (taps._replace(weights=np.abs(taps.weights)) for taps in (rows, columns))
    made_up = here | (resample.apply(inside[None].astype(np.float32), *parts)[0] > 0)
    beyond = (known - _enlarged(small, rows, columns)) * ~made_up[..., None]
    inner = np.zeros(here.shape, bool)
    inner[REACH : here.shape[0] - REACH, REACH : here.shape[1] - REACH] = True
    queries = np.flatnonzero(_touched(here) & inner).astype(np.int32)
    query_at = np.full(here.shape, -1, np.int32)
    query_at.ravel()[queries] = np.arange(len(queries), dtype=np.int32)
    valid = ~_touched(made_up) & inner
    keys = np.flatnonzero(valid).astype(np.int32)
    start = patch_search.any_keys(len(queries), keys) if len(keys) else queries
    return Detail(
        box, here, known, beyond.astype(np.float32), valid, keys, queries, query_at, start,
        rows, columns,
    )  # fmt: skip


def _enlarged(small: Float, rows: Taps, columns: Taps) -> Float:
    """(3, h, w) in [-1, 1] to (H, W, 3) levels."""
    return np.ascontiguousarray(np.moveaxis(to_levels(resample.apply(small, rows, columns)), 0, 2))


def _touched(places: Hole) -> Hole:
    """Whether a place of the 7 x 7 around each is True."""
    for _ in range(REACH):
        places = _grown(places)
    return places


def _grown(places: Hole) -> NDArray[np.bool_]:
    """Whether a place or one of its eight neighbours is True."""
    padded = np.pad(places, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]

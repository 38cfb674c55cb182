"""Completions of patches that differ: what the coarsest scale's noise chooses among.

Left alone, patch completions of a picture differ little: the same patches are the best each time.
So many are made, each without a random half of the picture to take patches from, and most of them
are worse. The more plausible half are those whose patches agree where they overlap: where they do
not, the result is a smudge. Of these the most different are kept, and where their patches agree
least a disc is filled again, from the whole picture, as long as that makes it better.
"""

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from picme_rt import patch, patch_search, resample
from picme_rt.images import Float, Hole, Image
from picme_rt.patch import Level as PatchLevel
from picme_rt.patch import Prepared
from picme_rt.patch_search import Picture
from picme_training.internal.pyramid import Level

Pixels = TypeVar("Pixels", Image, Hole)

MADE, PLAUSIBLE = 6, 3  # completions for each that is kept: made, and looked at for difference
REPAIRS = 4  # discs that are filled again, most
RADIUS = 0.6  # of a disc, of that which is as large as the hole
TAKEN = 0.5  # of the picture's patches, in one completion
FIELD = (4, 8)  # places of the field that says which, over the picture and its mirror image
FEWEST = 60  # keys of a level, below which all are taken
PAIRS = 1 << 25  # of patches, compared one by one


def choose(level: Level, count: int, seed: int) -> Tensor:
    """Different completions, (count, 3, h, w) float32 in [-1, 1], the most plausible one first.

    Args:
        level: The picture; what is under its hole is not read.
        count: 2 or more.
        seed: Of all that is random in them.

    Raises:
        InputError: No patch near the hole is known.
    """
    random = np.random.default_rng(seed)
    found, hole = mirrored(level)
    part = patch.prepare(found, hole)
    made, scores = [], []
    for one in range(MADE * count):
        filled = patch.complete(narrowed(part, random), seed + one, 0, 1.0)
        made.append(pasted(found, hole, part, filled))
        scores.append(disagreement(part, made[-1])[hole].mean())
    good = np.stack(made)[np.argsort(scores, kind="stable")[: PLAUSIBLE * count]]
    kept = good[farthest(good[:, hole].reshape(len(good), -1).astype(np.float32), count)]
    better = np.stack([repaired(one, hole, part, seed) for one in kept])[
        :, :, : level.hole.shape[1]
    ]
    return torch.from_numpy(np.moveaxis(better, 3, 1) / np.float32(127.5) - np.float32(1))


def repaired(made: Image, hole: Hole, part: Prepared, seed: int) -> Image:
    """The same, with discs filled again where patches agree least.

    Args:
        made: (H, W, 3) uint8, a completion of the picture and its mirror image.
        hole: (H, W) bool, of both.
        part: Of both.
        seed: Of what is random.
    """
    height, width = hole.shape[0], hole.shape[1] // 2
    rows, columns = np.ogrid[:height, :width]
    radius = RADIUS * np.sqrt(hole.sum() / 2 / np.pi)
    score = disagreement(part, made)
    for one in range(REPAIRS):
        worst = np.where(hole, smooth(score, int(radius)), -1)[:, :width]
        y, x = divmod(int(worst.argmax()), width)
        inside = hole[:, :width] & ((rows - y) ** 2 + (columns - x) ** 2 < radius**2)
        where = doubled(inside)
        given = patch.prepare(made, where)
        again = pasted(made, where, given, patch.complete(given, seed + one, 1, 1.0))
        new = disagreement(part, again)
        if new.sum() < score.sum():
            made, score = again, new
        else:
            break
    return made


def mirrored(level: Level) -> tuple[Image, Hole]:
    """The picture and, right of it, its mirror image: a rim's other side goes the other way."""
    levels = np.rint((np.moveaxis(level.known, 0, 2) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return doubled(levels), doubled(level.hole)


def doubled(left: Pixels) -> Pixels:
    """Rows that go on with their mirror image."""
    return np.concatenate([left, left[:, ::-1]], axis=1)


def pasted(found: Image, hole: Hole, part: Prepared, filled: Float) -> Image:
    """The picture and its mirror image, the hole filled; the right one's that of the left one."""
    whole = found.copy()
    height, width = filled.shape[:2]
    box = np.s_[part.top : part.top + height, part.left : part.left + width]
    levels = np.rint(filled).clip(0, 255).astype(np.uint8)
    whole[box] = np.where(hole[box][..., None], levels, whole[box])
    return doubled(whole[:, : found.shape[1] // 2])


def narrowed(part: Prepared, random: np.random.Generator) -> Prepared:
    """The same without some of its keys: those of regions where a smooth random field is high."""
    field = random.standard_normal((1, *FIELD), np.float32)
    levels: list[PatchLevel] = []
    highest = np.inf
    for level in part.levels:
        high = resized(field, level.hole.shape)[0]
        if not levels:
            highest = np.quantile(high[level.valid], TAKEN)
        valid = level.valid & (high <= highest)
        enough = valid.sum() >= FEWEST
        keys = np.flatnonzero(valid).astype(np.int32)
        levels.append(level._replace(valid=valid, keys=keys) if enough else level)
    return part._replace(levels=levels)


def disagreement(part: Prepared, picture: Image) -> Float:
    """The standard deviation of what overlapping patches say, in levels, (H, W); 0 where known.

    Looked at where all pairs of patches are few enough to compare.

    Args:
        part: Of the picture and its mirror image.
        picture: (H, W, 3), the same, filled.
    """
    finest = part.levels[0].hole.shape
    box = np.s_[part.top : part.top + finest[0], part.left : part.left + finest[1]]
    few = [one for one in part.levels if len(one.queries) * len(one.keys) <= PAIRS]
    level = few[0] if few else part.levels[-1]
    filled = np.moveaxis(picture[box], 2, 0).astype(np.float32)
    pixels = np.zeros((*level.hole.shape, 4), np.int16)
    pixels[..., :3] = np.rint(np.moveaxis(resized(filled, level.hole.shape), 0, 2)).clip(0, 255)
    seen = Picture(pixels, np.ones_like(pixels), level.queries)
    nearest, _ = patch_search.nearest(seen, level.keys, np.ones(len(level.keys)), np.inf)
    squares = np.square(level.known).sum(axis=2, keepdims=True)
    values = np.concatenate([level.known, squares], axis=2)
    means = np.zeros_like(values)
    equal = np.ones(len(level.queries), np.float32)
    patch_search.vote(values, level.hole, level.query_at, nearest, equal, means)
    variance = (means[..., 3] - np.square(means[..., :3]).sum(axis=2)).clip(0)
    found = np.zeros(picture.shape[:2], np.float32)
    found[box] = resized(np.sqrt(variance)[None], finest)[0]
    return found


def resized(planes: Float, shape: tuple[int, ...]) -> Float:
    """Planes (C, h, w) at another size."""
    rows, columns = (
        resample.taps(a, b, "triangle") for a, b in zip(planes.shape[1:], shape, strict=True)
    )
    return resample.apply(planes, rows, columns)


def smooth(values: Float, radius: int) -> Float:
    """The sum over a square around each place, 0 beyond the border."""
    total = np.pad(values, ((radius + 1, radius), (radius + 1, radius))).cumsum(0).cumsum(1)
    side = 2 * radius + 1
    down = total[side:] - total[:-side]
    return down[:, side:] - down[:, :-side]


def farthest(points: Float, count: int) -> NDArray[np.intp]:
    """Rows of `points` (n, d): the first, and again and again the farthest from all so far."""
    kept = [0]
    least = np.full(len(points), np.inf)
    while len(kept) < count:
        least = np.minimum(least, np.square(points - points[kept[-1]]).sum(axis=1))
        kept.append(int(least.argmax()))
    return np.sort(np.array(kept))

"""The sheet: the masked picture and its k results on one picture, to be judged at a glance."""

import math
from collections.abc import Iterable

import numpy as np

from picme_rt.images import Hole, Image

GAP = 8
COLUMNS = 4
TILES = 100  # the masked picture and the first 99 results: nobody judges more at a glance
PAGE_PIXELS = 1 << 26  # of all tiles; larger pictures are shown reduced
HOLE_GREY = 128


def sheet(img: Image, hole: Hole, results: Iterable[Image], k: int) -> Image:
    """The masked input and the results in a grid, read from left to right.

    All results are taken from the iterable; those after the first `TILES` - 1 are not shown. Only
    tiles are kept, so that memory is flat for results that are made one by one.

    Args:
        img: (H, W, 3) uint8, the original.
        hole: (H, W) bool; shown grey in the first tile.
        results: k pictures (H, W, 3) uint8.
        k: Their number.

    Returns:
        (h, w, 3) uint8 on white; tiles are reduced by a whole factor where the pictures are so
        large that the page would have more than about `PAGE_PIXELS`.
    """
    masked = img.copy()
    masked[hole] = HOLE_GREY
    count = min(k + 1, TILES)
    factor = math.ceil(math.sqrt(count * img.shape[0] * img.shape[1] / PAGE_PIXELS))
    tiles = [_reduced(masked, factor)]
    for result in results:
        if len(tiles) < TILES:
            tiles.append(_reduced(result, factor))
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    tall, wide = tiles[0].shape[:2]
    height, width = tall + GAP, wide + GAP
    page = np.full((rows * height + GAP, columns * width + GAP, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        top, left = row * height + GAP, column * width + GAP
        page[top : top + tall, left : left + wide] = tile
    return page


def _reduced(picture: Image, factor: int) -> Image:
    """Every factor-th row and column: coarse, but only the largest pictures come here."""
    return picture[::factor, ::factor]

"""The sheet: the masked picture and its k results on one picture, to be judged at a glance."""

import math

import numpy as np

from picme_rt.images import Hole, Image

GAP = 8
COLUMNS = 4
HOLE_GREY = 128


def sheet(img: Image, hole: Hole, results: Image) -> Image:
    """The masked input and the results in a grid, read from left to right.

    Args:
        img: (H, W, 3) uint8, the original.
        hole: (H, W) bool; shown grey in the first tile.
        results: (k, H, W, 3) uint8.

    Returns:
        (h, w, 3) uint8 on white.
    """
    masked = img.copy()
    masked[hole] = HOLE_GREY
    tiles = [masked, *results]
    columns = min(COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    height, width = img.shape[0] + GAP, img.shape[1] + GAP
    page = np.full((rows * height + GAP, columns * width + GAP, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        top, left = row * height + GAP, column * width + GAP
        page[top : top + img.shape[0], left : left + img.shape[1]] = tile
    return page

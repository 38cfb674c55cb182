"""The sizes of one picture, and the picture and its hole at each of them.

Resizing is X -> W_h X W_w' with two constant matrices: exact sizes, on any device, two products in
an exported graph. No byte under the hole is read, and a hole grows where the picture shrinks: a
place is known where every pixel that it is made of is.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from picme_rt.errors import InputError
from picme_rt.images import Float, Hole, Image
from picme_rt.resample import matrix

COARSEST = 25  # pixels of the coarsest scale's shorter side
RATIO = 0.75  # of a scale to the next, about


class Level(NamedTuple):
    """The picture at one size.

    Attributes:
        known: (3, h, w) float32 in [-1, 1]; 0 in the hole.
        hole: (h, w) bool.
    """

    known: Float
    hole: Hole


def sizes(height: int, width: int, longest: int) -> list[tuple[int, int]]:
    """(h, w) of every scale, the coarsest first.

    The finest has the picture's size, or `longest` pixels on its longer side where that is less.

    Raises:
        InputError: The shorter side of the finest would have fewer than `COARSEST` pixels.
    """
    shrink = min(1.0, longest / max(height, width))
    shorter = round(min(height, width) * shrink)
    if shorter < COARSEST:
        raise InputError(
            f"a picture must have at least {COARSEST} pixels on its shorter side to be learnt "
            f"from, got {height} x {width} brought to {longest} on the longer one; take a larger "
            "or a less narrow picture, or a larger --size"
        )
    finest = [round(side * shrink) for side in (height, width)]
    if shorter == COARSEST:
        return [(finest[0], finest[1])]
    steps = math.ceil(math.log(COARSEST / shorter) / math.log(RATIO)) + 1
    factors = [(COARSEST / shorter) ** (1 - n / steps) for n in range(steps + 1)]
    return [(round(finest[0] * factor), round(finest[1] * factor)) for factor in factors]


def level(img: Image, hole: Hole, size: tuple[int, int]) -> Level:
    """A picture and its hole at a size; bytes under the hole change nothing.

    Args:
        img: (H, W, 3) uint8.
        hole: (H, W) bool.
        size: (h, w), no larger than the picture's.
    """
    rows, columns = (
        matrix(a, b, "triangle").astype(np.float64) for a, b in zip(hole.shape, size, strict=True)
    )
    touched = rows @ hole @ columns.T > 0  # weights of this kernel are not negative
    planes = np.where(hole, 0, np.moveaxis(img, 2, 0) / 127.5 - 1)
    known = (rows @ planes @ columns.T).astype(np.float32)
    return Level(np.where(touched, np.float32(0), known), touched)


def upscaling(size: tuple[int, int], target: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """W_h (H, h) and W_w (W, w), float32: how a result of one scale enters the next (cubic)."""
    rows, columns = (matrix(a, b, "cubic") for a, b in zip(size, target, strict=True))
    return torch.from_numpy(rows.copy()), torch.from_numpy(columns.copy())


def resized(x: Tensor, matrices: tuple[Tensor, Tensor]) -> Tensor:
    """(..., h, w) to (..., H, W): W_h x W_w'."""
    rows, columns = matrices
    return rows @ x @ columns.T

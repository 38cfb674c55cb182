"""The weave of a pixel-shuffle: what repeats from cell to cell of the map that it unfolds.

A decoder makes r x r pixels from each place of its last map. Where it has nothing to say about
them, losses that like texture have it say the same everywhere: a weave of period r. In the mean of
neighbouring cells detail fades and a weave stays; what is smooth there is the picture's own.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def woven(x: Tensor, ratio: int) -> Tensor:
    """The part of a map before its pixel-shuffle that repeats over 3 x 3 cells.

    Args:
        x: (B, C r r, h, w); the pixels of a cell are channels, as `pixel_shuffle` takes them.
        ratio: r.

    Returns:
        As `x`: each cell's mean over the 3 x 3 around it, less what bilinear interpolation makes of
        the colours of these means, so that flat places and slopes give 0.
    """
    mean = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
    colours = F.avg_pool2d(F.pixel_shuffle(mean, ratio), ratio)
    slopes = F.interpolate(
        F.pad(colours, (1, 1, 1, 1), mode="replicate"),
        scale_factor=float(ratio),
        mode="bilinear",
        align_corners=False,
    )
    inner = slopes[:, :, ratio:-ratio, ratio:-ratio]
    return mean - F.pixel_unshuffle(inner, ratio)


def strength(pictures: Tensor, hole: Tensor, ratio: int) -> Tensor:
    """The mean magnitude of a weave in the hole, in levels of 255, as a scalar.

    Args:
        pictures: (B, 3, S, S) in [-1, 1].
        hole: (B, 1, S, S), 1 in the hole.
        ratio: Period that is looked for, a divisor of S.
    """
    found = F.pixel_shuffle(woven(F.pixel_unshuffle(pictures, ratio), ratio), ratio)
    inside = torch.broadcast_to(hole, found.shape)
    return 127.5 * (found.abs() * inside).sum() / inside.sum()

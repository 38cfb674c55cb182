"""Weights of `cats` at one size as the beginning of a run at a larger one.

A network of 64x64 learns what a cat is for half the arithmetic of one of 128x128. The larger one
then begins as the smaller one exactly: its encoder sees the means of r x r pixels, its decoder
repeats each pixel r x r times, its discriminator looks at one pixel of r x r (a mean would have
another spectral norm), and what is new adds nothing yet. One of 256x256 holds back what the pixels
of the smaller one's cells have for good against one another (`compact.EvenShuffle`).
"""

import math

import torch
from torch import Tensor

from picme_rt.errors import InputError
from picme_training.config import NetworkConfig

_JUDGE = "layers.0.parametrizations.weight."
_ADDED = ("decoder.fine.conv2", "decoder.detail", "encoder.block64.conv2")
"""What is added to a map: nothing, at first."""
_COLOURS = ("decoder.colours.weight", "decoder.colours.bias")


def check(small: NetworkConfig, large: NetworkConfig) -> None:
    """Refuses networks of which one does not grow into the other.

    Raises:
        InputError: They are neither equal nor two of `cats` that differ in size, judge_hole and
            judge_features alone, or in `detail` and `push_pull`, which only grow.
    """
    same = (small.primitives, small.mask_channel) == (large.primitives, large.mask_channel)
    cats = small.preset == large.preset == "cats"
    gone = small.size > large.size or (small.judge_hole and not large.judge_hole)
    gone = gone or (small.detail and not large.detail)
    gone = gone or (small.push_pull and not large.push_pull)
    if small != large and (gone or not (same and cats)):
        raise InputError(
            "a run starts from the weights of its own network, or of a smaller one of preset cats "
            f"with the same primitives and mask_channel, got {small} for {large}"
        )


def grown(stored: dict[str, Tensor], fresh: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a larger network, or discriminator, that begins as a smaller one.

    Args:
        stored: The smaller network's state.
        fresh: The larger network's own, freshly drawn; gives shapes, and what the smaller lacks.
    """
    made = {}
    for name, own in fresh.items():
        old = stored.get(name)
        if old is None:
            made[name] = torch.zeros_like(own) if name.startswith(_ADDED) else own
        elif old.shape == own.shape:
            made[name] = old
        elif name == "encoder.enter.weight":
            made[name] = _means(old, own)
        elif name == "encoder.detail.weight":
            means = _means(old, own)
            made[name] = torch.zeros_like(own)
            made[name][:, : means.shape[1]] = means  # not the smooth filling, if it is new
        elif name == _JUDGE + "original":
            made[name] = _picked(old, own)
        elif name == _JUDGE + "0._v":  # of (C u u, 3, 3), flat
            kernel = (1, -1, 3, 3)
            made[name] = _picked(old.view(kernel), own.view(kernel)).flatten()
        elif name in _COLOURS:
            made[name] = _repeated(old, own)
        else:  # decoder.grow: a few channels more
            made[name] = own.clone()
            made[name][: len(old)] = old
    return made


def _unshuffled(old: Tensor, own: Tensor) -> tuple[Tensor, int, int]:
    """(O, C, u, u, h, w) of a convolution on pixel-unshuffled channels, and the larger C and u."""
    small, large = _unshuffle(old.shape[1]), _unshuffle(own.shape[1])
    channels = own.shape[1] // large**2
    return old.view(len(old), -1, small, small, *old.shape[2:]), channels, large


def _unshuffle(channels: int) -> int:
    """u, a power of two, of 3 u u or 4 u u channels."""
    return 2 ** int(math.log2(channels / 3) / 2)


def _means(old: Tensor, own: Tensor) -> Tensor:
    wide, _, large = _unshuffled(old, own)
    ratio = large // wide.shape[2]
    wide = wide.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3)
    return wide.flatten(1, 3) / ratio**2


def _picked(old: Tensor, own: Tensor) -> Tensor:
    narrow, channels, large = _unshuffled(old, own)
    ratio = large // narrow.shape[2]
    made = torch.zeros_like(own).view(len(own), channels, large, large, *own.shape[2:])
    made[:, : narrow.shape[1], ::ratio, ::ratio] = narrow  # not the hole, if it is new
    return made.flatten(1, 3)


def _repeated(old: Tensor, own: Tensor) -> Tensor:
    """Weight (3 s s, C, h, w), or bias, of the convolution before a pixel-shuffle."""
    small, large = (int((len(one) / 3) ** 0.5) for one in (old, own))
    wide = old.view(3, small, small, *old.shape[1:])
    wide = wide.repeat_interleave(large // small, 1).repeat_interleave(large // small, 2)
    wide = wide.flatten(0, 2)
    made = torch.zeros_like(own)
    made[(slice(None), *(slice(side) for side in wide.shape[1:]))] = wide
    return made

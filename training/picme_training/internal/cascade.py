"""Trained scales, frozen: from noise to pictures, from the coarsest scale to the finest."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from picme_training.internal.masked import renewed
from picme_training.internal.pyramid import resized
from picme_training.internal.stack import REACH, Stack
from picme_training.norms import EPSILON, SLOPE

SHARPNESS = 12.0  # of a choice: 0 is the mean of all, infinity one alone

Statistics = list[tuple[Tensor, Tensor]]
"""Mean and variance (C,) of each norm."""


class Frozen(NamedTuple):
    """A scale's generator as it is used once it is trained: batch norm folded.

    Attributes:
        weights: Five (out, in, 3, 3).
        biases: Five (out,).
        amplitude: (), what its noise is multiplied by.
        fixed: (1, c, h + 10, w + 10), z*, the noise of the reconstruction; c is 1 at the coarsest
            scale, whose noise is the same in all channels, else 3.
        depth: (1, 1, h + 10, w + 10), pixels from the known ones (`masked.depth`).
        rows: (h, h'), from the rows of the scale before; (h, 0) at the coarsest.
        columns: (w, w'), likewise.
        open: (1, 1, h', w'), where the scale before enters: 1 everywhere, or in its hole alone.
        kept: (1, 3, h', w'), what enters elsewhere: the picture's known pixels, 0 where open.
        chooser: ((h + 10) (w + 10), n), how the coarsest scale's noise chooses what it begins with.
        bank: (n, 3, h, w), what it chooses from; n is 0 where it begins with 0.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    amplitude: Tensor
    fixed: Tensor
    depth: Tensor
    rows: Tensor
    columns: Tensor
    open: Tensor
    kept: Tensor
    chooser: Tensor
    bank: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return len(self.rows), len(self.columns)

    def to(self, device: torch.device | str) -> "Frozen":
        """The same there."""
        moved = [[part.to(device) for part in parts] for parts in (self.weights, self.biases)]
        return Frozen(moved[0], moved[1], *(part.to(device) for part in self[2:]))


def fold(stack: Stack, statistics: Statistics) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of five convolutions that do what the stack does with these statistics."""
    weights, biases = [], []
    for weight, gamma, beta, (mean, variance) in zip(
        stack.weights[:-1], stack.gammas, stack.betas, statistics, strict=True
    ):
        scale = gamma.flatten() * torch.rsqrt(variance + EPSILON)
        weights.append(weight * scale[:, None, None, None])
        biases.append(beta.flatten() - mean * scale)
    return [*weights, stack.weights[-1].clone()], [*biases, stack.bias.clone()]


def entering(previous: Tensor, noise: Tensor, amplitude: Tensor) -> Tensor:
    """What a generator takes: its noise, and the scale before padded with 0."""
    return F.pad(previous, [REACH] * 4) + noise * amplitude


def shares(scale: Frozen, noise: Tensor) -> Tensor:
    """How much of each in its bank noise (B, 1, h + 10, w + 10) chooses, (B, n), sum 1."""
    return torch.softmax(noise.flatten(1) @ scale.chooser * SHARPNESS, 1)


def begun(scale: Frozen, before: Tensor | None, noise: Tensor) -> Tensor:
    """What a scale begins with, (B, 3, h, w).

    The scale before at this one's size; at the coarsest what noise chooses, or 0.
    """
    if before is None:
        if len(scale.bank) == 0:
            return scale.fixed.new_zeros(len(noise), 3, *scale.size)
        return (shares(scale, noise) @ scale.bank.flatten(1)).view(-1, 3, *scale.size)
    return resized(before * scale.open + scale.kept, (scale.rows, scale.columns))


def generate(scale: Frozen, before: Tensor | None, noise: Tensor) -> Tensor:
    """One scale's result (B, 3, h, w), from the scale before and noise (B, c, h + 10, w + 10)."""
    previous = begun(scale, before, noise)
    x = entering(previous, noise, scale.amplitude)
    x = x.contiguous(memory_format=torch.channels_last)
    for weight, bias in zip(scale.weights[:-1], scale.biases[:-1], strict=True):
        x = F.leaky_relu(F.conv2d(x, weight, bias), SLOPE)
    return torch.tanh(F.conv2d(x, scale.weights[-1], scale.biases[-1])) + previous


def draw(scales: Sequence[Frozen], generator: torch.Generator, batch: int) -> list[Tensor]:
    """Normal noise for every scale, (B, c, h + 10, w + 10)."""
    return [
        torch.randn(batch, *scale.fixed.shape[1:], generator=generator, device=scale.fixed.device)
        for scale in scales
    ]


def through(scales: Sequence[Frozen], noises: Sequence[Tensor]) -> Tensor | None:
    """The picture of these noises, one a scale; None of no scale."""
    found = None
    for scale, noise in zip(scales, noises, strict=True):
        found = generate(scale, found, noise)
    return found


def mixed(scale: Frozen, noise: Tensor, erosion: Tensor | None) -> Tensor:
    """The noise deeper in the hole than `erosion` pixels, the fixed one elsewhere."""
    if erosion is None:
        return noise
    return scale.fixed + renewed(scale.depth, erosion) * (noise - scale.fixed)


def reconstruct(scales: Sequence[Frozen]) -> Tensor | None:
    """The picture of the fixed noises; None of no scale."""
    return through(scales, [scale.fixed for scale in scales])


def sample(scales: Sequence[Frozen], noises: Sequence[Tensor], erosion: Tensor) -> Tensor:
    """Completions (B, 3, H, W) in [-1, 1]: new noise deep in the hole, the fixed one elsewhere.

    Known pixels are the reconstruction's, near the hole's border a little off: whoever shows a
    completion pastes the picture's own over them.

    Args:
        scales: The pyramid.
        noises: For each scale (B, c, h + 10, w + 10), normal.
        erosion: (), pixels that the hole is eroded by at every scale: 7 low, 4 mid, 0 high.
    """
    mixtures = [mixed(one, noise, erosion) for one, noise in zip(scales, noises, strict=True)]
    found = through(scales, mixtures)
    assert found is not None  # a pyramid has a scale
    return found.clamp(-1, 1)

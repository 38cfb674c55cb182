"""Five 3 x 3 convolutions without padding: conv, batch norm, LeakyReLU(0.2) four times, and a conv.

Both networks of a scale are such a stack. Forward and backward are written out: no graph is
recorded, pictures go through together (norms.py keeps their statistics apart), and each pass over a
map is one that is needed.

Maps are (B, C, h, w) with channels last in memory, in which convolutions are fastest.

Convolutions may run in bfloat16: the maps that enter them, there and back, are then of that kind;
norms, sums and parameters stay float32.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn import grad

from picme_training import norms
from picme_training.norms import Deltas, Norm, Normed

BLOCKS = 5
REACH = BLOCKS  # pixels that a map loses on each side
STD = 0.02  # of initial weights


class Stack:
    """The parameters of one network, all views of one flat tensor, and their gradient likewise.

    A bias before a batch norm would change nothing: the normed convolutions have none.

    Attributes:
        flat: (n,) float32.
        gradient: (n,) float32.
        weights: BLOCKS tensors (out, in, 3, 3), channels last in memory.
        gammas: BLOCKS - 1 tensors (1, 1, C).
        betas: Likewise.
        bias: (outputs,) of the last convolution.
        gradients: The same views of `gradient`.
        dtype: Of the convolutions.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.width, self.outputs, self.dtype = width, outputs, dtype
        channels = [3, *[width] * (BLOCKS - 1), outputs]
        shapes = [
            *((b, 3, 3, a) for a, b in itertools.pairwise(channels)),
            *[(1, 1, width)] * (2 * (BLOCKS - 1)),
            (outputs,),
        ]
        counts = [torch.Size(shape).numel() for shape in shapes]
        self.flat = torch.zeros(sum(counts), device=device)
        self.gradient = torch.zeros_like(self.flat)
        of = [
            [
                part.view(shape)
                for part, shape in zip(torch.split(whole, counts), shapes, strict=True)
            ]
            for whole in (self.flat, self.gradient)
        ]
        norms = BLOCKS - 1
        parts, self.gradients = (
            Parts(
                [weight.permute(0, 3, 1, 2) for weight in p[:BLOCKS]],
                p[BLOCKS : BLOCKS + norms],
                p[BLOCKS + norms : -1],
                p[-1:],
            )
            for p in of
        )
        self.weights, self.gammas, self.betas, (self.bias,) = parts

    def initialise(self, generator: torch.Generator) -> None:
        """Weights and biases from N(0, 0.02), gammas from N(1, 0.02), betas 0."""
        drawn = torch.randn(len(self.flat), generator=generator) * STD
        self.flat.copy_(drawn)
        for gamma, beta in zip(self.gammas, self.betas, strict=True):
            gamma += 1
            beta.zero_()

    def norms(self, shares: list[Tensor]) -> list[Norm]:
        """Its norms, whose places have these weights."""
        return [Norm(*parts) for parts in zip(shares, self.gammas, self.betas, strict=True)]


class Parts(NamedTuple):
    """The views of a flat tensor."""

    weights: list[Tensor]
    gammas: list[Tensor]
    betas: list[Tensor]
    bias: list[Tensor]


def forward(stack: Stack, x: Tensor, shares: list[Tensor]) -> tuple[Tensor, list[Normed]]:
    """(B, 3, H, W) to (B, outputs, H - 10, W - 10), and what was kept.

    Args:
        stack: The network.
        x: Pictures.
        shares: For each norm the weights of its places in mean and variance, (B, 1, h w), or
            (1, 1, h w) for all, with sum 1 for each picture.
    """
    kept = []
    x = x.to(stack.dtype, memory_format=torch.channels_last)
    for weight, norm in zip(stack.weights[:-1], stack.norms(shares), strict=True):
        kept.append(norms.forward(x, onward(x, weight), norm))
        x = kept[-1].y
    return onward(x, stack.weights[-1]).float() + stack.bias[:, None, None], kept


def backward(
    stack: Stack, kept: list[Normed], shares: list[Tensor], seed: Tensor, *, keep: bool = False
) -> list[Deltas]:
    """The gradients of sum(seed * output) for every block, the first block's first.

    Args:
        stack: The network.
        kept: Of `forward`.
        shares: Of `forward`.
        seed: (B, outputs, H - 10, W - 10).
        keep: Keep `Deltas.gradient`; else what follows takes its memory.
    """
    found: list[Deltas] = []
    gradient = back(seed.to(stack.dtype), stack.weights[-1])
    for place, norm in reversed(list(enumerate(stack.norms(shares)))):
        one = kept[place]
        sums = torch.empty_like(one.mean), torch.empty_like(one.mean)
        to = torch.empty_like(gradient) if keep else gradient
        found.append(norms.backward(one, norm, gradient, into=Deltas(to, gradient, *sums)))
        if place > 0:
            gradient = back(to, stack.weights[place])
    return found[::-1]


def onward(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution of a map, in the map's kind of numbers."""
    return F.conv2d(x, weight.to(x.dtype))


def back(gradient: Tensor, weight: Tensor) -> Tensor:
    """A convolution's way back: the gradient for its input from that for its result."""
    return F.conv_transpose2d(gradient, weight.to(gradient.dtype))


def weight_gradient(x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """The gradient for a convolution's weight, from its input and the gradient for its result."""
    found: Tensor = grad.conv2d_weight(x, weight.shape, gradient)  # type: ignore[no-untyped-call]  # torch's own
    return found


def write_gradient(stack: Stack, kept: list[Normed], deltas: list[Deltas], seed: Tensor) -> None:
    """Sets `stack.gradient` to that of sum(seed * output), the pictures' together."""
    into = stack.gradients
    for place, (one, delta) in enumerate(zip(kept, deltas, strict=True)):
        into.weights[place].copy_(weight_gradient(one.x, stack.weights[place], delta.before_norm))
        into.gammas[place].copy_((delta.along * one.inverse).sum(0, keepdim=True))
        into.betas[place].copy_(delta.total.sum(0, keepdim=True))
    last = weight_gradient(kept[-1].y, stack.weights[-1], seed.to(stack.dtype))
    into.weights[-1].copy_(last)
    into.bias[0].copy_(seed.sum((0, 2, 3)))

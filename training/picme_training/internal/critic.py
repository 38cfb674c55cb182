"""The discriminator's step: WGAN-GP with masks, in one pass for real, fake and interpolate.

    L_D = -mean_valid D(x) + mean D(G(z)) + delta lambda mean (||grad_x^ D(x^)|| - 1)^2

where x^ is between x and G(z) and masked as x is. The penalty's gradient for the weights is that of
the directional derivative <grad_x^ D, v>, with v its gradient for grad_x^ D and held constant: one
more way forward (of the tangent v) and one back, instead of a graph of the graph.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from picme_training import norms
from picme_training.internal.masked import Places
from picme_training.internal.stack import (
    BLOCKS,
    Stack,
    back,
    backward,
    forward,
    onward,
    weight_gradient,
    write_gradient,
)
from picme_training.norms import Deltas, Norm, Normed, Tangent

PENALTY = 0.1  # lambda
_SMALLEST = 1e-12  # a pixel's gradient below it has no direction


class Critic(NamedTuple):
    """What the discriminator of a scale needs besides its weights.

    Attributes:
        known: (1, 1, H, W) float32, 1 where the real picture has pixels: what of it an interpolate
            may have.
        seen: (1, 1, H, W) float32, 1 at the interpolate's pixels: `known`, but all of a completion.
        shares: Of the batch (real, fake, interpolate), as `stack.forward` takes them.
        seed: (3, 1, h, w), the gradient of (-mean real, mean fake, sum interpolate) for the map.
        penalty: lambda times delta, over the picture's pixels: 0.1 / pixels seen.
        plain: Shares of the fake one alone.
        plain_seed: (1, 1, h, w), that of mean fake.
    """

    known: Tensor
    seen: Tensor
    shares: list[Tensor]
    seed: Tensor
    penalty: float
    plain: list[Tensor]
    plain_seed: Tensor


def critic(known: Tensor, real: Places, fake: Places, judged: Tensor | None = None) -> Critic:
    """Works out the constants of a scale.

    As published, the interpolate is masked as the real picture is. A completion has the real one's
    known pixels, so that an interpolate differs in the hole alone: nothing of it is masked.

    Args:
        known: (1, 1, H, W) float32, 1 where the real picture has pixels; all 1 at coarse scales.
        real: The places that count in the real picture.
        fake: All places.
        judged: (1, 1, h, w), 1 at the places that a completion is judged by; None for pictures of
            new noise everywhere.
    """
    of_fake = fake.valid if judged is None else judged
    mean = of_fake / of_fake.sum()
    third, seen = (real, known) if judged is None else (fake, torch.ones_like(known))
    shares = zip(real.shares, fake.shares, third.shares, strict=True)
    return Critic(
        known,
        seen,
        [torch.cat(each) for each in shares],
        torch.cat([-real.valid / real.valid.sum(), mean, third.valid]),
        PENALTY / float(seen.sum()),
        fake.shares,
        mean,
    )


def descend_critic(stack: Stack, given: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Sets the stack's gradient to that of L_D; gives L_D's three terms (3,).

    Args:
        stack: The discriminator.
        given: The scale's constants.
        real: (1, 3, H, W), 0 in the hole.
        fake: (1, 3, H, W).
        mix: (1, 1, 1, 1), how much of the interpolate is real, uniform in [0, 1].
    """
    between = torch.lerp(fake, real, mix * given.known) * given.seen
    scores, kept = forward(stack, torch.cat([real, fake, between]), given.shares)
    deltas = backward(stack, kept, given.shares, given.seed, keep=True)
    third = [Normed(*(part[2:] for part in one)) for one in kept]
    own = [Deltas(*(part[2:] for part in one)) for one in deltas]
    own_norms = stack.norms([share[2:] for share in given.shares])

    slope = back(own[0].before_norm, stack.weights[0]).float()
    norm = slope.norm(dim=1, keepdim=True)
    off = (norm - 1) * given.seen
    v = slope * (2 * given.penalty * off / norm.clamp(min=_SMALLEST))

    tangents = _tangents(stack, third, own_norms, own, v)
    entering = [v.to(stack.dtype), *(one.onward for one in tangents)]
    left = [*(delta.before_norm for delta in own), given.seed[2:].to(stack.dtype)]
    of_weights = [
        weight_gradient(x, weight, gradient)
        for x, weight, gradient in zip(entering, stack.weights, left, strict=True)
    ]
    _by_way_of_x(stack, third, own_norms, tangents, own)
    seed = given.seed * _REAL_AND_FAKE.to(given.seed, non_blocking=True)
    write_gradient(stack, kept, deltas, seed)
    into = stack.gradients
    for weight, more in zip(into.weights, of_weights, strict=True):
        weight.add_(more)
    for gamma, one in zip(into.gammas, tangents, strict=True):
        gamma.add_(one.gamma)
    terms = (scores * given.seed).sum((1, 2, 3))
    return torch.cat([terms[:2], (given.penalty * off.square().sum()).reshape(1)])


_REAL_AND_FAKE = torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1, 1)


def _tangents(
    stack: Stack, kept: list[Normed], of: list[Norm], deltas: list[Deltas], v: Tensor
) -> list[Tangent]:
    """V carried through the blocks."""
    found: list[Tangent] = []
    entering = v.to(stack.dtype)
    for weight, one, norm, delta in zip(stack.weights[:-1], kept, of, deltas, strict=True):
        found.append(norms.tangent(one, norm, delta, onward(entering, weight)))
        entering = found[-1].onward
    return found


def _by_way_of_x(
    stack: Stack, kept: list[Normed], of: list[Norm], tangents: list[Tangent], into: list[Deltas]
) -> None:
    """Puts in place of D's way back the one of <grad_x D, v> along x: pulls of all later norms."""
    last = BLOCKS - 2  # after it the last convolution is linear: what it says pulls no further
    into[last].before_norm.copy_(tangents[last].pull)
    into[last].total.zero_()
    into[last].along.zero_()
    for place in reversed(range(last)):
        gradient = back(into[place + 1].before_norm, stack.weights[place + 1])
        norms.backward(
            kept[place], of[place], gradient, pull=tangents[place].pull, into=into[place]
        )


def judged(stack: Stack, given: Critic, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Mean D(fake), and its gradient for the fake one (1, 3, H, W)."""
    scores, kept = forward(stack, fake, given.plain)
    deltas = backward(stack, kept, given.plain, given.plain_seed)
    slope = back(deltas[0].before_norm, stack.weights[0]).float()
    return (scores * given.plain_seed).sum(), slope

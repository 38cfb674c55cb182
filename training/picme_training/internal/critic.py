"""The discriminator's step: WGAN-GP with masks, in one pass for real, fake and interpolate.

    L_D = -mean_valid D(x) + mean D(G(z)) + delta lambda mean (||grad_x^ D(x^)|| - 1)^2

where x^ is between x and G(z) and masked as x is. The penalty's gradient for the weights is that of
the directional derivative <grad_x^ D, v>, with v its gradient for grad_x^ D and held constant: one
more way forward (of the tangent v) and one back, instead of a graph of the graph.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from picme_training.internal.masked import Places
from picme_training.internal.stack import (
    BLOCKS,
    SLOPE,
    Deltas,
    Normed,
    Stack,
    as_map,
    back,
    backward,
    forward,
    inner,
    norm_backward,
    onward,
    places,
    weight_gradient,
    write_gradient,
)

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
    deltas = backward(stack, kept, given.shares, given.seed)
    third = [Normed(*(part[2:] for part in one)) for one in kept]
    own = [Deltas(*(part[2:] for part in one)) for one in deltas]
    shares = [share[2:] for share in given.shares]

    slope = back(own[0].before_norm, stack.weights[0]).float()
    norm = slope.norm(dim=1, keepdim=True)
    off = (norm - 1) * given.seen
    v = slope * (2 * given.penalty * off / norm.clamp(min=_SMALLEST))

    steps = _tangents(stack, third, shares, own, v)
    tangents = [
        weight_gradient(step.entering, weight, delta.before_norm)
        for step, weight, delta in zip(steps, stack.weights, own, strict=False)
    ]
    last = weight_gradient(steps[-1].entering, stack.weights[-1], given.seed[2:].to(stack.dtype))
    _by_way_of_x(stack, third, shares, steps, own)
    seed = given.seed * _REAL_AND_FAKE.to(given.seed)
    write_gradient(stack, kept, deltas, seed)
    into = stack.gradients
    for place in range(BLOCKS):
        into.weights[place].add_(last if place == BLOCKS - 1 else tangents[place])
    for gamma, step in zip(into.gammas, steps, strict=False):
        gamma.add_(step.gamma)
    terms = (scores * given.seed).sum((1, 2, 3))
    return torch.cat([terms[:2], (given.penalty * off.square().sum()).reshape(1)])


_REAL_AND_FAKE = torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1, 1)


class _Step(NamedTuple):
    """The tangent at one block.

    Attributes:
        entering: Of the block's input.
        gamma: The gradient for gamma.
        pull: (1, h w, C), the gradient for the convolution's result on x's own way.
    """

    entering: Tensor
    gamma: Tensor
    pull: Tensor


def _tangents(
    stack: Stack, kept: list[Normed], shares: list[Tensor], deltas: list[Deltas], v: Tensor
) -> list[_Step]:
    """V carried through the blocks, and what <grad_x D, v> says of each norm.

    With u the tangent of a convolution's result, g the gradient after the norm, k = E[c u] and
    U = sum(g u) - E[u] sum(g), a block contributes S = gamma (i U - i^3 k sum(g c)); the tangent's
    way back is the way back of D, known already.

    Returns:
        A step for each block, and one more for the last convolution, whose input alone is set.
    """
    tangent, steps = v.to(stack.dtype), []
    for weight, gamma, one, share, delta in zip(
        stack.weights[:-1], stack.gammas, kept, shares, deltas, strict=True
    ):
        wide = onward(tangent, weight)
        u, c, i = places(wide).float(), one.centred, one.inverse
        mean = torch.bmm(share, u)
        k = torch.bmm(share, c * u)
        cubed = i * i * i
        spread = inner(delta.after_norm, u) - mean * delta.total
        of_u = -gamma * cubed * delta.along
        of_g = -gamma * cubed * k
        of_c = -gamma * cubed * (spread - 3 * i * i * k * delta.along)
        pull = torch.addcmul(-(of_u * mean + of_g * delta.total), u, of_u)
        pull.addcmul_(c, of_c).mul_(share.mT).addcmul_(delta.after_norm, of_g)
        steps.append(_Step(tangent, i * spread - cubed * k * delta.along, pull))
        turned = u.mul_(one.scale).addcmul_(c, -one.scale * i * i * k).sub_(one.scale * mean)
        turned = turned.to(stack.dtype)
        turned = torch.ops.aten.leaky_relu_backward(turned, places(one.y), SLOPE, True)
        tangent = as_map(turned, wide)
    return [*steps, _Step(tangent, tangent, tangent)]


def _by_way_of_x(
    stack: Stack, kept: list[Normed], shares: list[Tensor], steps: list[_Step], into: list[Deltas]
) -> None:
    """Puts in place of D's way back the one of <grad_x D, v> along x: pulls of all later norms."""
    gradient = None
    for place in reversed(range(BLOCKS - 1)):
        one, target = kept[place], into[place]
        if gradient is None:  # the last convolution is linear
            target.before_norm.copy_(as_map(steps[place].pull, one.y))
            target.total.zero_()
            target.along.zero_()
        else:
            found = norm_backward(one, shares[place], gradient)
            target.before_norm.copy_(found.before_norm).add_(as_map(steps[place].pull, one.y))
            target.total.copy_(found.total)
            target.along.copy_(found.along)
        if place > 0:
            gradient = back(target.before_norm, stack.weights[place])


def judged(stack: Stack, given: Critic, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Mean D(fake), and its gradient for the fake one (1, 3, H, W)."""
    scores, kept = forward(stack, fake, given.plain)
    deltas = backward(stack, kept, given.plain, given.plain_seed)
    slope = back(deltas[0].before_norm, stack.weights[0]).float()
    return (scores * given.plain_seed).sum(), slope

"""Eq. 4-8 of the paper, with the corrections of docs/method.md.

Pictures are (B, 3, S, S) float32 in [-1, 1]; `known` is (B, 1, S, S) float32, 1 outside the hole.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from picme_training import distributed
from picme_training.config import Direction
from picme_training.gaussians import Gaussian, Mixture, kl
from picme_training.rows import repeated


def divergences(mixture: Mixture, target: Gaussian, direction: Direction) -> Tensor:
    """KL between each primitive and `target`, (B, P), in nats a dimension.

    `reverse` is KL(N_i, N(z_c|I_c)), the paper's; `forward` is KL(N(z_c|I_c), N_i), under which a
    primitive has to cover the spread of its targets (method.md 19).
    """
    primitives = Gaussian(mixture.mu, mixture.log_sigma)
    wide = Gaussian(target.mu[:, None], target.log_sigma[:, None])
    return kl(primitives, wide) if direction == "reverse" else kl(wide, primitives)


def best_primitive(each: Tensor) -> Tensor:
    """Eq. 4: j = argmin_i of the divergences (B, P); (B,) int64, no gradient (method.md 4)."""
    return each.detach().argmin(dim=1)


def frequency(log_alpha: Tensor, j: Tensor) -> Tensor:
    """Eq. 4: L_F = (v - alpha)(v - alpha)', the sum over primitives, the mean over the batch."""
    v = F.one_hot(j, log_alpha.shape[1]).to(log_alpha.dtype)
    return ((v - log_alpha.exp()) ** 2).sum(1).mean()


def back_propagate_max(each: Tensor, j: Tensor, losers: float) -> Tensor:
    """Eq. 5: L_BM, the divergence of the best primitive alone, mean over the batch.

    With `losers` > 0 that share goes to the mean of the others, so that no primitive dies
    (method.md 6); with one primitive there are no losers.
    """
    best = each.gather(1, j[:, None])[:, 0]
    others = each.shape[1] - 1
    if others == 0 or losers == 0:
        return best.mean()
    rest = (each.sum(1) - best) / others
    return ((1 - losers) * best + losers * rest).mean()


def reconstruction(pictures: Sequence[Tensor], original: Tensor) -> Tensor:
    """Eq. 6, first term: L1 between g(z_m, z_c) and I_o, mean over values and output scales."""
    parts = [F.l1_loss(one, _at(original, one.shape[-1])) for one in pictures]
    return torch.stack(parts).mean()


def _at(x: Tensor, side: int) -> Tensor:
    """A map as means over squares, so that it has this side."""
    return x if x.shape[-1] == side else F.adaptive_avg_pool2d(x, side)


def known_reconstruction(pictures: Sequence[Tensor], original: Tensor, known: Tensor) -> Tensor:
    """Eq. 6, second term: L1 on the known pixels, mean over them and over the output scales.

    At a smaller scale a pixel is known where all pixels under it are. Of several processes each
    divides by its share of the joint batch's known pixels: the mean over them is the joint one.
    """
    places, errors = [], []
    for one in pictures:
        side = one.shape[-1]
        there = (_at(known, side) > 1 - 1e-4).to(one.dtype)
        places.append(there.sum())
        errors.append(((one - _at(original, side)).abs() * there).sum())
    return _joint_mean(errors, places)


RIM = 1 / 32
"""Share of the side over which what is known around a hole says a factor e less about it."""


def rim_reconstruction(pictures: Tensor, original: Tensor, hole: Tensor) -> Tensor:
    """L1 in the hole, a pixel d from the nearest known one counting exp(-d / (RIM S)).

    The spatially discounted reconstruction loss of Yu et al. (2018), for inferred pictures, which
    Eq. 6 leaves to D alone: in the middle of a hole any plausible filling is right, at its rim and
    in thin holes one is. Mean over the weights, those of the joint batch as above.

    Args:
        pictures: (n B, 3, S, S).
        original: As `pictures`.
        hole: (n B, 1, S, S), 1 in the hole.
    """
    weight = hole * nearness(hole)
    errors = ((pictures - original).abs() * weight).sum()
    return _joint_mean([errors], [weight.sum()])


def nearness(hole: Tensor) -> Tensor:
    """exp(-d / (RIM S)), d the king's moves to the nearest known pixel; 0 past 4 RIM S."""
    reach = RIM * hole.shape[-1]
    near = 1 - hole
    for _ in range(round(4 * reach)):
        near = torch.maximum(near, math.exp(-1 / reach) * F.max_pool2d(near, 3, 1, 1))
    return near


def _joint_mean(sums: list[Tensor], weights: list[Tensor]) -> Tensor:
    joint = (3 * distributed.total(torch.stack(weights))).clamp(min=1)
    return (torch.stack(sums) / (joint / distributed.count())).mean()


def adversarial(
    of_reconstruction: Tensor,
    of_inferred: Tensor,
    of_original: Tensor,
    share: Tensor | None = None,
) -> Tensor:
    """Eq. 7: ||D(I_o^) - 1||^2 + ||D(I_o^(j)) - D(I_o)||^2, means; no gradient through D(I_o).

    Args:
        of_reconstruction: Scores (B, 1, h, w) of g(z_m, z_c).
        of_inferred: (n B, 1, h, w), of the best and the drawn one after the other.
        of_original: (B, 1, h, w).
        share: (B, 1, h, w), weights of the scores of each picture; None weighs all alike.
    """
    target = _repeated(of_original.detach(), of_inferred)
    rebuilt = scored((of_reconstruction - 1) ** 2, share)
    return rebuilt + scored((of_inferred - target) ** 2, share)


def discriminator(of_original: Tensor, of_generated: Tensor, share: Tensor | None = None) -> Tensor:
    """LSGAN's loss of D: originals to 1, generated to 0; `share` as in `adversarial`."""
    return 0.5 * (scored((of_original - 1) ** 2, share) + scored(of_generated**2, share))


def scored(errors: Tensor, share: Tensor | None) -> Tensor:
    """Mean over a picture's scores, by `share`, then over the pictures (n B, 1, h, w)."""
    if share is None:
        return errors.mean()
    wide = _repeated(share, errors)
    return ((errors * wide).sum((1, 2, 3)) / wide.sum((1, 2, 3))).mean()


def _repeated(one: Tensor, like: Tensor) -> Tensor:
    return repeated(one, len(like) // len(one))

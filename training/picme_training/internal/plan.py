"""What one scale is trained for, and what follows from that before its first step."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from picme_training.internal import masked
from picme_training.internal.cascade import Frozen
from picme_training.internal.critic import Critic, critic
from picme_training.internal.presets import Preset
from picme_training.internal.pyramid import Level, upscaling
from picme_training.internal.stack import BLOCKS, REACH

_NONE = torch.zeros(0, 3, 0, 0)


class Plan(NamedTuple):
    """What one scale is trained for.

    Attributes:
        place: 0 at the coarsest.
        scales: Scales of the pyramid.
        fine: Whether it learns from known pixels alone.
        level: The picture and its hole.
        coarser: Those of the scale before; None at the coarsest.
        real: (n, 3, h, w) float32: `level.known`, at coarse scales with the naive completions.
        choices: (n, 3, h, w) float32, the naive completions that noise chooses among; n may be 0.
    """

    place: int
    scales: int
    fine: bool
    level: Level
    coarser: Level | None
    real: Tensor
    choices: Tensor = _NONE


def critic_of(plan: Plan, preset: Preset, device: torch.device) -> Critic:
    """What the discriminator needs: the places that count, and how much."""
    hole = plan.level.hole
    everywhere, real = masked.places(hole, masked=False), masked.places(hole, masked=plan.fine)
    if not preset.masked_norm:
        real = real._replace(shares=everywhere.shares)
    known = torch.from_numpy(~hole)[None, None].float() if plan.fine else None
    return critic(
        torch.ones(1, 1, *hole.shape, device=device) if known is None else known.to(device),
        real.to(device),
        everywhere.to(device),
        masked.seeing(hole).to(device) if preset.completions else None,
    )


def weights_of(plan: Plan, completions: bool, device: torch.device) -> Tensor:
    """Of the squared errors of (fake, reconstruction), (2, 1, h, w), each with sum 1 / 3 or 0.

    As published the fake one has none, and at fine scales the reconstruction is free around the
    hole. A completion must be right at the known pixels too, up to the hole.
    """
    hole = plan.level.hole
    known = torch.from_numpy(~hole).float()
    if completions:
        both = [known, known if plan.fine else torch.ones_like(known)]
    else:
        soft = masked.soft_mask(hole, plan.place) if plan.fine else torch.ones_like(known)
        both = [torch.zeros_like(known), soft]
    weights = torch.stack([one / (3 * one.sum().clamp(min=1)) for one in both])
    return weights[:, None].to(device)


def uniform_shares(height: int, width: int, device: torch.device) -> list[Tensor]:
    """Shares of the generator's norms: its input has a border of `REACH` pixels."""
    found = []
    for block in range(1, BLOCKS):
        count = (height + 2 * (REACH - block)) * (width + 2 * (REACH - block))
        found.append(torch.full((1, 1, count), 1 / count, device=device))
    return found


def chooser_of(plan: Plan, count: int, generator: torch.Generator) -> Tensor:
    """(places of the noise, count): for each choice a direction of the noise in the hole.

    The middle of the hole counts most: there the noise is new at most erosions.
    """
    depth = masked.depth(plan.level.hole).flatten()[:, None]
    drawn = torch.randn(len(depth), count, generator=generator) * depth.square()
    return F.normalize(drawn, dim=0)


def unfolded(
    plan: Plan,
    fixed: Tensor,
    completions: bool,
    choice: tuple[Tensor, Tensor],
    device: torch.device,
) -> Frozen:
    """A scale whose weights and amplitude are still to come."""
    height, width = plan.level.hole.shape
    if plan.coarser is None:
        rows, columns = torch.zeros(height, 0), torch.zeros(width, 0)
        kept = torch.zeros(1, 3, 0, 0)
        hole = torch.zeros(1, 1, 0, 0)
    else:
        rows, columns = upscaling(plan.coarser.hole.shape, (height, width))
        hole = torch.from_numpy(plan.coarser.hole)[None, None].float()
        kept = torch.from_numpy(plan.coarser.known)[None]
    if not completions:
        hole, kept = torch.ones_like(hole), torch.zeros_like(kept)
    parts = fixed, masked.depth(plan.level.hole), rows, columns, hole, kept, *choice
    return Frozen([], [], torch.ones((), device=device), *(part.to(device) for part in parts))

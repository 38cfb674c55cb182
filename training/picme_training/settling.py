"""The means of a trained mixture learnt further, by what completions look like.

Algorithm 1 fits the mixture to latents: nothing there says how wrong a primitive's picture is where
its face does not fit the head around the hole. Here f, g and all else stand still; a completion is
drawn, compared with the original by LPIPS and SSIM, and the network of mu alone moves. An anchor
keeps the primitives apart: a mean pays for how far it has gone from where it began.
"""

import copy
from collections.abc import Generator
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from picme_rt.errors import InputError
from picme_training.config import ScheduleConfig
from picme_training.data import Batches
from picme_training.gaussians import Mixture
from picme_training.networks import Picme, VectorLatent
from picme_training.perceptual import Lpips

ANCHOR = 0.005
"""What the squared way of a mean, in standard deviations, mean over D, costs beside LPIPS."""
BETAS = (0.9, 0.99)
"""Adam's: one draw a picture is a noisy gradient, and runs are short."""
WARM_UP = 50
"""Steps over which the learning rate rises."""


class Step(NamedTuple):
    """What a step saw: LPIPS and SSIM of its completions to the originals, and the means' way."""

    lpips: float
    ssim: float
    way: float


def settle(
    model: Picme, batches: Batches, lpips: Lpips, schedule: ScheduleConfig, similarity: float = 1.0
) -> Generator[Step, None, None]:
    """Moves the network of mu in place, one step for each that is taken of the iterator.

    A step lowers LPIPS + `similarity` (1 - SSIM) + `ANCHOR` times the means' way. LPIPS alone makes
    faces that fit and costs SSIM in irregular holes.

    Args:
        model: A trained network whose mixture has two primitives or more.
        batches: (image, hole) by step.
        lpips: The perceptual measure.
        schedule: `steps`, `lr`, `decay` and `seed` are used.
        similarity: 0 or more.

    Raises:
        InputError: There is no such mixture, or `similarity` is below 0.
    """
    latent = model.latent
    if not isinstance(latent, VectorLatent) or latent.primitives < 2:
        raise InputError("settling is for a mixture of two primitives or more, got one Gaussian")
    if not similarity >= 0:  # what NaN is compared with is False
        raise InputError(f"similarity must be 0 or more, got {similarity}")
    return _steps(model, latent, batches, lpips, schedule, similarity)


def _steps(
    model: Picme,
    latent: VectorLatent,
    batches: Batches,
    lpips: Lpips,
    schedule: ScheduleConfig,
    similarity: float,
) -> Generator[Step, None, None]:
    model.eval().requires_grad_(False)
    begun = copy.deepcopy(latent)
    moving = list(latent.mu.requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(moving, schedule.lr, BETAS)
    generator = torch.Generator().manual_seed(schedule.seed)
    for step in range(schedule.steps):
        rising = min(1.0, (step + 1) / WARM_UP)
        optimizer.param_groups[0]["lr"] = schedule.lr * rising * schedule.rate(step)
        image, hole = batches.batch(step)
        completed, way = _drawn(model, latent, begun, image, hole, generator)
        distance = lpips(completed, image).mean()
        ssim = structural_similarity_index_measure(
            (completed + 1) / 2, (image + 1) / 2, data_range=1.0
        )
        assert isinstance(ssim, Tensor)
        optimizer.zero_grad()
        loss = distance + similarity * (1 - ssim) + ANCHOR * way
        loss.backward()
        optimizer.step()
        yield Step(distance.item(), ssim.item(), way.item())


def _drawn(
    model: Picme,
    latent: VectorLatent,
    begun: VectorLatent,
    image: Tensor,
    hole: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A completion of each picture, drawn as a session draws it, and the way of the means."""
    with torch.no_grad():
        encoding = model.encoding(model.features(image, hole), hole)
        before = begun.mixture(encoding.condition)
        z_m = None if encoding.z_m is None else encoding.z_m.mu  # method.md 10
    now = latent.mixture(encoding.condition)
    drawn = torch.multinomial(now.log_alpha.exp(), 1, generator=generator)[:, 0]
    noise = torch.randn(len(image), model.latent_dim, generator=generator)
    z_c = now.primitive(drawn).sample(noise)
    made = model.decode(z_c, z_m, encoding.features, hole)[-1]
    return torch.where(hole > 0, made, image), _way(before, now)


def _way(before: Mixture, now: Mixture) -> Tensor:
    return ((now.mu - before.mu) * torch.exp(-before.log_sigma)).square().mean()

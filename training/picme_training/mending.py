"""A trained network taught again what it completes worst, and held to itself in all else.

Few pictures of a data set show a head that is turned away; what a network learns from the many
frontal ones stands in their way, and in training they count for little. Here each step has two
halves. Of the pictures that the network completes worst, a completion is drawn and compared with
the original by LPIPS and SSIM. Of the others, the same is drawn of the network as it was, and the
network is to draw that again: learning without forgetting (Li and Hoiem 2016). The second half is
what keeps results of one picture apart, for a distance to the original alone would make them one.

f moves, the coarse half of g, and the mixture; what paints, the fine half of g, stands still.
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from picme_rt.errors import InputError
from picme_training import masks, settling
from picme_training.compact import Decoder
from picme_training.config import ScheduleConfig
from picme_training.data import Batches
from picme_training.gaussians import Gaussian, Mixture, kl
from picme_training.networks import Encoding, Picme, VectorLatent
from picme_training.perceptual import Lpips

SIMILARITY = 0.5
"""Weight of 1 - SSIM beside LPIPS, to originals."""
KEPT = 0.8
"""Weight of LPIPS plus L1 to what the network drew before, of the other pictures."""
MEANS, SIGMAS, ALPHAS = 0.005, 0.3, 0.1
"""Weights of the way that a mixture goes: of its means in sigmas, of log sigma, squared; KL."""
POSTERIOR = 0.03
"""Weight of the KL of q(z_c|I_c) to what it was: f is one network for both."""
COARSE = 2  # scales of the decoder that learn: 8x8 and 16x16
LOOK = 16
"""Pictures that are completed side by side to see how well."""
LEAST = 0.78
"""Least share of a side that is left when a picture is stretched: a head seen from the side."""


class Step(NamedTuple):
    """What a step saw: to originals LPIPS and SSIM; to what was drawn before LPIPS."""

    lpips: float
    ssim: float
    kept: float


class Drawn(NamedTuple):
    """What chance says of completions: a primitive each (B,), and normal numbers, (B, D) each."""

    primitive: Tensor
    z_c: Tensor
    z_m: Tensor


def distances(model: Picme, pictures: Tensor, lpips: Lpips, seed: int = 0) -> Iterator[Tensor]:
    """LPIPS to the original of one completion of each picture, centre hole; batch by batch.

    Args:
        model: A trained network.
        pictures: (N, 3, side, side) uint8.
        lpips: The perceptual measure.
        seed: Of the draws.
    """
    size, generator = model.config.size, torch.Generator().manual_seed(seed)
    centre = torch.from_numpy(masks.centre(size)).float()[None, None]
    model.eval()
    for some in torch.split(pictures, LOOK):
        sized = F.interpolate(some.float(), size, mode="bilinear", antialias=True)
        image = (sized / 127.5 - 1).contiguous()
        hole = centre.expand(len(image), -1, -1, -1).contiguous()
        with torch.no_grad():
            encoding, mixture = model.encode(image, hole)
            drawn = _draw(mixture, model.latent_dim, generator)
            distance = lpips(_completed(model, encoding, mixture, drawn, image, hole), image)
        yield distance.flatten()  # not within no_grad, which would be the caller's meanwhile


def mend(
    model: Picme, worst: Batches, others: Batches, lpips: Lpips, schedule: ScheduleConfig
) -> Iterator[Step]:
    """Moves the network in place, one step for each that is taken of the iterator.

    Args:
        model: A trained network of preset `cats`.
        worst: (image, hole) by step, of pictures to learn.
        others: Likewise, of pictures to draw as before.
        lpips: The perceptual measure.
        schedule: `steps`, `lr`, `decay` and `seed` are used.

    Raises:
        InputError: The network is of another preset.
    """
    latent, decoder = model.latent, model.decoder
    if not isinstance(decoder, Decoder) or not isinstance(latent, VectorLatent):
        raise InputError(f"mending is for preset 'cats', got {model.config.preset!r}")
    model.eval().requires_grad_(False)
    before = copy.deepcopy(model)
    moving: list[nn.Module] = [
        model.encoder,
        decoder.skip,
        latent.mu,
        latent.log_sigma,
        latent.alpha,
    ]
    moving += [*decoder.enter[:COARSE], *decoder.blocks[:COARSE]]
    if decoder.detail is not None:
        moving.append(decoder.detail)
    return _steps(model, before, moving, worst, others, lpips, schedule)


def _steps(
    model: Picme,
    before: Picme,
    moving: list[nn.Module],
    worst: Batches,
    others: Batches,
    lpips: Lpips,
    schedule: ScheduleConfig,
) -> Iterator[Step]:
    weights = [one for part in moving for one in part.requires_grad_(True).parameters()]
    optimizer = torch.optim.Adam(weights, schedule.lr, settling.BETAS)
    generator = torch.Generator().manual_seed(schedule.seed)
    for step in range(schedule.steps):
        optimizer.param_groups[0]["lr"] = settling.rate(schedule, step)
        image, hole = worst.batch(step)
        image, count = _stretched(image, generator), len(image)
        more, more_hole = others.batch(step)
        image, hole = torch.cat([image, more]), torch.cat([hole, more_hole])
        # Of the others f also sees I_c, whose q(z_c|I_c) is held
        seen = torch.cat([image, more]), torch.cat([hole, 1 - more_hole])

        with torch.no_grad():
            was = _seen(before, *seen, hole)
            drawn = _draw(was.mixture, model.latent_dim, generator)
            # each primitive is taught alike: one that is seldom drawn fails as visibly
            primitives = was.mixture.mu.shape[1]
            drawn.primitive[:count] = torch.randint(primitives, (count,), generator=generator)
            made = _completed(before, was.encoding, was.mixture, drawn, image, hole)
            goal = torch.cat([image[:count], made[count:]])
        now = _seen(model, *seen, hole)
        made = _completed(model, now.encoding, now.mixture, drawn, image, hole)

        each = lpips(made, goal).flatten()
        distance, kept = each[:count].mean(), each[count:].mean()
        ssim = structural_similarity_index_measure(
            (made[:count] + 1) / 2, (image[:count] + 1) / 2, data_range=1.0
        )
        assert isinstance(ssim, Tensor)
        loss = distance + SIMILARITY * (1 - ssim) + _way(was, now)
        loss = loss + KEPT * (kept + F.l1_loss(made[count:], goal[count:]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield Step(distance.item(), ssim.item(), kept.item())


class _Seen(NamedTuple):
    encoding: Encoding
    mixture: Mixture
    posterior: Gaussian


def _seen(model: Picme, image: Tensor, hidden: Tensor, hole: Tensor) -> _Seen:
    """What the first len(hole) pictures say of their completions, and the rest of z_c."""
    count = len(hole)
    features = model.features(image, hidden)
    encoding = model.encoding(tuple(one[:count] for one in features), hole)
    posterior = model.posterior(tuple(one[count:] for one in features))
    return _Seen(encoding, model.latent.mixture(encoding.condition), posterior)


def _draw(mixture: Mixture, latent: int, generator: torch.Generator) -> Drawn:
    primitive = torch.multinomial(mixture.log_alpha.exp(), 1, generator=generator)[:, 0]
    return Drawn(primitive, *torch.randn(2, len(primitive), latent, generator=generator))


def _completed(
    model: Picme, encoding: Encoding, mixture: Mixture, drawn: Drawn, image: Tensor, hole: Tensor
) -> Tensor:
    z_c = mixture.primitive(drawn.primitive).sample(drawn.z_c)
    z_m = None if encoding.z_m is None else encoding.z_m.sample(drawn.z_m)
    return torch.where(hole > 0, model.decode(z_c, z_m, encoding.features, hole)[-1], image)


def _way(was: _Seen, now: _Seen) -> Tensor:
    """What the mixture and q(z_c|I_c) pay for having gone from where they were."""
    (a, mu, log_sigma), (a_now, mu_now, log_sigma_now) = was.mixture, now.mixture
    means = ((mu_now - mu) * torch.exp(-log_sigma)).square().mean()
    alphas = (a.exp() * (a - a_now)).sum(1).mean()
    posterior = kl(was.posterior, now.posterior).mean()
    sigmas = F.mse_loss(log_sigma_now, log_sigma)
    return MEANS * means + SIGMAS * sigmas + ALPHAS * alphas + POSTERIOR * posterior


def _stretched(image: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures made wider and higher by up to 1 / LEAST each, a part of them shown."""
    keep = torch.rand(len(image), 2, generator=generator).mul_(1 - LEAST).add_(LEAST)
    keep[torch.rand(len(image), generator=generator) < 0.5] = 1
    moves = (2 * torch.rand(len(image), 2, generator=generator) - 1) * (1 - keep)
    affine = torch.cat([torch.diag_embed(keep), moves[:, :, None]], dim=2)
    grid = F.affine_grid(affine, list(image.shape), align_corners=False)
    made = F.grid_sample(image, grid, "bicubic", "border", align_corners=False)
    return made.clamp(-1, 1)

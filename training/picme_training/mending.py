"""A trained network taught again what it completes worst, before a D, and held to itself elsewhere.

Few pictures of a data set show a head that is turned away; what a network learns from the many
frontal ones stands in their way, and in training they count for little. Each step here has two
kinds of pictures. Of those to be taught a completion is drawn of any primitive, all alike, and
compared with the original by LPIPS and SSIM, of the worst the farthest of a few. Of those to be
kept the same is drawn of the network as it was, and the network is to draw that again: learning
without forgetting (Li and Hoiem 2016).
Distances to an original prefer a vague eye to one in the wrong place: D, which learns meanwhile,
is what an eye has to pass for one (Eq. 7; LSGAN's own goal 1, the scores weighed by the hole).

f moves, the coarse half of g, and the mixture; what paints, the fine half of g, stands still.
"""

import copy
from collections.abc import Generator, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from picme_rt.errors import InputError
from picme_training import algorithm, losses, masks
from picme_training.compact import Decoder
from picme_training.config import LossConfig, ScheduleConfig
from picme_training.data import Batches
from picme_training.discriminator import Discriminator
from picme_training.gaussians import Mixture
from picme_training.networks import Encoding, Picme, VectorLatent, Whitening
from picme_training.perceptual import Lpips

TAUGHT, SIMILARITY = 0.8, 0.45
"""Weights of LPIPS and of 1 - SSIM, to originals."""
KEPT = 0.8
"""Weight of LPIPS plus L1 to what the network drew before, of the pictures to be kept."""
MEANS, SIGMAS, ALPHAS = 0.005, 0.3, 0.1
"""Weights of the way that a mixture goes: of its means in sigmas, of log sigma, squared; KL."""
BETAS, BETAS_D = (0.5, 0.99), (0.0, 0.99)
"""Adam's, of the network and of D: runs are short."""
WARM_UP = 30
"""Steps over which the learning rate rises."""
NORM = 5.0
"""Largest norm of a step's gradient."""
MEMORY = 0.98
"""Share of the average of weights that a step keeps, once there are so many."""
COARSE = 2  # scales of the decoder that learn: 8x8 and 16x16
LOOK = 16
"""Pictures that are completed side by side to see how well."""
CANDIDATES = 3
"""Completions of each of the worst, of which the farthest from the original is taught."""
LEAST = 0.78
"""Least share of a side that is left when a picture is stretched: a head seen from the side."""


class Step(NamedTuple):
    """What a step saw.

    Attributes:
        lpips: Of the taught completions to their originals.
        ssim: Likewise.
        kept: LPIPS of the others to what was drawn before.
        adversarial: (D - 1)^2 of all completions.
        judge: LSGAN's loss of D.
    """

    lpips: float
    ssim: float
    kept: float
    adversarial: float
    judge: float


class Drawn(NamedTuple):
    """What chance says of completions: a primitive each, (B,), and normal numbers, (B, D)."""

    primitive: Tensor
    z_c: Tensor


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
    model: Picme,
    judge: Discriminator,
    worst: Batches,
    others: Batches,
    kept: Batches,
    lpips: Lpips,
    schedule: ScheduleConfig,
    loss: LossConfig,
) -> Generator[Step, None, None]:
    """Moves the network and D in place, one step for each that is taken of the iterator.

    At the end of the steps, or when the iterator is closed, the network's weights are an average
    over the last of them. Statistics that z_c was whitened with are forgotten: f moves. D begins
    alone, for `WARM_UP` steps before the first, against the network as it is.

    Args:
        model: A trained network of preset `cats`.
        judge: D; a new one, or one that has learnt with such a network.
        worst: (image, hole) by step, of the pictures that are completed worst.
        others: Likewise, of other pictures to learn.
        kept: Likewise, of pictures to draw as before.
        lpips: The perceptual measure.
        schedule: `steps`, `lr`, `lr_discriminator`, `decay` and `seed` are used.
        loss: `adversarial` and `hole_scores` are used.

    Raises:
        InputError: The network is of another preset.
    """
    latent, decoder = model.latent, model.decoder
    if not isinstance(decoder, Decoder) or not isinstance(latent, VectorLatent):
        raise InputError(f"mending is for preset 'cats', got {model.config.preset!r}")
    if isinstance(model.whiten, Whitening):
        model.whiten.reset_running_stats()
    model.eval().requires_grad_(False)
    judge.train()
    moving: list[nn.Module] = [model.encoder, decoder.skip]
    moving += [latent.mu, latent.log_sigma, latent.alpha]
    moving += [*decoder.enter[:COARSE], *decoder.blocks[:COARSE]]
    if decoder.detail is not None:
        moving.append(decoder.detail)
    before = copy.deepcopy(model)
    weights = [one for part in moving for one in part.requires_grad_(True).parameters()]
    return _Mending(model, before, weights, judge, lpips, schedule, loss).steps(worst, others, kept)


class _Batch(NamedTuple):
    """One step's pictures, the first `taught` of them to be taught, and what is wanted of them.

    Attributes:
        image: (B, 3, S, S).
        hole: (B, 1, S, S).
        taught: How many.
        drawn: What chance says.
        was: The mixture of the network as it was.
        before: (B - taught, 3, S, S), what it drew of the kept ones.
        goal: LPIPS's taps of the originals of the taught ones and of `before`.
        original: What D sees of all originals.
    """

    image: Tensor
    hole: Tensor
    taught: int
    drawn: Drawn
    was: Mixture
    before: Tensor
    goal: list[Tensor]
    original: list[Tensor]


class _Mending:
    def __init__(
        self,
        model: Picme,
        before: Picme,
        weights: list[nn.Parameter],
        judge: Discriminator,
        lpips: Lpips,
        schedule: ScheduleConfig,
        loss: LossConfig,
    ):
        self._model, self._before, self._judge, self._lpips = model, before, judge, lpips
        self._weights, self._schedule, self._loss = weights, schedule, loss
        self._adam = torch.optim.Adam(weights, schedule.lr, BETAS)
        rate = schedule.lr_discriminator
        self._adam_of_judge = torch.optim.Adam(judge.parameters(), rate, BETAS_D)
        self._generator = torch.Generator().manual_seed(schedule.seed)

    def steps(self, worst: Batches, others: Batches, kept: Batches) -> Generator[Step, None, None]:
        for step in range(WARM_UP):
            batch = self._batch(step, worst, others, kept)
            with torch.no_grad():
                made = self._made(batch)[0]
                features = self._judge.seen(made)
            self._judge_step(batch, made, features)
        average = [weight.detach().clone() for weight in self._weights]
        try:
            for step in range(self._schedule.steps):
                rising = min(1.0, (step + 1) / WARM_UP)
                # D's falls with it: left as it was D runs ahead, and completions got worse again
                fall = self._schedule.rate(step)
                self._adam.param_groups[0]["lr"] = self._schedule.lr * rising * fall
                self._adam_of_judge.param_groups[0]["lr"] = self._schedule.lr_discriminator * fall
                yield self._step(self._batch(WARM_UP + step, worst, others, kept))
                share = 1 - min(MEMORY, (step + 1) / (step + 10))
                for mean, weight in zip(average, self._weights, strict=True):
                    mean.lerp_(weight.detach(), share)
        finally:  # also of who ends it early
            for mean, weight in zip(average, self._weights, strict=True):
                weight.data.copy_(mean)

    @torch.no_grad()
    def _batch(self, step: int, worst: Batches, others: Batches, kept: Batches) -> _Batch:
        (image, hole), (other, other_hole), (same, same_hole) = (
            batches.batch(step) for batches in (worst, others, kept)
        )
        few, count = len(image), len(image) + len(other)
        image = torch.cat([self._stretched(torch.cat([image, other])), same])
        hole = torch.cat([hole, other_hole, same_hole])
        encoding, was = self._before.encode(image, hole)
        drawn = self._drawn(was, image, hole, few, count)
        before = _completed(self._before, encoding, was, drawn, image, hole)[count:]
        taps = self._lpips.taps(torch.cat([image, before]))
        goal = [torch.cat([tap[:count], tap[len(image) :]]) for tap in taps]
        original = self._judge.seen(image, [tap[: len(image)] for tap in taps])
        return _Batch(image, hole, count, drawn, was, before, goal, original)

    def _drawn(self, was: Mixture, image: Tensor, hole: Tensor, few: int, count: int) -> Drawn:
        """Of the worst what is farthest, of what else is taught any primitive, all alike."""
        drawn = self._any(was)
        # one that is seldom drawn fails as visibly
        drawn.primitive[:count].random_(0, was.mu.shape[1], generator=self._generator)
        for all_, worst in zip(drawn, self._farthest(image[:few], hole[:few]), strict=True):
            all_[:few] = worst
        return drawn

    def _farthest(self, image: Tensor, hole: Tensor) -> Drawn:
        """Of `CANDIDATES` draws the one whose completion is farthest from the original."""
        encoding, now = self._model.encode(image, hole)
        original = self._lpips.taps(image)
        draws, distances = [], []
        for _ in range(CANDIDATES):
            drawn = self._any(now)
            drawn.primitive.random_(0, now.mu.shape[1], generator=self._generator)
            made = _completed(self._model, encoding, now, drawn, image, hole)
            distances.append(self._lpips.between(self._lpips.taps(made), original))
            draws.append(drawn)
        chosen, rows = torch.stack(distances).argmax(0), torch.arange(len(image))
        return Drawn(*(torch.stack(each)[chosen, rows] for each in zip(*draws, strict=True)))

    def _any(self, mixture: Mixture) -> Drawn:
        return _draw(mixture, self._model.latent_dim, self._generator)

    def _made(self, batch: _Batch) -> tuple[Tensor, Mixture]:
        encoding, now = self._model.encode(batch.image, batch.hole)
        made = _completed(self._model, encoding, now, batch.drawn, batch.image, batch.hole)
        return made, now

    def _step(self, batch: _Batch) -> Step:
        made, now = self._made(batch)
        taps = self._lpips.taps(made)
        features = self._judge.seen(made, taps)
        count = batch.taught
        each = self._lpips.between(taps, batch.goal)
        distance, kept = each[:count].mean(), each[count:].mean()
        ssim = structural_similarity_index_measure(
            (made[:count] + 1) / 2, (batch.image[:count] + 1) / 2, data_range=1.0
        )
        assert isinstance(ssim, Tensor)
        self._judge.requires_grad_(False)
        scores = self._judge(made, batch.hole, features)
        parts = [
            losses.scored((one - 1) ** 2, algorithm.hole_share(batch.hole, one, self._loss))
            for one in scores
        ]
        adversarial = torch.stack(parts).mean()
        self._judge.requires_grad_(True)
        loss = TAUGHT * distance + SIMILARITY * (1 - ssim) + _way(batch.was, now)
        loss = loss + KEPT * (kept + F.l1_loss(made[count:], batch.before))
        loss = loss + self._loss.adversarial * adversarial
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        nn.utils.clip_grad_norm_(self._weights, NORM)
        self._adam.step()
        judged = self._judge_step(batch, made.detach(), [one.detach() for one in features])
        seen = (distance, ssim, kept, adversarial, judged)
        return Step(*(one.item() for one in seen))

    def _judge_step(self, batch: _Batch, made: Tensor, features: list[Tensor]) -> Tensor:
        seen = [torch.cat(both) for both in zip(batch.original, features, strict=True)]
        loss = algorithm.discriminator_loss(
            self._judge, batch.image, batch.hole, made, self._loss, seen
        )
        self._adam_of_judge.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        self._adam_of_judge.step()
        return loss

    def _stretched(self, image: Tensor) -> Tensor:
        """Half of the pictures made wider and higher by up to 1 / LEAST each, a part shown."""
        draw = self._generator
        keep = torch.rand(len(image), 2, generator=draw).mul_(1 - LEAST).add_(LEAST)
        keep[torch.rand(len(image), generator=draw) < 0.5] = 1
        moves = (2 * torch.rand(len(image), 2, generator=draw) - 1) * (1 - keep)
        affine = torch.cat([torch.diag_embed(keep), moves[:, :, None]], dim=2)
        grid = F.affine_grid(affine, list(image.shape), align_corners=False)
        made = F.grid_sample(image, grid, "bicubic", "border", align_corners=False)
        return made.clamp(-1, 1)


def _draw(mixture: Mixture, latent: int, generator: torch.Generator) -> Drawn:
    primitive = torch.multinomial(mixture.log_alpha.exp(), 1, generator=generator)[:, 0]
    return Drawn(primitive, torch.randn(len(primitive), latent, generator=generator))


def _completed(
    model: Picme, encoding: Encoding, mixture: Mixture, drawn: Drawn, image: Tensor, hole: Tensor
) -> Tensor:
    z_c = mixture.primitive(drawn.primitive).sample(drawn.z_c)
    z_m = None if encoding.z_m is None else encoding.z_m.mu  # as a session has it (method.md 10)
    return torch.where(hole > 0, model.decode(z_c, z_m, encoding.features, hole)[-1], image)


def _way(was: Mixture, now: Mixture) -> Tensor:
    """What the mixture pays for having gone from where it was."""
    means = ((now.mu - was.mu) * torch.exp(-was.log_sigma)).square().mean()
    alphas = (was.log_alpha.exp() * (was.log_alpha - now.log_alpha)).sum(1).mean()
    return MEANS * means + SIGMAS * F.mse_loss(now.log_sigma, was.log_sigma) + ALPHAS * alphas

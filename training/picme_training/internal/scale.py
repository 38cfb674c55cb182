"""One scale of the pyramid, trained."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from picme_training.internal import cascade, masked
from picme_training.internal.cascade import Frozen, entering
from picme_training.internal.critic import Critic, critic, descend_critic, judged
from picme_training.internal.presets import Preset
from picme_training.internal.pyramid import Level, upscaling
from picme_training.internal.stack import (
    BLOCKS,
    EPSILON,
    REACH,
    Normed,
    Stack,
    backward,
    forward,
    write_gradient,
)

BETAS = (0.5, 0.999)
AMPLITUDE = 0.1  # of the error that a scale's noise is as strong as
CALIBRATION = 8  # passes of random noise that the frozen statistics are taken from


class Plan(NamedTuple):
    """What one scale is trained for.

    Attributes:
        place: 0 at the coarsest.
        scales: Scales of the pyramid.
        fine: Whether it learns from known pixels alone.
        level: The picture and its hole.
        real: (3, h, w) float32: `level.known`, at coarse scales with the naive completion.
    """

    place: int
    scales: int
    fine: bool
    level: Level
    real: Tensor


class Trained(NamedTuple):
    """A scale that is done: what the next begins with, and what results are made by."""

    generator: Stack
    discriminator: Stack
    frozen: Frozen


class Scale:
    """A scale in training: networks, optimisers, constants, and the steps."""

    def __init__(
        self,
        plan: Plan,
        before: Sequence[Frozen],
        inherited: tuple[Stack, Stack] | None,
        preset: Preset,
        seed: int,
        device: torch.device,
    ):
        """Begins.

        Args:
            plan: What it is trained for.
            before: The coarser scales.
            inherited: Generator and discriminator of the scale before, if of the same width.
            preset: The schedule.
            seed: Of its weights and noise.
            device: Where it is trained.
        """
        self.plan, self.before, self.preset = plan, before, preset
        width, alpha = preset.width_of(plan.place), preset.alpha_of(plan.place, plan.scales)
        fresh = torch.Generator().manual_seed(seed)
        self.generator, self.discriminator = Stack(width, 3, device), Stack(width, 1, device)
        for stack, old in zip(
            (self.generator, self.discriminator), inherited or (None, None), strict=True
        ):
            if old is None:
                stack.initialise(fresh)
            else:
                stack.flat.copy_(old.flat)
        self.optimizers = [_adam(stack) for stack in (self.generator, self.discriminator)]

        height, width_ = plan.level.hole.shape
        channels = 3 if before else 1
        fixed = torch.randn(1, channels, height + 2 * REACH, width_ + 2 * REACH, generator=fresh)
        self.random = torch.Generator(device).manual_seed(seed ^ 0x5DEECE66D)
        self.real = plan.real[None].to(device)
        self.critic = _critic_of(plan, device)
        ones = torch.ones(1, 1, height, width_)
        soft = masked.soft_mask(plan.level.hole, plan.place) if plan.fine else ones
        weights = soft.expand(1, 1, height, width_).to(device)
        self.weights = weights * (alpha / (3 * weights.sum()))
        self.shares = _uniform(height, width_, device)

        coarse = cascade.reconstruct(before)
        self.scale = _unfolded(plan, fixed, coarse, device)
        self.rebuilt_from = cascade.enlarged(self.scale, coarse, 1)
        known = self.critic.known
        squares = ((self.rebuilt_from - self.real) * known).square().sum() / (3 * known.sum())
        amplitude = AMPLITUDE * squares.sqrt() if before else torch.ones((), device=device)
        self.scale = self.scale._replace(amplitude=amplitude)

    def iterate(self, iteration: int) -> Tensor:
        """The preset's number of steps of D, then of G; the last ones' five terms, on the device.

        -mean D(x), mean D(G(z)), the penalty; -mean D(G(z)), the reconstruction's error.
        What the last step of D sees is what the first of G begins with: it is made once.
        """
        preset = self.preset
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = preset.rate(self.plan.fine, iteration)
        for _ in range(preset.steps - 1):
            made = self.made(self.drawn()[:1])
            self.discriminate(made.out)
        drawn = self.drawn()
        made = self.made(drawn)
        of_critic = self.discriminate(made.out[:1])
        of_generator = self.learn(made)
        for _ in range(preset.steps - 1):
            of_generator = self.learn(self.made(drawn))
        return torch.cat([of_critic, of_generator])

    def drawn(self) -> Tensor:
        """(2, 3, h, w): the scale before, of random noise and of the fixed one; sets `noise`."""
        previous = cascade.random(self.before, self.random)
        fixed = self.scale.fixed
        noise = torch.randn(fixed.shape, generator=self.random, device=fixed.device)
        self.noise = torch.cat([noise, fixed])
        return torch.cat([cascade.enlarged(self.scale, previous, 1), self.rebuilt_from])

    def made(self, previous: Tensor) -> "Made":
        """The generator's pictures, and what its way back needs."""
        x = entering(previous, self.noise[: len(previous)], self.scale.amplitude)
        shares = [share.expand(len(x), -1, -1) for share in self.shares]
        raw, kept = forward(self.generator, x, shares)
        change = torch.tanh(raw)
        return Made(change + previous, change, kept, shares)

    def discriminate(self, fake: Tensor) -> Tensor:
        """One step of D; its three terms."""
        mix = torch.rand(1, 1, 1, 1, generator=self.random, device=fake.device)
        terms = descend_critic(self.discriminator, self.critic, self.real, fake, mix)
        self.optimizers[1].step()
        return terms

    def learn(self, made: "Made") -> Tensor:
        """One step of G; its two terms."""
        score, slope = judged(self.discriminator, self.critic, made.out[:1])
        off = made.out[1:] - self.real
        weighted = self.weights * off
        gradient = torch.cat([-slope, 2 * weighted])
        seed = gradient * (1 - made.change.square())
        deltas = backward(self.generator, made.kept, made.shares, seed)
        write_gradient(self.generator, made.kept, deltas, seed)
        self.optimizers[0].step()
        return torch.stack([-score, (weighted * off).sum()])

    def freeze(self) -> Trained:
        """The scale with its statistics: the means over the reconstruction and random noise.

        Half of the weight has the reconstruction, which most of every result is.
        """
        norms = range(BLOCKS - 1)
        means = [torch.zeros_like(self.generator.gammas[place][0, 0]) for place in norms]
        squares = [torch.zeros_like(mean) for mean in means]
        for _ in range(CALIBRATION):
            made = self.made(self.drawn())
            for place, one in enumerate(made.kept):
                variance = one.inverse.pow(-2) - EPSILON
                means[place] += one.mean.mean((0, 1)) / CALIBRATION
                squares[place] += (variance + one.mean.square()).mean((0, 1)) / CALIBRATION
        statistics = [(m, s - m.square()) for m, s in zip(means, squares, strict=True)]
        weights, biases = cascade.fold(self.generator, statistics)
        frozen = self.scale._replace(weights=weights, biases=biases)
        return Trained(self.generator, self.discriminator, frozen)


class Made(NamedTuple):
    """The generator's pictures `out` = `change` + what came from the scale before."""

    out: Tensor
    change: Tensor
    kept: list[Normed]
    shares: list[Tensor]


def train(scale: Scale, report: Callable[[int, Tensor], None]) -> Trained:
    """All iterations of a scale.

    Args:
        scale: Where to begin.
        report: Called with each iteration's number and terms, which live on the device: reading
            them waits for it.
    """
    preset = scale.preset
    for iteration in range(preset.fine if scale.plan.fine else preset.coarse):
        report(iteration, scale.iterate(iteration))
    return scale.freeze()


def _adam(stack: Stack) -> torch.optim.Optimizer:
    parameter = torch.nn.Parameter(stack.flat)  # shares the memory
    parameter.grad = stack.gradient
    return torch.optim.Adam([parameter], betas=BETAS, fused=True)


def _critic_of(plan: Plan, device: torch.device) -> Critic:
    hole = plan.level.hole
    known = torch.from_numpy(~hole)[None, None].float() if plan.fine else None
    return critic(
        torch.ones(1, 1, *hole.shape, device=device) if known is None else known.to(device),
        masked.places(hole, masked=plan.fine).to(device),
        masked.places(hole, masked=False).to(device),
    )


def _uniform(height: int, width: int, device: torch.device) -> list[Tensor]:
    """Shares of the generator's norms: its input has a border of `REACH` pixels."""
    found = []
    for block in range(1, BLOCKS):
        count = (height + 2 * (REACH - block)) * (width + 2 * (REACH - block))
        found.append(torch.full((1, 1, count), 1 / count, device=device))
    return found


def _unfolded(plan: Plan, fixed: Tensor, coarse: Tensor | None, device: torch.device) -> Frozen:
    """A scale whose weights and amplitude are still to come."""
    height, width = plan.level.hole.shape
    if coarse is None:
        rows, columns = torch.zeros(height, 0), torch.zeros(width, 0)
    else:
        rows, columns = upscaling((coarse.shape[2], coarse.shape[3]), (height, width))
    parts = fixed, masked.depth(plan.level.hole), rows, columns
    fixed, depth, rows, columns = (part.to(device) for part in parts)
    return Frozen([], [], torch.ones((), device=device), fixed, depth, rows, columns)

"""One scale of the pyramid, trained."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from picme_training.internal import cascade
from picme_training.internal.cascade import Frozen, entering
from picme_training.internal.critic import descend_critic, judged
from picme_training.internal.plan import (
    Plan,
    chooser_of,
    critic_of,
    unfolded,
    uniform_shares,
    weights_of,
)
from picme_training.internal.presets import Preset
from picme_training.internal.stack import (
    BLOCKS,
    REACH,
    Stack,
    backward,
    forward,
    write_gradient,
)
from picme_training.norms import EPSILON, Normed

BETAS = (0.5, 0.999)
AMPLITUDE = 0.1  # of the error that a scale's noise is as strong as
MOST_ERODED = 4.0  # pixels; completions to learn from are drawn at up to that erosion
DETAIL = 0.3  # weight of all that a scale changes in the hole, where that of its smooth part is 1
CALIBRATION = 8  # passes of random noise that the frozen statistics are taken from


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
        dtype = torch.bfloat16 if preset.reduced else torch.float32
        self.generator, self.discriminator = (Stack(width, n, device, dtype) for n in (3, 1))
        for stack, old in zip(
            (self.generator, self.discriminator), inherited or (None, None), strict=True
        ):
            if old is None:
                stack.initialise(fresh)
            else:
                stack.flat.copy_(old.flat)
        self.averaged = self.generator.flat.clone()
        self.optimizers = [_adam(stack) for stack in (self.generator, self.discriminator)]

        height, width_ = plan.level.hole.shape
        channels = 3 if before else 1
        fixed = torch.randn(1, channels, height + 2 * REACH, width_ + 2 * REACH, generator=fresh)
        self.random = torch.Generator(device).manual_seed(seed ^ 0x5DEECE66D)
        self.reals, self.choices = plan.real.to(device), plan.choices.to(device)
        self.critic = critic_of(plan, preset, device)
        self.hole = torch.from_numpy(plan.level.hole)[None, None].to(device)
        self.weights = weights_of(plan, preset.completions, device) * alpha
        begins = bool(before) or (preset.choices > 0 and len(plan.real) > 1)
        # what a scale aims at holds in the hole as the picture does outside; where that is only
        # what it begins with, detail is freer
        self.held = self.hole * self.weights[0].max() * begins
        self.detail = 1.0 if len(self.choices) else DETAIL
        self.shares = uniform_shares(height, width_, device)

        chooses = preset.choices and not before and len(plan.real) > 1
        bank = plan.real if chooses else plan.real[:0]
        chooser = chooser_of(plan, len(bank), fresh)
        self.scale = unfolded(plan, fixed, preset.completions, (chooser, bank), device)
        self.rebuilt_from = cascade.begun(self.scale, cascade.reconstruct(before), self.scale.fixed)
        first = before[0] if before else self.scale
        chosen = (
            cascade.shares(first, first.fixed)[0]
            if len(self.reals) > 1
            else torch.ones(1, device=device)
        )
        self.real = (self.reals * chosen[:, None, None, None]).sum(0, keepdim=True)
        self.scale = self.scale._replace(amplitude=self._amplitude() * preset.variance**0.5)

    def _amplitude(self) -> Tensor:
        """A tenth of what is missing: at known pixels, or of the spread of what was chosen from."""
        known = self.critic.known
        missing = (self.rebuilt_from - self.real) * known
        if not self.before:
            if len(self.scale.bank) == 0:
                return torch.ones_like(self.scale.amplitude)
            missing = (self.reals - self.reals.mean(0)) * self.hole
            known = self.hole.expand(len(self.reals), -1, -1, -1)
        return AMPLITUDE * (missing.square().sum() / (3 * known.sum())).sqrt()

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
        kept = min(preset.average, iteration / (iteration + 9))  # the first are soon forgotten
        self.averaged.lerp_(self.generator.flat, 1 - kept)
        return torch.cat([of_critic, of_generator])

    def drawn(self) -> Tensor:
        """(2, 3, h, w): the scale before, of random noise and of the fixed one.

        Sets `noise`, and `aim`, what the scale is held to in the hole.
        """
        fixed, erosion = self.scale.fixed, None
        scales = [*self.before, self.scale]
        if self.preset.completions:
            erosion = torch.rand((), generator=self.random, device=fixed.device) * MOST_ERODED
        *noises, noise = [
            cascade.mixed(scale, one, erosion)
            for scale, one in zip(scales, cascade.draw(scales, self.random, 1), strict=True)
        ]
        self.noise = torch.cat([noise, fixed])
        previous = cascade.through(self.before, noises)
        begun = torch.cat([cascade.begun(self.scale, previous, noise), self.rebuilt_from])
        self.aim = begun
        if len(self.choices):  # the coarsest scale's noise chooses
            first = torch.cat([[*noises, noise][0], scales[0].fixed])
            chosen = cascade.shares(scales[0], first) @ self.choices.flatten(1)
            self.aim = chosen.view(begun.shape)
        return begun

    def made(self, previous: Tensor) -> "Made":
        """The generator's pictures, and what its way back needs."""
        x = entering(previous, self.noise[: len(previous)], self.scale.amplitude)
        raw, kept = forward(self.generator, x, self.shares)
        change = torch.tanh(raw)
        return Made(change + previous, change, kept)

    def discriminate(self, fake: Tensor) -> Tensor:
        """One step of D; its three terms."""
        fake = self.shown(fake)
        mix = torch.rand(1, 1, 1, 1, generator=self.random, device=fake.device)
        real = self.reals
        if len(real) > 1:
            one = torch.randint(len(real), (1,), generator=self.random, device=fake.device)
            real = real.index_select(0, one)
        terms = descend_critic(self.discriminator, self.critic, real, fake, mix)
        self.optimizers[1].step()
        return terms

    def learn(self, made: "Made") -> Tensor:
        """One step of G; its two terms."""
        score, slope = judged(self.discriminator, self.critic, self.shown(made.out[:1]))
        off = made.out - self.real
        weighted = self.weights * off
        gradient = 2 * weighted
        if self.preset.completions:
            missed = made.out - self.aim
            smooth = _smooth(self.held * _smooth(missed))
            gradient += 2 * (smooth + self.detail * self.held * missed)
            slope = slope * self.hole
        gradient[:1] -= slope
        seed = gradient * (1 - made.change.square())
        deltas = backward(self.generator, made.kept, self.shares, seed)
        write_gradient(self.generator, made.kept, deltas, seed)
        self.optimizers[0].step()
        return torch.stack([-score, (weighted[1:] * off[1:]).sum()])

    def shown(self, fake: Tensor) -> Tensor:
        """What D sees of a picture that G made: of a completion the picture's own known pixels."""
        return torch.where(self.hole, fake, self.real) if self.preset.completions else fake

    def freeze(self) -> Trained:
        """The scale with its statistics: the means over the reconstruction and random noise.

        Half of the weight has the reconstruction, which most of every result is.
        """
        if self.preset.average:
            self.generator.flat.copy_(self.averaged)
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


def _smooth(x: Tensor) -> Tensor:
    """The mean of 3 x 3 places, 0 beyond the border: its own transpose."""
    return F.avg_pool2d(x, 3, stride=1, padding=1)

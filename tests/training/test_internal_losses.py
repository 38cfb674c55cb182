"""The written-out passes against autograd's, on the losses as they are read (internal_plain.py)."""

import dataclasses

import numpy as np
import pytest
import torch
from internal_plain import (
    PlainStack,
    completion_critic_terms,
    completion_generator_terms,
    critic_terms,
    generated,
    generator_terms,
)
from torch.nn import functional as F

from picme_training.internal import masked, presets
from picme_training.internal.critic import critic, descend_critic, judged
from picme_training.internal.plan import Plan
from picme_training.internal.pyramid import Level
from picme_training.internal.scale import Scale
from picme_training.internal.stack import Stack

HEIGHT, WIDTH = 30, 40
EIGHT = dataclasses.replace(presets.find("paper"), width=8, steps=1, alpha_last=10.0)
COMPLETING = dataclasses.replace(EIGHT, completions=True, choices=3)


@pytest.fixture
def hole():
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[12:18, 15:20] = True
    return found


def parts(stack):
    into = stack.gradients
    return [*into.weights, *into.gammas, *into.betas, *into.bias]


def check_gradients(stack, plain):
    expected = plain.gradients()
    largest = max(float(one.abs().max()) for one in expected)
    assert largest > 1e-3
    for found, one in zip(parts(stack), expected, strict=True):
        assert float((found.flatten() - one.flatten()).abs().max()) <= 1e-4 * largest


@pytest.mark.parametrize("fine", [True, False])
def test_the_discriminators_losses_and_gradients_are_autograds(hole, fine):
    random = torch.Generator().manual_seed(0)
    stack = Stack(8, 1)
    stack.initialise(random)
    stack.flat.mul_(3)
    covered = torch.from_numpy(hole)[None, None].float() * fine
    real, fake = (torch.randn(1, 3, HEIGHT, WIDTH, generator=random) for _ in range(2))
    real = real * (covered == 0)
    mix = torch.rand(1, 1, 1, 1, generator=random)
    plain = PlainStack(stack)
    expected = critic_terms(plain, real, fake, mix, covered)
    expected.sum().backward()
    places = [masked.places(hole, masked=one) for one in (fine, False)]
    given = critic((covered == 0).float(), *places)
    found = descend_critic(stack, given, real, fake, mix)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-5)
    check_gradients(stack, plain)


def test_the_score_of_a_fake_and_its_gradient_are_autograds(hole):
    random = torch.Generator().manual_seed(0)
    stack = Stack(8, 1)
    stack.initialise(random)
    fake = torch.randn(1, 3, HEIGHT, WIDTH, generator=random, requires_grad=True)
    expected = PlainStack(stack)(fake).mean()
    (slope,) = torch.autograd.grad(expected, fake)
    expected = expected.detach()
    everywhere = masked.places(hole, masked=False)
    given = critic(torch.ones(1, 1, HEIGHT, WIDTH), everywhere, everywhere)
    found, gradient = judged(stack, given, fake.detach())
    assert float(found) == pytest.approx(float(expected), abs=1e-6)
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("fine", [True, False])
def test_the_first_iteration_has_the_losses_of_the_straightforward_one(hole, fine):
    """All five terms to 1e-5, and G's gradients, of a scale as it is trained."""
    random = torch.Generator().manual_seed(0)
    known = torch.rand(3, HEIGHT, WIDTH, generator=random) * 2 - 1
    known = known * torch.from_numpy(~hole)
    plan = Plan(0, 1, fine, Level(known.numpy(), hole), None, known[None])
    scale = Scale(plan, [], None, EIGHT, 7, torch.device("cpu"))
    twin = Scale(plan, [], None, EIGHT, 7, torch.device("cpu"))  # draws the same numbers
    generator, discriminator = PlainStack(scale.generator), PlainStack(scale.discriminator)
    found = scale.iterate(0)

    previous = twin.drawn()
    inputs = list((F.pad(previous, [5] * 4) + twin.noise).split(1))
    mix = torch.rand(1, 1, 1, 1, generator=twin.random)
    covered = torch.from_numpy(hole)[None, None].float() * fine
    fake = generated(generator, inputs[0], previous[:1]).detach()
    terms = critic_terms(discriminator, plan.real, fake, mix, covered)
    torch.testing.assert_close(found[:3], terms.detach(), rtol=0, atol=1e-5)

    discriminator = PlainStack(scale.discriminator)  # D moves before G learns
    weights = masked.soft_mask(hole, 0)[None, None] if fine else torch.ones(1, 1, HEIGHT, WIDTH)
    both = generator_terms(
        generator, discriminator, inputs, [previous[:1], previous[1:]], plan.real, weights,
        EIGHT.alpha_of(0, 1),
    )  # fmt: skip
    both.sum().backward()
    torch.testing.assert_close(found[3:], both.detach(), rtol=1e-5, atol=1e-5)
    check_gradients(scale.generator, generator)


def completing(hole, fine, preset):
    """A scale as `fast` trains it, and its twin, which draws the same numbers."""
    random = torch.Generator().manual_seed(0)
    known = torch.rand(1 if fine else 3, 3, HEIGHT, WIDTH, generator=random) * 2 - 1
    inside = torch.from_numpy(hole)
    known = torch.where(inside, known * (not fine), known[:1])
    level = Level(np.where(hole, 0, known[0].numpy()).astype(np.float32), hole)
    plan = Plan(0, 1, fine, level, None, known)
    return [Scale(plan, [], None, preset, 7, torch.device("cpu")) for _ in range(2)]


@pytest.mark.parametrize("fine", [True, False])
def test_learning_from_completions_has_the_losses_of_the_straightforward_version(hole, fine):
    scale, twin = completing(hole, fine, COMPLETING)
    generator, discriminator = PlainStack(scale.generator), PlainStack(scale.discriminator)
    found = scale.iterate(0)

    previous = twin.drawn()
    inputs = list((F.pad(previous, [5] * 4) + twin.noise * twin.scale.amplitude).split(1))
    mix = torch.rand(1, 1, 1, 1, generator=twin.random)
    real = twin.real if fine else twin.reals[torch.randint(3, (1,), generator=twin.random)]
    inside = torch.from_numpy(hole)[None, None].float()
    fake = generated(generator, inputs[0], previous[:1]).detach()
    shown = torch.where(inside > 0, fake, twin.real)
    terms = completion_critic_terms(discriminator, real, shown, mix, inside, inside * fine)
    torch.testing.assert_close(found[:3], terms.detach(), rtol=0, atol=1e-5)

    discriminator = PlainStack(scale.discriminator)  # D moves before G learns
    both = completion_generator_terms(
        generator, discriminator, inputs, previous.split(1), twin.real, (inside, inside * fine),
        COMPLETING.alpha_of(0, 1),
    )  # fmt: skip
    if fine:  # begins with nothing: there is nothing to hold to
        assert not scale.held.any()
    both.sum().backward()
    torch.testing.assert_close(found[3:], both[:2].detach(), rtol=1e-5, atol=1e-5)
    if not fine:
        check_gradients(scale.generator, generator)


def test_convolutions_in_bfloat16_give_losses_and_gradients_near_those_of_float32(hole):
    exact, _ = completing(hole, True, COMPLETING)
    near, _ = completing(hole, True, dataclasses.replace(COMPLETING, reduced=True))
    terms = [one.iterate(0) for one in (exact, near)]
    torch.testing.assert_close(terms[1], terms[0], rtol=0.03, atol=0.03)
    for name in ("generator", "discriminator"):
        a, b = (getattr(one, name).gradient for one in (exact, near))
        assert a.dtype == b.dtype == torch.float32
        assert float(F.cosine_similarity(a, b, dim=0)) > 0.97

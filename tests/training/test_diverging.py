"""Steps are bounded, and a run whose losses are no numbers any more, or far off, ends at once."""

import dataclasses
import math

import pytest
import torch

from picme_training import checkpoint, diverging, loop
from picme_training.config import NetworkConfig, RunConfig, ScheduleConfig
from picme_training.data import Batches
from picme_training.diverging import DivergedError, Watch

CONFIG = RunConfig(
    NetworkConfig("cats", 64, 2), ScheduleConfig(4, batch=2, evaluate_every=2, lr=1e-3)
)


RATE = 0.01


def stepped(history, gradient, most, betas=(0.0, 0.999)):
    """How far each of two tensors moves in the last of a row of steps, in rates; and the weights.

    Args:
        history: Gradients of the first tensor before; the second always has a gradient of 1.
        gradient: Of the first tensor in that step.
        most: The bound; None steps as Adam does.
        betas: Of Adam.
    """
    weights = [torch.nn.Parameter(torch.linspace(0, 1, 16)) for _ in range(2)]
    unused = torch.nn.Parameter(torch.zeros(1))  # one that got none
    adam = torch.optim.Adam([*weights, unused], RATE, betas)
    for value in (*history, gradient):
        before = [w.detach().clone() for w in weights]
        weights[0].grad, weights[1].grad = torch.full((16,), float(value)), torch.ones(16)
        if most is None:
            adam.step()
        else:
            diverging.descend(adam, most)
    assert unused.detach() == 0
    moves = [w.detach() - b for w, b in zip(weights, before, strict=True)]
    return [float(m.square().mean().sqrt() / RATE) for m in moves], weights


QUIET = [1e-3] * 50


def test_adam_moves_a_tensor_far_where_its_gradient_grows_and_the_bound_holds_it():
    """The premise, and the property."""
    (far, near), _ = stepped(QUIET, 10.0, None)
    assert far > 4
    assert near == pytest.approx(1, rel=1e-3)
    (bounded, other), _ = stepped(QUIET, 10.0, 2.0)
    assert bounded == pytest.approx(2, rel=1e-4)
    assert other == pytest.approx(1, rel=1e-3)  # each tensor by itself


def test_a_bounded_step_keeps_its_direction():
    history, last = [0.001] * 50, -1.0
    *_, weights = stepped(history, last, 2.0)
    *_, before = stepped(history[:-1], history[-1], 2.0)
    assert ((weights[0] - before[0]).detach() > 0).all()


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.9, 0.99)])
def test_steps_within_the_bound_are_adams_to_the_bit(betas):
    history = [1.0, -0.5, 0.8, 1.1, -0.9]
    plain, bounded = (stepped(history, 1.0, most, betas)[1] for most in (None, 2.0))
    assert all(torch.equal(a, b) for a, b in zip(plain, bounded, strict=True))


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
def test_gradients_of_which_one_is_not_finite_count_as_none(wrong):
    moves, weights = stepped([1.0, 1.0], wrong, 5.0)
    assert moves == [0, 0]
    assert all(torch.isfinite(w).all() for w in weights)
    after, _ = stepped([1.0, wrong, 1.0], 1.0, 5.0)  # and the next steps are sound
    assert after == pytest.approx([1.155, 1.155], rel=1e-2)  # the zero is in the moments


def test_a_run_is_bounded_as_its_configuration_says(photographs, monkeypatch):
    bounds = []
    monkeypatch.setattr(diverging, "descend", lambda optimizer, most: bounds.append(most))
    for clip, expected in ((0.0, []), (2.5, [2.5, 2.5])):  # f, the mixture and g; then D
        schedule = dataclasses.replace(CONFIG.schedule, clip=clip)
        trainer = loop.Trainer(
            dataclasses.replace(CONFIG, schedule=schedule), torch.device("cpu"), None
        )
        trainer.train_step(*Batches(photographs, CONFIG).batch(0))
        assert bounds == expected


def state():
    """Of networks with a bias, buffers and a count."""
    return checkpoint.State(*(torch.nn.BatchNorm2d(2) for _ in range(3)), {})


class Poisoned(Batches):
    """Pictures of which one batch, the third, is no picture."""

    def batch(self, step):
        image, hole = super().batch(step)
        return (image * math.nan if step == 2 else image), hole


def test_a_run_that_diverges_ends_and_names_what_to_begin_with(photographs, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(
        DivergedError, match=r"diverged by step 4: .*loss = nan.*schedule\.clip"
    ) as e:
        loop.train(CONFIG, Poisoned(photographs, CONFIG), photographs[:3], out)
    # the step's weights are not kept: the newest checkpoint is that before
    assert checkpoint.find(out) == out / "checkpoints" / "step_00000002"
    assert f"--start-from {checkpoint.find(out)}" in str(e.value)


def poisons(at):
    """Lets one gradient of f be infinite in the step of index `at`, whose losses are finite."""
    descend = loop.Trainer._descend

    def descends(self, name, loss):
        if (self.step, name) != (at, "generator"):
            return descend(self, name, loss)
        hook = next(self.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
        descend(self, name, loss)
        hook.remove()

    return descends


@pytest.mark.parametrize("at", [1, 0], ids=["after one", "before any"])
def test_weights_that_are_not_finite_are_never_a_checkpoint(photographs, tmp_path, monkeypatch, at):
    monkeypatch.setattr(loop, "_evaluate", lambda trainer, val, written: None)
    monkeypatch.setattr(loop, "LOG_EVERY", 100)
    config = dataclasses.replace(CONFIG, schedule=ScheduleConfig(2, batch=2, evaluate_every=1))
    batches = Batches(photographs, config)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_descend", poisons(at))
        with pytest.raises(DivergedError, match=r"model has weights .*ema has weights .*lower sch"):
            loop.train(config, batches, photographs[:3], tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").glob("*")] == ["step_00000001"][:at]
    if at:  # and the run goes on
        loop.train(config, batches, photographs[:3], tmp_path, resume=True)


def test_one_that_diverges_before_its_first_checkpoint_says_so(tmp_path):
    message = "by step 20: L1 = inf; begin another .* from the start, for it has no checkpoint yet"
    with pytest.raises(DivergedError, match=message):
        Watch(tmp_path).check({"L1": torch.tensor(math.inf), "L_A": torch.tensor(1.0)}, state(), 20)


def test_finite_losses_and_weights_pass(tmp_path):
    terms = {"L1": torch.tensor(3e38), "L_A": torch.tensor(-1.0)}
    Watch(tmp_path).check(terms, state(), 20)


def looked_at(watch, *losses):
    for step, loss in enumerate(losses, 1):
        watch.check({"loss": torch.tensor(float(loss))}, state(), step)


def test_a_loss_that_explodes_ends_a_run_though_it_is_finite(tmp_path):
    with pytest.raises(
        DivergedError, match=r"by step 7: loss = 7\.17e\+09 where 1\.02 was usual; .*schedule\.clip"
    ):
        looked_at(Watch(tmp_path), 1.1, 1.02, 0.98, 1.05, 1.02, 1.0, 7.17e9)


@pytest.mark.parametrize(
    "losses",
    [
        [9e6, 40, 3, 1, 1, 1, 1],  # falls from where it began
        [1, 1e7, 1, 1e6, 1],  # too young for a judgement
        [1, 1, 1, 1, 1, 900, 1],  # one bad batch
        [-1, -1.2, -0.8, -1, -1, 300],  # a loss may be negative
    ],
)
def test_a_loss_that_falls_or_wanders_does_not(tmp_path, losses):
    looked_at(Watch(tmp_path), *losses)


def test_what_was_usual_long_ago_does_not_count(tmp_path):
    looked_at(Watch(tmp_path), *[1e-3] * 20, *[0.5] * 60, 400)


@pytest.mark.parametrize("name", ["model", "ema", "discriminator"])
@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
def test_one_number_of_any_network_is_enough(tmp_path, name, wrong):
    found = state()
    with torch.no_grad():
        getattr(found, name).running_var[1] = wrong
    with pytest.raises(DivergedError, match=f"by step 7: {name} has weights that are not finite;"):
        Watch(tmp_path).check({}, found, 7)

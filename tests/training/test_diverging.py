"""Gradients are bounded, and a run whose losses are no numbers any more ends with one line."""

import dataclasses
import math

import pytest
import torch

from picme_training import checkpoint, diverging, loop
from picme_training.config import NetworkConfig, RunConfig, ScheduleConfig
from picme_training.data import Batches
from picme_training.diverging import DivergedError

CONFIG = RunConfig(
    NetworkConfig("cats", 64, 2), ScheduleConfig(4, batch=2, evaluate_every=2, lr=1e-3)
)


def with_gradients(*gradients):
    parameters = [torch.nn.Parameter(torch.zeros(len(g))) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


def test_a_gradient_over_the_bound_keeps_its_direction_and_gets_its_norm():
    parameters = with_gradients([3.0, 0.0], [0.0, 4.0])
    diverging.bound(parameters, 0.5)
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.3, 0.0]))
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.0, 0.4]))


def test_a_gradient_within_the_bound_is_left_as_it_is():
    parameters = with_gradients([3.0, 0.0], [0.0, 4.0])
    diverging.bound(parameters, 5.0)
    assert [p.grad.tolist() for p in parameters] == [[3, 0], [0, 4]]


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
def test_a_gradient_that_is_not_finite_counts_as_none(wrong):
    parameters = with_gradients([3.0, wrong], [0.0, 4.0])
    parameters.append(torch.nn.Parameter(torch.zeros(1)))  # one that got none
    diverging.bound(parameters, 5.0)
    assert [p.grad.tolist() for p in parameters[:2]] == [[0, 0], [0, 0]]
    assert parameters[2].grad is None


def test_a_run_is_bounded_as_its_configuration_says(photographs, tmp_path, monkeypatch):
    bounds = []
    monkeypatch.setattr(diverging, "bound", lambda parameters, most: bounds.append(most))
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
        diverging.check(
            {"L1": torch.tensor(math.inf), "L_A": torch.tensor(1.0)}, state(), 20, tmp_path
        )


def test_finite_losses_and_weights_pass(tmp_path):
    terms = {"L1": torch.tensor(3e38), "L_A": torch.tensor(-1.0)}
    diverging.check(terms, state(), 20, tmp_path)


@pytest.mark.parametrize("name", ["model", "ema", "discriminator"])
@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
def test_one_number_of_any_network_is_enough(tmp_path, name, wrong):
    found = state()
    with torch.no_grad():
        getattr(found, name).running_var[1] = wrong
    with pytest.raises(DivergedError, match=f"by step 7: {name} has weights that are not finite;"):
        diverging.check({}, found, 7, tmp_path)

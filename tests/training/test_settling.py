"""The means of a mixture learnt further by LPIPS, all else standing still."""

import dataclasses

import pytest
import torch

from picme_rt.errors import InputError
from picme_training import settling
from picme_training.config import NetworkConfig, RunConfig, ScheduleConfig
from picme_training.data import Batches
from picme_training.networks import Picme

CONFIG = RunConfig(NetworkConfig("cats", 64, 3), ScheduleConfig(4, batch=2, lr=1e-2))
MANY = ScheduleConfig(40, batch=2, lr=1e-2)


def network(preset="cats", primitives=3):
    torch.manual_seed(3)
    return Picme(NetworkConfig(preset, 64, primitives))


def settled(model, photographs, lpips, config=CONFIG):
    return list(settling.settle(model, Batches(photographs, config), lpips, config.schedule))


@pytest.mark.parametrize("preset", ["cats", "picme"])
def test_the_network_of_mu_moves_and_nothing_else(photographs, stand_in, preset):
    model = network(preset)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps = settled(model, photographs, stand_in)
    assert len(steps) == 4
    assert steps[0].way == 0
    assert steps[-1].way > 0
    moved = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert moved == {name for name in before if name.startswith("latent.mu.")}


def test_lpips_of_the_same_draws_falls(photographs, stand_in):
    """Before and after many steps, by the first step of a run that begins there."""
    long = dataclasses.replace(CONFIG, schedule=MANY)
    model, near = network(), photographs[:2]
    first = settled(model, near, stand_in, CONFIG)[0].lpips
    settled(model, near, stand_in, long)
    assert settled(model, near, stand_in, CONFIG)[0].lpips < 0.98 * first


def test_it_repeats_to_the_bit(photographs, stand_in):
    models = network(), network()
    told = [settled(model, photographs, stand_in) for model in models]
    assert told[0] == told[1]
    pairs = zip(*(model.state_dict().values() for model in models), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_stronger_anchor_holds_the_means_nearer(photographs, stand_in, monkeypatch):
    free = settled(network(), photographs, stand_in)[-1].way
    monkeypatch.setattr(settling, "ANCHOR", 1e3)
    assert settled(network(), photographs, stand_in)[-1].way < free


def test_more_weight_of_ssim_gives_more_of_it(photographs, stand_in):
    near = photographs[:2]
    ended = []
    for weight in (0.0, 100.0):
        model, batches = network(), Batches(near, dataclasses.replace(CONFIG, schedule=MANY))
        steps = list(settling.settle(model, batches, stand_in, MANY, weight))
        ended.append(sum(step.ssim for step in steps[-10:]) / 10)  # of the same noise in both
    assert ended[1] > ended[0] + 0.001


def test_a_weight_below_0_is_refused(photographs, stand_in):
    with pytest.raises(InputError, match=r"similarity must be 0 or more, got nan"):
        settling.settle(
            network(),
            Batches(photographs, CONFIG),
            stand_in,
            CONFIG.schedule,
            similarity=float("nan"),
        )


@pytest.mark.parametrize(("preset", "primitives"), [("cats", 1), ("pic", 1)])
def test_one_gaussian_is_refused(photographs, stand_in, preset, primitives):
    with pytest.raises(InputError, match="two primitives or more, got one Gaussian"):
        settled(network(preset, primitives), photographs, stand_in)


def test_it_sees_what_a_session_draws(photographs, stand_in):
    """A session takes the mean of z_m: how wide its Gaussian is, changes nothing."""
    narrow, wide = network(), network()
    with torch.no_grad():
        wide.latent.head.bias[wide.latent_dim :] += 3
    steps = [settled(model, photographs, stand_in)[0] for model in (narrow, wide)]
    assert steps[0] == steps[1]

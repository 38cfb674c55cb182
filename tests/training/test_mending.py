"""A network taught what it completes worst, and held to itself in all else."""

import dataclasses

import pytest
import torch

from picme_rt.errors import InputError
from picme_training import mending
from picme_training.config import NetworkConfig, RunConfig, ScheduleConfig
from picme_training.data import Batches
from picme_training.networks import Picme

CONFIG = RunConfig(NetworkConfig("cats", 64, 3), ScheduleConfig(4, batch=2, lr=1e-2))


def network(preset="cats"):
    torch.manual_seed(3)
    return Picme(NetworkConfig(preset, 64, 3))


def mended(model, worst, others, lpips, schedule=CONFIG.schedule):
    config = dataclasses.replace(CONFIG, schedule=schedule)
    halves = Batches(worst, config), Batches(others, config)
    return list(mending.mend(model, *halves, lpips, schedule))


def test_f_the_coarse_half_of_g_and_the_mixture_move_and_nothing_else(photographs, stand_in):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps = mended(model, photographs[:2], photographs[2:], stand_in)
    assert len(steps) == 4
    assert steps[0].kept == 0
    assert steps[-1].kept > 0
    moved = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    parts = ("encoder", "latent.mu", "latent.log_sigma", "latent.alpha")
    coarse = [f"decoder.{part}.{scale}" for part in ("enter", "blocks") for scale in (0, 1)]
    learnt = tuple(f"{part}." for part in (*parts, "decoder.skip", *coarse))
    assert moved == {name for name in before if name.startswith(learnt)}


def test_what_is_taught_is_drawn_nearer_and_the_others_stay(photographs, stand_in, monkeypatch):
    """The others beside a run that nothing holds."""
    schedule, kept = ScheduleConfig(40, 2, lr=1e-3), []
    for weight in (mending.KEPT, 0.0):
        monkeypatch.setattr(mending, "KEPT", weight)
        steps = mended(network(), photographs[:2], photographs[2:4], stand_in, schedule)
        first, last = (sum(step.lpips for step in part) for part in (steps[:10], steps[-10:]))
        assert last < 0.9 * first
        kept.append(sum(step.kept for step in steps[-10:]))
    assert kept[0] < 0.9 * kept[1]


def test_it_repeats_to_the_bit(photographs, stand_in):
    models = network(), network()
    told = [mended(model, photographs[:2], photographs[2:], stand_in) for model in models]
    assert told[0] == told[1]
    pairs = zip(*(model.state_dict().values() for model in models), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_distance_is_of_its_picture_and_repeats(photographs, stand_in):
    many = photographs[torch.arange(20) % len(photographs)]
    looks = [torch.cat(list(mending.distances(network(), many, stand_in))) for _ in range(2)]
    assert looks[0].shape == (20,)
    assert torch.equal(*looks)
    assert (looks[0] > 0).all()
    next(mending.distances(network(), many, stand_in))
    assert torch.is_grad_enabled()
    # draws go by place in the batch: another picture at a place changes that place alone
    many[3] = 255 - many[3]
    other = torch.cat(list(mending.distances(network(), many, stand_in)))
    assert (other != looks[0]).nonzero().flatten().tolist() == [3]


def test_another_preset_is_refused(photographs, stand_in):
    with pytest.raises(InputError, match="mending is for preset 'cats', got 'picme'"):
        mended(network("picme"), photographs[:2], photographs[2:], stand_in)

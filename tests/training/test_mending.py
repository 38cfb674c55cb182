"""A network taught what it completes worst, before a D, and held to itself in all else."""

import dataclasses

import pytest
import torch

from picme_rt.errors import InputError
from picme_training import discriminator, mending
from picme_training.config import LossConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.data import Batches
from picme_training.networks import Picme

CONFIG = RunConfig(
    NetworkConfig("cats", 64, 3, judge_hole=True, judge_features=True),
    ScheduleConfig(4, batch=2, lr=1e-2),
    LossConfig(adversarial=0.2, hole_scores=True),
)


def network(preset="cats"):
    torch.manual_seed(3)
    return Picme(NetworkConfig(preset, 64, 3))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(mending, "WARM_UP", 3)


@pytest.fixture
def judge(stand_in):
    torch.manual_seed(4)
    return discriminator.make(CONFIG.network, stand_in)


@pytest.fixture
def mended(stand_in, judge):
    """Mends a network of pictures to be taught and to be kept; gives its steps."""
    start = {name: value.clone() for name, value in judge.state_dict().items()}

    def run(model, worst, others, schedule=CONFIG.schedule, loss=CONFIG.loss):
        judge.load_state_dict(start)
        config = dataclasses.replace(CONFIG, schedule=schedule)
        taught, kept = [Batches(worst, config)], Batches(others, config)
        return list(mending.mend(model, judge, taught, kept, stand_in, schedule, loss))

    return run


def test_f_the_coarse_half_of_g_the_mixture_and_d_move_and_nothing_else(photographs, mended, judge):
    model, d_before = network(), {name: v.clone() for name, v in judge.state_dict().items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps = mended(model, photographs[:2], photographs[2:])
    assert len(steps) == 4
    assert steps[0].kept == 0
    assert steps[-1].kept > 0
    assert all(step.judge > 0 for step in steps)
    assert all(not torch.equal(v, d_before[n]) for n, v in judge.named_parameters())
    moved = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    parts = ("encoder", "latent.mu", "latent.log_sigma", "latent.alpha")
    coarse = [f"decoder.{part}.{scale}" for part in ("enter", "blocks") for scale in (0, 1)]
    learnt = tuple(f"{part}." for part in (*parts, "decoder.skip", *coarse))
    assert moved == {name for name in before if name.startswith(learnt)}


def test_what_is_taught_is_drawn_nearer_and_the_others_stay(photographs, mended, monkeypatch):
    """The others beside a run that nothing holds."""
    schedule, kept = ScheduleConfig(20, 2, lr=2e-3), []
    alone = dataclasses.replace(CONFIG.loss, adversarial=0)
    for weight in (mending.KEPT, 0.0):
        monkeypatch.setattr(mending, "KEPT", weight)
        steps = mended(network(), photographs[:2], photographs[2:4], schedule, alone)
        first, last = (sum(step.lpips for step in part) for part in (steps[:5], steps[-5:]))
        assert last < 0.9 * first
        kept.append(sum(step.kept for step in steps[-5:]))
    assert kept[0] < 0.9 * kept[1]


def test_it_repeats_to_the_bit(photographs, mended):
    models = network(), network()
    told = [mended(model, photographs[:2], photographs[2:]) for model in models]
    assert told[0] == told[1]
    pairs = zip(*(model.state_dict().values() for model in models), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_it_learns_to_pass_for_an_original(photographs, mended):
    """What D says of completions after some steps with it, beside steps without."""
    schedule, says = ScheduleConfig(10, 2, lr=2e-3, lr_discriminator=1e-3), []
    for weight in (5.0, 0.0):
        loss = dataclasses.replace(CONFIG.loss, adversarial=weight)
        steps = mended(network(), photographs[:2], photographs[2:4], schedule, loss)
        says.append(sum(step.adversarial for step in steps[-5:]))
    assert says[0] < says[1]


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


def test_another_preset_is_refused(photographs, mended):
    with pytest.raises(InputError, match="mending is for preset 'cats', got 'picme'"):
        mended(network("picme"), photographs[:2], photographs[2:])

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
    ScheduleConfig(3, batch=2, lr=1e-2),
    LossConfig(adversarial=0.2, hole_scores=True),
)


def network(preset="cats"):
    torch.manual_seed(3)
    return Picme(NetworkConfig(preset, 64, 3))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(mending, "WARM_UP", 1)


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
        batches = (Batches(pictures, config) for pictures in (worst, worst, others))
        return list(mending.mend(model, judge, *batches, stand_in, schedule, loss))

    return run


def test_f_the_coarse_half_of_g_the_mixture_and_d_move_and_nothing_else(photographs, mended, judge):
    model, d_before = network(), {name: v.clone() for name, v in judge.state_dict().items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps = mended(model, photographs[:2], photographs[2:])
    assert len(steps) == 3
    assert steps[0].kept == 0
    assert steps[-1].kept > 0
    assert all(step.judge > 0 for step in steps)
    assert all(not torch.equal(v, d_before[n]) for n, v in judge.named_parameters())
    moved = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    parts = ("encoder", "latent.mu", "latent.log_sigma", "latent.alpha")
    coarse = [f"decoder.{part}.{scale}" for part in ("enter", "blocks") for scale in (0, 1)]
    learnt = tuple(f"{part}." for part in (*parts, "decoder.skip", *coarse))
    assert moved == {name for name in before if name.startswith(learnt)}


def test_each_term_of_the_loss_has_its_way(photographs, mended, monkeypatch):
    """The last step's pictures and draws are the same with each term, and without any."""

    def last(adversarial=0.0, rate=1e-4, steps=2, **weights):
        for name in ("TAUGHT", "SIMILARITY", "KEPT"):
            monkeypatch.setattr(mending, name, weights.get(name, 0.0))
        loss = dataclasses.replace(CONFIG.loss, adversarial=adversarial)
        return mended(
            network(), photographs[:2], photographs[2:4], ScheduleConfig(steps, 2, lr=rate), loss
        )[-1]

    still = last(rate=0.0)
    taught = last(TAUGHT=1.0)
    assert taught.lpips < 0.98 * still.lpips
    assert last(SIMILARITY=1.0).ssim > still.ssim + 0.002
    assert last(adversarial=1.0).adversarial < 0.98 * still.adversarial
    assert still.kept == 0
    free, kept = (last(TAUGHT=1.0, KEPT=weight, steps=3).kept for weight in (0.0, 3.0))
    assert kept < 0.9 * free


def test_it_repeats_to_the_bit(photographs, mended):
    models = network(), network()
    told = [mended(model, photographs[:2], photographs[2:]) for model in models]
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


def test_it_sees_what_a_session_draws(photographs, mended):
    """A session takes the mean of z_m: how wide its Gaussian is, changes nothing."""
    narrow, wide = network(), network()
    with torch.no_grad():
        wide.latent.head.bias[wide.latent_dim :] += 3
    schedule = ScheduleConfig(1, 2)
    told = [mended(model, photographs[:2], photographs[2:], schedule) for model in (narrow, wide)]
    assert told[0] == told[1]


def test_who_ends_it_early_has_the_average_so_far(photographs, stand_in, judge):
    model, batches = network(), Batches(photographs, CONFIG)
    given = (judge, batches, batches, batches, stand_in, CONFIG.schedule, CONFIG.loss)
    steps = mending.mend(model, *given)
    next(steps)
    next(steps)
    name = "decoder.blocks.0.0.conv1.weight"
    before = model.state_dict()[name].clone()
    steps.close()
    assert not torch.equal(model.state_dict()[name], before)


def test_another_preset_is_refused(photographs, mended):
    with pytest.raises(InputError, match="mending is for preset 'cats', got 'picme'"):
        mended(network("picme"), photographs[:2], photographs[2:])


def test_of_the_worst_the_farthest_completion_is_taught(photographs, mended, monkeypatch):
    """The first step, which nothing has changed yet, beside one that has no choice."""
    schedule, far = ScheduleConfig(1, 2), []
    for count in (8, 1):
        monkeypatch.setattr(mending, "CANDIDATES", count)
        far.append(mended(network(), photographs[:2], photographs[2:4], schedule)[0].lpips)
    assert far[0] > far[1]


def test_the_rate_of_d_falls_with_the_networks(photographs, mended, judge, monkeypatch):
    """Where the schedule leaves nothing of it, D stays as its warm-up left it."""
    learnt = {}
    for rate in (0.0, 1.0):
        monkeypatch.setattr(ScheduleConfig, "rate", lambda _self, _step, rate=rate: rate)
        states = []
        for steps in (1, 2):
            mended(network(), photographs[:2], photographs[2:4], ScheduleConfig(steps, 2))
            states.append([value.clone() for value in judge.parameters()])
        learnt[rate] = any(not torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert learnt == {0.0: False, 1.0: True}

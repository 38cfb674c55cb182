import dataclasses

import pytest
import torch
from torch.nn import functional as F

from picme_rt.errors import InputError
from picme_training import compact, data, discriminator, grow, push_pull
from picme_training.checkpoint import describe
from picme_training.config import AugmentConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.loop import train
from picme_training.networks import Picme

SIZES = [(64, 128), (64, 256), (128, 256)]


def network(size, **more):
    return NetworkConfig("cats", size, 3, **more)


def grown(small, large):
    large.load_state_dict(grow.grown(small.state_dict(), large.state_dict()))
    return large


def enlarged(x, ratio):
    return x.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3)


def trained(module):
    """Every number away from where it is drawn: zeros would hide what is lost."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


@pytest.mark.parametrize("more", [{}, {"detail": True}, {"detail": True, "push_pull": True}])
@pytest.mark.parametrize(("small", "large"), SIZES)
@torch.no_grad()
def test_a_grown_network_makes_the_small_ones_pictures_enlarged(small, large, more, monkeypatch):
    """But for the mean of neighbours at the end, which is another one at each size."""
    monkeypatch.setattr(compact, "_shuffled", F.pixel_shuffle)
    torch.manual_seed(0)
    kept = {"detail": True} if more and small > 64 else {}  # what 64x64 cannot have
    one, two = trained(Picme(network(small, **kept))), Picme(network(large, **more))
    if large == 256:  # there it makes no cell's pixels differ for good, as the smaller one may
        flat = one.decoder.colours
        even = compact.EvenShuffle(flat.in_channels, small // compact.FINEST)
        even.load_state_dict(flat.state_dict())
        flat.load_state_dict(dict(zip(("weight", "bias"), even.even(), strict=True)))
    two, ratio = grown(one, two).eval(), large // small
    image = 2 * torch.rand(2, 3, small, small) - 1
    hole = torch.zeros(2, 1, small, small)
    hole[:, :, 16:48, 8:40] = 1
    e, mixture = one.encode(image, hole)
    f, wide = two.encode(enlarged(image, ratio), enlarged(hole, ratio))
    for a, b in zip(mixture, wide, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    z = torch.randn(2, one.latent_dim)
    before = one.decode(z, e.z_m.mu, e.features, hole)[-1]
    before = enlarged(before, ratio)
    if "push_pull" in more:  # whose filling is pasted in from the first step on
        colours, near = push_pull.filled(enlarged(image, ratio), enlarged(hole, ratio))
        before = near * colours + (1 - near) * before
    after = two.decode(z, f.z_m.mu, f.features, enlarged(hole, ratio))[-1]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hole_too", [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize(("small", "large"), [*SIZES, (64, 64)])
@torch.no_grad()
def test_a_grown_discriminator_gives_the_small_ones_scores(small, large, hole_too):
    torch.manual_seed(0)
    one = trained(discriminator.make(network(small, judge_hole=hole_too[0])))
    two = grown(one, discriminator.make(network(large, judge_hole=hole_too[1]))).eval()
    image, hole = 2 * torch.rand(2, 3, small, small) - 1, torch.ones(2, 1, small, small)
    ratio = large // small
    scores = two(enlarged(image, ratio), enlarged(hole, ratio))
    torch.testing.assert_close(scores, one(image, hole), rtol=1e-4, atol=1e-4)


def test_what_is_new_learns():
    torch.manual_seed(0)
    two = grown(Picme(network(64)), Picme(network(128, detail=True, push_pull=True)))
    image, hole = 2 * torch.rand(2, 3, 128, 128) - 1, torch.ones(2, 1, 128, 128)
    e, mixture = two.encode(image, hole)
    made = two.decode(mixture.mu[:, 0], e.z_m.mu, e.features, hole)[-1]
    (made**2).sum().backward()
    for name, parameter in two.decoder.named_parameters():
        if name.startswith(("fine.conv2", "detail", "grow", "colours")):
            assert (parameter.grad != 0).any(), name


def test_the_smooth_filling_is_learnt_from_where_the_known_pixels_were_seen_before():
    torch.manual_seed(0)
    one = trained(Picme(network(128, detail=True)))
    two = grown(one, Picme(network(128, detail=True, push_pull=True)))
    image, hole = 2 * torch.rand(2, 3, 128, 128) - 1, torch.zeros(2, 1, 128, 128)
    hole[:, :, 32:96, 32:96] = 1
    filling, far, *after = two.features(image, hole)
    assert filling.shape == (2, 3, 128, 128)
    assert far.shape == (2, 1, 128, 128)
    for a, b in zip(one.features(image, hole), after, strict=True):
        torch.testing.assert_close(a, b)
    (after[0] ** 2).sum().backward()
    for name in ("detail.weight", "block64.conv2.weight"):
        assert (two.encoder.get_parameter(name).grad != 0).any(), name


def test_a_run_begins_with_a_smaller_ones_weights(photographs, tmp_path):
    def run(size):
        schedule = ScheduleConfig(steps=1, batch=2, lr=0, lr_discriminator=0)
        return RunConfig(network(size), schedule, augment=AugmentConfig(False, 1.0))

    first = train(run(64), data.Batches(photographs, run(64)), photographs[:2], tmp_path / "small")
    big = enlarged(photographs, 2)
    last = train(
        run(128), data.Batches(big, run(128)), big[:2], tmp_path / "large", start_from=first
    )
    assert describe(last).pictures == 4
    metrics = [(tmp_path / n / "metrics.jsonl").read_text() for n in ("small", "large")]
    l1 = [float(text.split('"val_L1_hole": ')[1].split(",")[0]) for text in metrics]
    assert l1[0] == pytest.approx(l1[1], rel=0.05)  # the mean of neighbours smooths a little


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (network(128), network(64)),
        (network(64), dataclasses.replace(network(128), primitives=4)),
        (network(64, judge_hole=True), network(128)),
        (network(128, detail=True), network(128)),
        (network(128, detail=True, push_pull=True), network(128, detail=True)),
        (network(64), dataclasses.replace(network(64), mask_channel=False)),
        (NetworkConfig("picme", 64, 3), NetworkConfig("picme", 128, 3)),
    ],
)
def test_a_network_that_does_not_grow_into_another_is_refused(small, large):
    with pytest.raises(InputError, match="smaller one of preset cats with the same primitives"):
        grow.check(small, large)


@pytest.mark.parametrize("one", [network(64), NetworkConfig("picme", 64, 3)])
def test_a_network_begins_with_its_own_weights(one):
    grow.check(one, one)

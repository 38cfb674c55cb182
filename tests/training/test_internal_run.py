import dataclasses
import json

import numpy as np
import pytest
import torch

from picme_rt import pyramid
from picme_rt.errors import InputError
from picme_training.internal import cascade, choices, naive, run, scale
from picme_training.internal.presets import PRESETS, Preset, find

TINY = run.Settings(Preset(4, 8, 3, 2, 5e-4, 5e-4, 1, 10, 100, "telea"), 40, "telea", 3)
CHOOSING = dataclasses.replace(
    TINY, naive="patch",
    preset=dataclasses.replace(
        TINY.preset, completions=True, choices=3, average=0.5, reduced=True
    ),
)  # fmt: skip
WIDE = dataclasses.replace(TINY.preset, width=8)
SIZES = [(25, 31), (26, 33), (28, 35)]


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(choices, "MADE", 1)
    monkeypatch.setattr(choices, "REPAIRS", 1)


@pytest.fixture
def img():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (7, 7, 3)).repeat(4, 0).repeat(5, 1)
    return (coarse // 2 + rng.integers(0, 128, (28, 35, 3))).astype(np.uint8)


@pytest.fixture
def hole():
    found = np.zeros((28, 35), bool)
    found[14:21, 4:11] = True
    return found


def bits(scales):
    return [
        [tensor.numpy().tobytes() for tensor in (*one.weights, *one.biases, *one[2:])]
        for one in scales
    ]


def test_a_picture_becomes_a_pyramid_of_frozen_scales(img, hole, tmp_path):
    found = run.learn(img, hole, TINY, tmp_path)
    assert [one.size for one in found] == SIZES
    assert [one.fixed.shape[1] for one in found] == [1, 3, 3]
    assert float(found[0].amplitude) == 1
    assert all(0 < float(one.amplitude) < 0.5 for one in found[1:])
    made = run.completions(found, 2, 0, erosion=1.0)
    assert made.shape == (2, 28, 35, 3)
    assert made.dtype == np.uint8
    assert (made[0] != made[1])[hole].any()
    assert {p.name for p in (tmp_path / "scales").iterdir()} == {"00", "01", "02"}
    assert (tmp_path / "scales" / "02" / "preview.png").is_file()
    kept = [p.stat().st_mode for p in (tmp_path / "naive").iterdir()]
    assert len(kept) == 3  # tensors, their digest and a picture
    assert len(set(kept)) == 1  # tensors too are for whom the umask lets read


@pytest.mark.parametrize(
    "given",
    [*(dataclasses.replace(TINY, naive=one) for one in ("telea", "patch", "dip")), CHOOSING],
    ids=["telea", "patch", "dip", "choosing"],
)
def test_bytes_under_the_hole_change_no_weight_and_no_result(
    img, hole, tmp_path, monkeypatch, given
):
    monkeypatch.setattr("picme_training.internal.dip.ITERATIONS", 2)
    other = img.copy()
    other[hole] = np.random.default_rng(9).integers(0, 256, (hole.sum(), 3))
    one = run.learn(img, hole, given, tmp_path / "one")
    two = run.learn(other, hole, given, tmp_path / "two")
    assert bits(one) == bits(two)
    assert run.completions(one, 2, 5).tobytes() == run.completions(two, 2, 5).tobytes()
    previews = [(tmp_path / name / "scales/02/preview.png").read_bytes() for name in ("one", "two")]
    assert previews[0] == previews[1]


def test_other_seeds_give_other_weights(img, hole, tmp_path):
    one = run.learn(img, hole, TINY, tmp_path / "one")
    two = run.learn(img, hole, dataclasses.replace(TINY, seed=4), tmp_path / "two")
    assert bits(one)[0] != bits(two)[0]


@pytest.mark.parametrize(
    ("scale_killed", "given"), [(0, TINY), (1, TINY), (2, TINY), (1, CHOOSING)]
)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(
    img, hole, tmp_path, monkeypatch, scale_killed, given
):
    whole = run.learn(img, hole, given, tmp_path / "whole")
    iterate = scale.Scale.iterate

    def killed(self, iteration):
        if self.plan.place == scale_killed and iteration == 1:
            raise KeyboardInterrupt
        return iterate(self, iteration)

    monkeypatch.setattr(scale.Scale, "iterate", killed)
    with pytest.raises(KeyboardInterrupt):
        run.learn(img, hole, given, tmp_path / "cut")
    kept = sorted((tmp_path / "cut" / "scales").glob("*"))
    assert len(kept) == scale_killed
    trained = []
    monkeypatch.setattr(
        scale.Scale,
        "iterate",
        lambda self, i: trained.append(self.plan.place) or iterate(self, i),
    )
    found = run.learn(img, hole, given, tmp_path / "cut", resume=True)
    assert bits(found) == bits(whole)
    assert set(trained) == set(range(scale_killed, 3))


def test_a_run_is_taken_up_as_it_was_begun_or_not_at_all(img, hole, tmp_path):
    with pytest.raises(InputError, match="no run to go on with; leave out --resume"):
        run.learn(img, hole, TINY, tmp_path, resume=True)
    run.learn(img, hole, TINY, tmp_path)
    with pytest.raises(InputError, match="holds a run; pass --resume to go on, --force"):
        run.learn(img, hole, TINY, tmp_path)
    with pytest.raises(InputError, match="another picture"):
        run.learn(255 - img, hole, TINY, tmp_path, resume=True)
    with pytest.raises(InputError, match="another settings"):
        run.learn(img, hole, dataclasses.replace(TINY, seed=8), tmp_path, resume=True)
    run.learn(img, hole, dataclasses.replace(TINY, seed=8), tmp_path, force=True)
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["seed"] == 8


def test_a_damaged_scale_is_named(img, hole, tmp_path):
    run.learn(img, hole, TINY, tmp_path)
    path = tmp_path / "scales" / "01" / "scale.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"01/scale.safetensors is damaged: its sha256"):
        run.learn(img, hole, TINY, tmp_path, resume=True)


@pytest.mark.parametrize(("fill", "state"), [(False, "empty"), (True, "full")])
def test_a_mask_without_hole_or_without_known_pixels_is_refused(img, fill, state, tmp_path):
    with pytest.raises(InputError, match=f"both hole and known pixels .* that is {state}"):
        run.learn(img, np.full((28, 35), fill), TINY, tmp_path)


def test_a_hole_that_leaves_too_little_is_refused_with_the_cure(img, tmp_path):
    hole = np.zeros((28, 35), bool)
    hole[8:22, 4:31] = True
    with pytest.raises(InputError, match=r"too few patches of 11 x 11 .* 39% of 28 x 35 pixels"):
        run.learn(img, hole, TINY, tmp_path)


@pytest.mark.parametrize("given", [TINY, CHOOSING], ids=["tiny", "choosing"])
def test_a_constant_picture_stays_finite(hole, tmp_path, given):
    img = np.full((28, 35, 3), 90, np.uint8)
    found = run.learn(img, hole, given, tmp_path)
    assert all(torch.isfinite(tensor).all() for one in found for tensor in one.weights)
    made = run.completions(found, 1, 0)
    assert made.shape == (1, 28, 35, 3)
    if given is CHOOSING:  # begins with what is there, and noise of no amplitude changes little
        assert np.abs(made.astype(int) - 90).max() < 40


def test_a_tiny_picture_is_refused_and_a_huge_one_brought_to_size():
    tiny, huge = np.zeros((24, 90, 3), np.uint8), np.zeros((1500, 2000, 3), np.uint8)
    hole = np.zeros((24, 90), bool)
    hole[3:5, 3:5] = True
    with pytest.raises(InputError, match=r"25 pixels on its shorter side .* got 24 x 90"):
        run.plan(tiny, hole, 256)
    hole = np.zeros((1500, 2000), bool)
    hole[700:900, 900:1200] = True
    plans = run.plan(huge, hole, 64)
    assert plans[-1].level.hole.shape == (48, 64)
    assert 1 <= plans[-1].level.hole.sum() <= 120


def test_a_small_hole_needs_no_naive_completion(img, tmp_path):
    hole = np.zeros((28, 35), bool)
    hole[0, 0] = True
    assert all(one.fine for one in run.plan(img, hole, 40))
    run.learn(img, hole, TINY, tmp_path)
    assert not (tmp_path / "naive").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"preset": "quick"}, "preset must be one of paper, balanced, fast, got 'quick'"),
        ({"naive": "none"}, "naive must be one of dip, dip-original, patch, telea, got 'none'"),
        ({"seed": -1}, "seed must be 0 to 4294967295, got -1"),
        ({"size": 12}, "size must be 25 to 1024 pixels, got 12"),
    ],
)
def test_settings_that_there_are_not_are_refused(asked, message):
    with pytest.raises(InputError, match=message):
        run.settings(**asked)


def test_the_papers_schedule():
    paper = find("paper")
    assert [paper.width_of(n) for n in (0, 3, 4, 7, 8, 12)] == [32, 32, 64, 64, 128, 128]
    assert [paper.alpha_of(n, 10) for n in (0, 6, 7, 9)] == [10, 10, 100, 100]
    assert paper.rate(False, 0) == 5e-4
    assert paper.rate(False, 1600) == pytest.approx(5e-5)
    assert paper.rate(True, 2999) == 5e-5
    assert PRESETS["fast"].widest == 32


def test_weights_pass_from_scale_to_scale_of_one_width(img, hole):
    plans = run.plan(img, hole, 40)
    cpu = torch.device("cpu")
    filled = [p._replace(real=torch.from_numpy(p.level.known)[None]) for p in plans]
    first = scale.Scale(filled[0], [], None, TINY.preset, 1, cpu)
    with torch.no_grad():
        done = first.freeze()
        heir = scale.Scale(
            filled[1], [done.frozen], (done.generator, done.discriminator), TINY.preset, 2, cpu
        )
        other = scale.Scale(filled[1], [done.frozen], None, WIDE, 2, cpu)
    assert torch.equal(heir.generator.flat, done.generator.flat)
    assert torch.equal(heir.discriminator.flat, done.discriminator.flat)
    assert len(other.generator.flat) > len(heir.generator.flat)
    assert 0.01 < float(other.generator.weights[1].std()) < 0.03


def test_a_frozen_scale_does_what_the_trained_one_did_with_the_same_statistics(img, hole):
    """Folded, with the statistics of one pass, a scale gives that pass's picture."""
    one = run.plan(img, hole, 40)[-1]
    with torch.no_grad():
        trained = scale.Scale(one, [], None, TINY.preset, 1, torch.device("cpu"))
        made = trained.made(trained.drawn())
        statistics = [(n.mean[1, 0], n.inverse[1, 0].pow(-2) - 1e-5) for n in made.kept]
        weights, biases = cascade.fold(trained.generator, statistics)
        frozen = trained.scale._replace(weights=weights, biases=biases)
        found = cascade.generate(frozen, None, frozen.fixed)
    torch.testing.assert_close(found, made.out[1:], rtol=0, atol=1e-5)


def test_known_pixels_far_from_the_hole_are_the_same_in_every_completion(img, hole, tmp_path):
    """The noise is new in the eroded hole alone, and reaches as far as the pyramid carries it."""
    found = run.learn(img, hole, TINY, tmp_path)
    made = run.completions(found, 2, 0, erosion=1.0)
    assert (made[0] == made[1])[:4, 32:].all()
    assert (made[0] != made[1]).any()
    still = run.completions(found, 2, 0, erosion=99.0)
    assert (still[0] == still[1]).all()


@pytest.mark.parametrize("chosen", ["dip", "dip-original", "patch", "telea"])
def test_a_naive_completion_keeps_what_is_known(img, hole, chosen, monkeypatch):
    monkeypatch.setattr("picme_training.internal.dip.ITERATIONS", 3)
    plans = run.plan(img, hole, 40)
    filled = naive.complete(plans[-1].level, plans[0].level, chosen, seed=1)
    level = plans[0].level
    assert filled.shape == (3, *level.hole.shape)
    known = torch.from_numpy(~level.hole)
    assert torch.equal(filled[:, known], torch.from_numpy(level.known)[:, known])
    assert float(filled.abs().max()) <= 1
    assert float(filled[:, ~known].std()) > 0


def test_patches_come_from_the_mirror_image_too():
    """Of a picture with nothing twice but its two halves: what the hole hides is the other half."""
    coarse = np.random.default_rng(1).integers(0, 256, (12, 8, 3)).astype(np.float32)
    half = coarse.repeat(4, 0).repeat(4, 1).astype(np.uint8)
    img = np.concatenate([half, half[:, ::-1]], axis=1)
    hole = np.zeros(img.shape[:2], bool)
    hole[18:30, 40:52] = True
    finest = run.plan(img, hole, 64)[-1].level
    filled = naive.pixels(naive.complete(finest, finest, "patch", seed=1))
    assert np.abs(filled[hole].astype(int) - img[hole]).mean() < 12


def test_finer_scales_are_held_to_what_the_coarsest_noise_chose(img, hole):
    plans = run.plan(img, hole, 40)[:2]
    preset = dataclasses.replace(
        CHOOSING.preset, alpha=2000, alpha_last=2000, fine=30, fine_rate=5e-3, reduced=False
    )
    random = torch.Generator().manual_seed(0)
    drawn = torch.rand(3, 3, *plans[1].level.hole.shape, generator=random) - 0.5
    banks = [naive.fitted(drawn, one.level) for one in plans]
    cpu = torch.device("cpu")
    with torch.no_grad():
        plan = plans[0]._replace(real=banks[0], choices=banks[0])
        first = scale.Scale(plan, [], None, preset, 1, cpu).freeze()
        fine = scale.Scale(
            plans[1]._replace(choices=banks[1]), [first.frozen], None, preset, 2, cpu
        )
        begun = fine.drawn()
        share = cascade.shares(first.frozen, first.frozen.fixed)[0]
        chosen = (share[:, None, None, None] * banks[1]).sum(0)
        torch.testing.assert_close(fine.aim[1], chosen)
        inside = fine.hole[0, 0] > 0
        before = (begun[1] - chosen)[:, inside].square().mean()
        for iteration in range(30):
            fine.iterate(iteration)
        after = (fine.made(fine.drawn()).out[1] - chosen)[:, inside].square().mean()
    assert after < 0.9 * before


def test_the_fingerprint_is_of_known_bytes_and_hole(img, hole):
    other = img.copy()
    other[hole] += 1
    assert pyramid.fingerprint(img, hole) == pyramid.fingerprint(other, hole)
    other[~hole] += 1
    assert pyramid.fingerprint(img, hole) != pyramid.fingerprint(other, hole)
    assert pyramid.fingerprint(img, hole) != pyramid.fingerprint(img, ~hole)


def test_noise_chooses_what_the_coarsest_scale_begins_with_and_known_pixels_are_pasted(
    img, hole, tmp_path
):
    found = run.learn(img, hole, CHOOSING, tmp_path)
    first, second = found[:2]
    assert first.bank.shape == (3, 3, 25, 31)
    noise = cascade.draw(found, torch.Generator().manual_seed(0), 16)
    shares = cascade.shares(first, noise[0])
    assert len(set(shares.argmax(1).tolist())) == 3
    levels = [p.level for p in run.plan(img, hole, 40)]
    known = torch.from_numpy(~levels[0].hole)
    begun = cascade.begun(first, None, noise[0])
    expected = torch.from_numpy(levels[0].known)[:, known].expand(16, -1, -1)
    torch.testing.assert_close(begun[..., known], expected, rtol=0, atol=1e-6)
    other = torch.where(known, torch.randn(1, 3, 25, 31), torch.zeros(1))
    results = [cascade.begun(second, x, noise[1][:1]) for x in (other, torch.zeros_like(other))]
    assert torch.equal(*results)
    outside = noise[0] * (first.depth == 0)
    assert torch.equal(cascade.shares(first, outside), torch.full((16, 3), 1 / 3))


def test_fewer_scales_and_other_statistics_for_studies(img, hole, tmp_path):
    def learnt(name, **changes):
        given = dataclasses.replace(TINY, preset=dataclasses.replace(TINY.preset, **changes))
        return run.learn(img, hole, given, tmp_path / name)

    plain = learnt("plain")
    fine = [one for one in run.plan(img, hole, 40) if one.fine]
    assert [one.size for one in learnt("fine", coarse_scales=False)] == SIZES[-len(fine) :]
    assert bits(learnt("norm", masked_norm=False)) != bits(plain)
    louder = learnt("louder", variance=4.0)
    assert float(louder[0].amplitude) == 2 * float(plain[0].amplitude)

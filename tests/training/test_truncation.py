"""Means of primitives drawn nearer to those of others, in the weights."""

import copy
from pathlib import Path

import pytest
import torch
from mixtures import mixture, network

from picme_rt.cli import main
from picme_rt.errors import InputError
from picme_training import checkpoint, truncation
from picme_training.config import RunConfig, ScheduleConfig

KEEP, TOWARDS = (0.5, 1.0, 0.0), (1, 2)


@pytest.fixture
def script(load_script):
    return load_script("truncate")


@pytest.mark.parametrize("preset", ["cats", "picme"])
def test_means_move_as_far_as_is_said_and_nothing_else_does(preset):
    model = network(preset)
    before = mixture(model)
    truncation.truncate(model, KEEP, TOWARDS)
    after = mixture(model)
    anchor = before.mu[:, list(TOWARDS)].mean(1, keepdim=True)
    want = anchor + torch.tensor(KEEP)[:, None] * (before.mu - anchor)
    assert (before.mu - want).abs().max() > 0.01
    torch.testing.assert_close(after.mu, want, rtol=1e-5, atol=1e-5)
    assert torch.equal(after.log_alpha, before.log_alpha)
    assert torch.equal(after.log_sigma, before.log_sigma)


def test_what_is_kept_whole_is_kept_to_the_bit():
    model, before = network(), network().state_dict()
    truncation.truncate(model, (1, 1, 1), (0,))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("keep", "towards", "said"),
    [
        ((1, 1), (0,), r"keep must be 3 numbers from 0 to 1, got \[1, 1\]"),
        ((1, 1, 1.5), (0,), r"got \[1, 1, 1\.5\]"),
        ((1, 1, float("nan")), (0,), r"got \[1, 1, nan\]"),
        (KEEP, (), r"towards must be different primitives from 0 to 2, got \[\]"),
        (KEEP, (1, 1), r"got \[1, 1\]"),
        (KEEP, (3,), r"got \[3\]"),
    ],
)
def test_bad_shares_are_refused_and_nothing_is_changed(keep, towards, said):
    model, before = network(), network().state_dict()
    with pytest.raises(InputError, match=said):
        truncation.truncate(model, keep, towards)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("preset", ["pic", "cats"])
def test_one_gaussian_has_nothing_to_be_drawn_to(preset):
    with pytest.raises(InputError, match="a mixture of two primitives or more"):
        truncation.truncate(network(preset, 1), (1,), (0,))


def test_a_run_and_its_engine_give_the_same_checkpoint(script, exported, quick, tmp_path, capsys):
    model = copy.deepcopy(exported("cats").model)
    settings = RunConfig(model.config, ScheduleConfig(steps=9))
    said = checkpoint.Description(settings, 9, 90, None)
    checkpoint.save_weights(tmp_path / "run", said, model)
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "engine")]) == 0
    keep = (*KEEP, 1.0, 1.0, 1.0)  # of six
    flags = ["--keep", *map(str, keep), "--towards", *map(str, TOWARDS)]
    made = []
    for source in ("run", "engine"):
        capsys.readouterr()
        out = tmp_path / f"of_{source}"
        assert script.main([str(out), str(tmp_path / source), *flags]) == 0
        made.append(Path(capsys.readouterr().out.strip()))
        assert made[-1] == out / "checkpoints" / "step_00000009"
        assert checkpoint.describe(made[-1]) == said
    one, two = (checkpoint.tensors(place, "ema") for place in made)
    truncation.truncate(model, keep, TOWARDS)
    for name, value in model.named_parameters():
        assert torch.equal(one[name], value), name
        assert torch.equal(two[name], value), name
    assert script.main([str(tmp_path / "of_run"), str(tmp_path / "run"), *flags]) == 1
    assert "holds a run; name another folder" in capsys.readouterr().err

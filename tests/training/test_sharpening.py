"""The likelier primitives drawn oftener, in the weights."""

import copy
from pathlib import Path

import pytest
import torch
from mixtures import mixture, network

from picme_rt.cli import main
from picme_rt.errors import InputError
from picme_training import checkpoint, sharpening
from picme_training.config import RunConfig, ScheduleConfig


@pytest.fixture
def script(load_script):
    return load_script("sharpen")


@pytest.mark.parametrize("preset", ["cats", "picme"])
@pytest.mark.parametrize("power", [0.5, 1.5, 4])
def test_alpha_is_its_power_with_the_sum_one_and_nothing_else_moves(preset, power):
    model = network(preset)
    before = mixture(model)
    sharpening.sharpen(model, power)
    after = mixture(model)
    want = before.log_alpha.exp() ** power
    want = want / want.sum(1, keepdim=True)
    assert (before.log_alpha.exp() - want).abs().max() > 0.01
    torch.testing.assert_close(after.log_alpha.exp(), want, rtol=1e-5, atol=1e-6)
    assert torch.equal(after.log_alpha.argmax(1), before.log_alpha.argmax(1))
    assert torch.equal(after.mu, before.mu)
    assert torch.equal(after.log_sigma, before.log_sigma)


@pytest.mark.parametrize("power", [0, -1.0, float("nan"), float("inf")])
def test_a_power_that_is_none_is_refused_and_nothing_is_changed(power):
    model, before = network(), network().state_dict()
    with pytest.raises(InputError, match=f"power must be a number above 0, got {power}"):
        sharpening.sharpen(model, power)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("preset", ["pic", "cats"])
def test_one_gaussian_has_nothing_to_be_sharpened(preset):
    with pytest.raises(InputError, match="a mixture of two primitives or more"):
        sharpening.sharpen(network(preset, 1), 1.5)


def test_a_run_and_its_engine_give_the_same_checkpoint(script, exported, tmp_path, capsys):
    model = copy.deepcopy(exported("cats").model)
    said = checkpoint.Description(RunConfig(model.config, ScheduleConfig(steps=9)), 9, 90, None)
    checkpoint.save_weights(tmp_path / "run", said, model)
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "engine")]) == 0
    made = []
    for source in ("run", "engine"):
        capsys.readouterr()
        out = tmp_path / f"of_{source}"
        assert script.main([str(out), str(tmp_path / source), "--power", "1.5"]) == 0
        made.append(Path(capsys.readouterr().out.strip()))
        assert made[-1] == out / "checkpoints" / "step_00000009"
        assert checkpoint.describe(made[-1]) == said
    one, two = (checkpoint.tensors(place, "ema") for place in made)
    sharpening.sharpen(model, 1.5)
    for name, value in model.named_parameters():
        assert torch.equal(one[name], value), name
        assert torch.equal(two[name], value), name
    assert script.main([str(tmp_path / "of_run"), str(tmp_path / "run"), "--power", "1.5"]) == 1
    assert "holds a run; name another folder" in capsys.readouterr().err

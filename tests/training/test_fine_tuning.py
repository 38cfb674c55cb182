"""The scripts that train a network further by LPIPS, each on a tiny checkpoint."""

import contextlib

import pytest
import torch

from picme_rt.errors import InputError
from picme_training import (
    checkpoint,
    discriminator,
    engine_weights,
    fine_tuning,
    mending,
    settling,
)
from picme_training.config import NetworkConfig, RunConfig, ScheduleConfig
from picme_training.networks import Picme

CONFIG = RunConfig(NetworkConfig("cats", 64, 3), ScheduleConfig(4, batch=2, lr=1e-2))
MORE = {"settle": [], "mend": ["--worst", "2"]}
BY_SCRIPT = pytest.mark.parametrize("name", MORE)
TOML = """
[network]
preset = "cats"
size = 64
primitives = {primitives}
[schedule]
steps = 2
batch = 2
lr = 1e-2
"""


def network():
    torch.manual_seed(3)
    return Picme(CONFIG.network)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(mending, "WARM_UP", 2)


@pytest.fixture
def command(load_script, picture_folder, lpips_file, tmp_path):
    """Runs a script on a checkpoint of CONFIG, in tmp_path/source; gives its exit code."""
    source = tmp_path / "source"
    checkpoint.save_weights(source, checkpoint.Description(CONFIG, 7, 70), network())

    def run(name, out, *more, primitives=3):
        toml = tmp_path / "run.toml"
        toml.write_text(TOML.format(primitives=primitives))
        data = ["--data", str(picture_folder), "--lpips-weights", str(lpips_file)]
        return load_script(name).main([str(toml), str(out), str(source), *data, *more])

    return run


@BY_SCRIPT
def test_the_command_writes_a_checkpoint_to_export(name, command, tmp_path, capsys):
    out = tmp_path / "tuned"
    assert command(name, out, *MORE[name]) == 0
    assert capsys.readouterr().out == f"{checkpoint.find(out)}\n"
    said, model = engine_weights.averaged(out)
    assert (said.config, said.step, said.pictures) == (CONFIG, 7, 70)
    before = network().state_dict()
    assert any(not torch.equal(v, before[n]) for n, v in model.state_dict().items())


@BY_SCRIPT
def test_another_network_or_a_folder_with_a_run_is_one_line(name, command, tmp_path, capsys):
    assert command(name, tmp_path / "tuned", primitives=2) == 1
    assert "has another network than" in capsys.readouterr().err
    assert command(name, tmp_path / "source") == 1
    assert capsys.readouterr().err.startswith(f"{name}.py: ")
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize("worst", ["0", "8"])
def test_as_many_worst_pictures_as_there_are_is_one_line(worst, command, tmp_path, capsys):
    assert command("mend", tmp_path / "tuned", "--worst", worst) == 1
    assert f"--worst must be 1 to 7, fewer than pictures, got {worst}" in capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()


def test_a_judge_that_is_none_is_one_line(command, tmp_path, capsys):
    source = tmp_path / "source"  # weights alone
    assert command("mend", tmp_path / "tuned", "--worst", "2", "--judge", str(source)) == 1
    said = capsys.readouterr().err
    assert "mend.py: " in said
    assert "discriminator.safetensors cannot be read" in said
    assert "holds averaged weights alone; name a checkpoint of picme train" in said
    assert not (tmp_path / "tuned").exists()


def test_mending_goes_on_from_the_judge_of_a_run(command, tmp_path):
    """A D that is not the new one says something else, and so the network moves elsewhere."""
    torch.manual_seed(5)
    judge, run, tuned = discriminator.make(CONFIG.network), tmp_path / "run", []
    state = checkpoint.State(network(), network(), judge, {})
    checkpoint.save(run, checkpoint.Description(CONFIG, 9, 90), state)
    for name, more in ("new", []), ("further", ["--judge", str(run)]):
        assert command("mend", tmp_path / name, "--worst", "2", *more) == 0
        tuned.append(engine_weights.averaged(tmp_path / name)[1].state_dict())
    assert any(not torch.equal(v, tuned[1][n]) for n, v in tuned[0].items())


@BY_SCRIPT
def test_a_place_that_cannot_be_written_is_one_line_before_any_step(
    name, command, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(fine_tuning, "tqdm", lambda *_, **__: pytest.fail("a step for nothing"))
    assert command(name, tmp_path / "file", *MORE[name]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"{name}.py: ")
    assert "Not a directory" in said


@BY_SCRIPT
def test_who_is_told_to_end_keeps_the_steps_until_then(
    name, command, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(fine_tuning.stopping, "told", lambda: contextlib.nullcontext(lambda: True))
    assert command(name, tmp_path / "tuned", *MORE[name]) == 130
    out, err = capsys.readouterr()
    assert out == f"{checkpoint.find(tmp_path / 'tuned')}\n"
    assert f"{name}.py: told to end after 1 of 2 steps, which are kept" in err


def test_a_network_whose_weights_are_no_numbers_any_more_is_taught_no_further(
    command, tmp_path, monkeypatch, capsys
):
    taken = []

    def poison(model, *_):
        for step in range(2):
            taken.append(step)
            with torch.no_grad():
                model.latent.mu[-1].bias[0] = float("nan")
            yield step

    monkeypatch.setattr(fine_tuning, "LOG_EVERY", 1)
    monkeypatch.setattr(settling, "settle", poison)
    assert command("settle", tmp_path / "tuned") == 1
    assert taken == [0]
    said = capsys.readouterr().err
    assert "settle.py: a weight is not finite after 1 steps; lower schedule.lr" in said


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    model = network()
    with torch.no_grad():
        model.latent.mu[-1].bias[0] = float("nan")
    with pytest.raises(InputError, match=r"must be finite, got latent\.mu\.2\.bias"):
        checkpoint.save_weights(tmp_path / "run", checkpoint.Description(CONFIG, 7, 70), model)
    assert not (tmp_path / "run").exists()

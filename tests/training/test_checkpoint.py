import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from picme_rt.errors import InputError
from picme_training import averaging, checkpoint, dataset
from picme_training.config import LossConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.loop import Trainer
from picme_training.networks import Picme

FILES = ("discriminator", "ema", "model", "optimizer")


def run(preset="cats", **more):
    primitives = 1 if preset == "pic" else 3
    return RunConfig(
        NetworkConfig(preset, 64, primitives), ScheduleConfig(steps=10, batch=2, **more),
        LossConfig(decoded="best"),
    )  # fmt: skip


def batch(photographs, start):
    image = photographs[start : start + 2].float() / 127.5 - 1
    hole = torch.zeros(2, 1, 64, 64)
    hole[:, :, 16:48, 16:48] = 1
    return image, hole


def trained(photographs, preset="cats", steps=1):
    trainer = Trainer(run(preset), torch.device("cpu"), None)
    for step in range(steps):
        trainer.train_step(*batch(photographs, 2 * step))
    return trainer


def save(folder, trainer, step=None):
    said = checkpoint.Description(trainer.config, step or trainer.step, trainer.pictures)
    return checkpoint.save(folder, said, trainer.state)


def contents(trainer):
    """Every number that a run goes on with, by name."""
    found = {}
    for name in ("model", "ema", "discriminator"):
        for key, value in getattr(trainer.state, name).state_dict().items():
            found[f"{name}.{key}"] = value
    for name, optimizer in trainer.optimizers.items():
        for index, entry in optimizer.state_dict()["state"].items():
            found |= {f"{name}.{index}.{key}": value for key, value in entry.items()}
    return found


@pytest.fixture(scope="module")
def trainer(photographs):
    return trained(photographs)


@pytest.fixture
def saved(trainer, tmp_path):
    """A checkpoint of `trainer`, the test's own."""
    return save(tmp_path, trainer)


def edit(place, **changes):
    path = place / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_checkpoint_is_safetensors_and_one_json(saved):
    assert saved.name == "step_00000001"
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["checkpoint.json", *(f"{name}.safetensors" for name in FILES)]


def test_its_files_have_the_modes_that_an_ordinary_open_gives(saved, tmp_path):
    """The library that writes them would let nobody but their owner read."""
    plain = tmp_path / "plain"
    plain.touch()
    assert {path.stat().st_mode for path in saved.iterdir()} == {plain.stat().st_mode}


@pytest.mark.parametrize("preset", ["picme", "pic", "cats"])
def test_everything_comes_back_to_the_bit(photographs, tmp_path, preset):
    before = trained(photographs, preset, steps=2)
    place = save(tmp_path, before)
    after = Trainer(run(preset, seed=5), torch.device("cpu"), None)
    checkpoint.load(place, after.state)
    assert checkpoint.describe(place).step == 2
    one, two = contents(before), contents(after)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("preset", ["picme", "cats"])
def test_the_next_step_after_loading_is_the_one_without_to_the_bit(photographs, tmp_path, preset):
    before = trained(photographs, preset, steps=2)
    after = Trainer(run(preset), torch.device("cpu"), None)
    checkpoint.load(save(tmp_path, before), after.state)
    after.step = before.step
    one, two = (t.train_step(*batch(photographs, 4)) for t in (before, after))
    assert {k: v.item() for k, v in one.items()} == {k: v.item() for k, v in two.items()}
    one, two = contents(before), contents(after)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_checkpoint_says_its_configuration_and_step(saved, trainer):
    assert checkpoint.describe(saved) == (trainer.config, 1, 2, None)


def test_the_averaged_and_the_live_weights_are_stored_apart(photographs, saved, trainer):
    model, ema = (Trainer(run(), torch.device("cpu"), None).model for _ in range(2))
    checkpoint.load_module(saved, "model", model)
    checkpoint.load_module(saved, "ema", ema)
    pairs = list(zip(model.parameters(), ema.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in pairs)
    for (a, b), live, kept in zip(
        pairs, trainer.model.parameters(), trainer.ema.parameters(), strict=True
    ):
        assert torch.equal(a, live)
        assert torch.equal(b, kept)


# Finding


def test_find_takes_a_checkpoint_itself_or_the_newest_of_a_run(tmp_path, trainer):
    old, new = save(tmp_path, trainer, 9), save(tmp_path, trainer, 10)
    assert checkpoint.find(old) == old
    assert checkpoint.find(tmp_path) == new


def test_a_newest_one_without_its_description_is_not_passed_over(tmp_path, trainer):
    old, new = save(tmp_path, trainer, 9), save(tmp_path, trainer, 10)
    (new / "checkpoint.json").unlink()
    with pytest.raises(InputError, match=f"{new} has no checkpoint.json; delete {new.name} to"):
        checkpoint.describe(checkpoint.find(tmp_path))
    (old / "checkpoint.json").unlink()
    with pytest.raises(InputError, match=f"{new} has no checkpoint.json; no whole checkpoint"):
        checkpoint.describe(checkpoint.find(tmp_path))


def test_a_checkpoint_knows_what_it_has_learnt_from(tmp_path, trainer):
    learnt = dataset.identify(["a.jpg", "b.jpg"], ["hole.png"])
    assert learnt[:2] == (2, 1)
    said = checkpoint.Description(trainer.config, 1, 2, learnt)
    place = checkpoint.save(tmp_path, said, trainer.state)
    assert checkpoint.describe(place).dataset == learnt
    dataset.check_same(place, learnt, dataset.identify(["a.jpg", "b.jpg"], ["hole.png"]))
    for others in ((["b.jpg", "a.jpg"], ["hole.png"]), (["a.jpg"], ["b.jpg", "hole.png"])):
        with pytest.raises(InputError, match="2 pictures and 1 masks, --data and --masks are"):
            dataset.check_same(place, learnt, dataset.identify(*others))


@pytest.mark.parametrize(
    ("damaged", "said"),
    [(7, "dataset must be of type dict, got 7"), ({}, "dataset.pictures must be of type int")],
)
def test_a_damaged_dataset_is_refused(saved, damaged, said):
    edit(saved, dataset=damaged)
    with pytest.raises(InputError, match=f"checkpoint.json is damaged: {said}"):
        checkpoint.describe(saved)


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither a checkpoint nor a run"):
        checkpoint.find(tmp_path)


def test_the_newest_two_are_kept(tmp_path, trainer):
    for step in (2, 9, 10, 100):
        place = save(tmp_path, trainer, step)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step_00000010", "step_00000100"]
    assert place.name == left[-1]


def test_saving_a_step_again_replaces_it(saved, tmp_path, photographs):
    before = (saved / "model.safetensors").read_bytes()
    again = save(tmp_path, trained(photographs, steps=2), step=1)
    assert again == saved
    assert (again / "model.safetensors").read_bytes() != before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [saved.name]


# Refusing


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_by_its_hash(saved, trainer, name):
    path = saved / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}\.safetensors is damaged: its sha256"):
        checkpoint.load(saved, trainer.state)


def test_a_missing_file_is_named(saved, trainer):
    (saved / "ema.safetensors").unlink()
    with pytest.raises(InputError, match=r"ema\.safetensors cannot be read: there is no such"):
        checkpoint.load(saved, trainer.state)


def test_a_file_without_a_hash_is_refused(saved, trainer):
    edit(saved, sha256={})
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read: .* has no sha256"):
        checkpoint.load_module(saved, "model", trainer.model)


@pytest.mark.parametrize("preset", ["picme", "pic"])
def test_the_weights_of_another_network_are_refused(saved, preset):
    other = Trainer(run(preset), torch.device("cpu"), None)
    with pytest.raises(InputError, match=r"model\.safetensors does not fit the network"):
        checkpoint.load_module(saved, "model", other.model)


def test_another_number_of_primitives_is_another_network(saved):
    config = RunConfig(NetworkConfig("cats", 64, 4), ScheduleConfig(1))
    other = Trainer(config, torch.device("cpu"), None)
    with pytest.raises(InputError, match="does not fit the network"):
        checkpoint.load_module(saved, "model", other.model)


def test_a_newer_format_is_refused_with_both_numbers(saved):
    edit(saved, format=2)
    with pytest.raises(InputError, match="format 2, this version reads 1"):
        checkpoint.describe(saved)


ENDS = '{"format": 1, "step": 3'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "it is no table"),
        ("{}", "format must be of type int, got None"),
        (ENDS + "}", "config must be of type dict, got None"),
        (ENDS + ', "config": []}', r"config must be of type dict, got \[\]"),
        (ENDS + ', "config": {}, "pictures": Infinity}', "pictures must be of type int, got inf"),
    ],
)
def test_a_damaged_json_is_refused(saved, content, why):
    (saved / "checkpoint.json").write_text(content)
    with pytest.raises(InputError, match=rf"checkpoint\.json is damaged: {why}.*; no whole"):
        checkpoint.describe(saved)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("checkpoint.json", b"{", "is damaged: Expecting"),
        ("model.safetensors", b"", "is damaged: its sha256"),
        ("model.safetensors", None, "cannot be read: there is no such file"),
    ],
)
def test_a_damaged_checkpoint_names_the_newest_whole_one_before_it(
    tmp_path, trainer, name, content, why
):
    old, new = save(tmp_path, trainer, 9), save(tmp_path, trainer, 10)
    (new / name).unlink()
    if content is not None:
        (new / name).write_bytes(content)
    read = checkpoint.describe if name == "checkpoint.json" else checkpoint.tensors
    given = (new,) if name == "checkpoint.json" else (new, "model")
    with pytest.raises(InputError, match=f"{name} {why}.*; delete {new.name} .* from {old.name}$"):
        read(*given)
    (old / "ema.safetensors").unlink()
    with pytest.raises(InputError, match=f"{name} {why}.*; no whole checkpoint that is older"):
        read(*given)


def test_a_configuration_of_another_version_is_refused(saved, trainer):
    edit(saved, config={**trainer.config.to_dict(), "future": {}})
    with pytest.raises(InputError, match="unknown entry 'future'"):
        checkpoint.describe(saved)


# Atomic


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_failure_while_writing_leaves_the_old_one_and_no_half_one(
    saved, tmp_path, trainer, monkeypatch, after
):
    real, calls = checkpoint.save_file, []

    def failing(tensors, path):
        calls.append(path)
        if len(calls) > after:
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", failing)
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    for step in (1, 2):  # over the old one, and beside it
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, trainer, step)
        calls.clear()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [saved.name]
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert checkpoint.find(tmp_path) == saved


def test_the_old_ones_go_only_after_the_new_one_is_whole(tmp_path, trainer, monkeypatch):
    for step in (1, 2):
        save(tmp_path, trainer, step)
    monkeypatch.setattr(checkpoint, "_sha256", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(tmp_path, trainer, 3)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step_00000001", "step_00000002"]


# Averages of several

SCRIPT = Path(__file__).parents[2] / "training" / "average.py"


def averaged(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_an_average_has_the_weighted_means_and_the_rest_of_the_last(photographs, trainer, tmp_path):
    one, two = (
        save(tmp_path / "one", trainer),
        save(tmp_path / "two", trained(photographs, steps=2)),
    )
    done = averaged(tmp_path / "out", f"{one}=0.25", f"{tmp_path / 'two'}=0.75")
    assert done.returncode == 0, done.stderr
    place = Path(done.stdout.strip())
    assert place == checkpoint.find(tmp_path / "out")
    assert checkpoint.describe(place) == checkpoint.describe(two)
    for name in FILES:
        parts = [checkpoint.tensors(at, name) for at in (one, two)]
        for key, value in checkpoint.tensors(place, name).items():
            floats = name in ("model", "ema") and value.is_floating_point()
            want = 0.25 * parts[0][key] + 0.75 * parts[1][key] if floats else parts[1][key]
            torch.testing.assert_close(value, want, rtol=1e-6, atol=1e-7)
    fresh = trained(photographs)
    checkpoint.load(place, fresh.state)


def test_an_average_with_weights_alone_is_weights_alone(photographs, trainer, tmp_path):
    one, two = save(tmp_path / "one", trainer), trained(photographs, steps=2)
    said = checkpoint.Description(two.config, 9, 90)
    other = checkpoint.save_weights(tmp_path / "other", said, two.ema)
    for places in ([one, other], [other, one]):
        run = tmp_path / f"from_{places[0].parent.parent.name}"
        place = averaging.average(run, places, [0.5, 0.5])
        assert {path.name for path in place.iterdir()} == {"checkpoint.json", "ema.safetensors"}
        mean = checkpoint.tensors(place, "ema")
        first, second = (checkpoint.tensors(each, "ema") for each in places)
        for name, value in mean.items():
            if value.is_floating_point():
                torch.testing.assert_close(value, (first[name] + second[name]) / 2)


def test_an_average_with_weights_that_have_no_statistics_has_none(photographs, trainer, tmp_path):
    one, fresh = save(tmp_path / "one", trainer), Picme(trainer.config.network)
    assert fresh.whiten.num_batches_tracked == 0
    other = checkpoint.save_weights(tmp_path / "other", checkpoint.describe(one), fresh)
    for places in ([one, other], [other, one]):
        run = tmp_path / f"from_{places[0].parent.parent.name}"
        mean = checkpoint.tensors(averaging.average(run, places, [0.5, 0.5]), "ema")
        assert mean["whiten.num_batches_tracked"] == 0
        assert not mean["whiten.running_mean"].any()
        assert (mean["whiten.running_var"] == 1).all()


def test_what_cannot_be_averaged_is_one_line(photographs, trainer, tmp_path, capsys, load_script):
    script = load_script("average")
    one = save(tmp_path / "one", trainer)
    other = save(tmp_path / "other", trained(photographs, "picme"))
    for parts, said in (
        ([f"{one}=1"], "takes two checkpoints or more"),
        ([f"{one}=0.5", f"{one}=0.6"], "sum to 1, got [0.5, 0.6]"),
        ([f"{one}=1.5", f"{one}=-0.5"], "0 or more"),
        ([f"{one}=nan", f"{one}=0.5"], "0 or more and sum to 1, got [nan, 0.5]"),
        ([f"{one}=0.5", f"{one}=nan"], "0 or more and sum to 1, got [0.5, nan]"),
        ([f"{one}=half", f"{one}=0.5"], "RUN=SHARE, got"),
        ([f"{one}=0.5", f"{other}=0.5"], "is of another network than"),
        ([f"{other}=0.5", f"{other}=0.5"], "without spectral norm, preset 'cats', got preset 'pic"),
        ([f"{tmp_path}=0.5", f"{one}=0.5"], "neither a checkpoint nor a run"),
    ):
        assert script.main([str(tmp_path / "out"), *parts]) == 1
        stderr = capsys.readouterr().err
        assert stderr.count("\n") == 1
        assert said in stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="holds a run; name another folder"):
        averaging.average(tmp_path / "one", [one, one], [0.5, 0.5])

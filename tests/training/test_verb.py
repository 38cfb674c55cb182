import json
import os
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from picme_rt.cli import main
from picme_training import data, device, verb

TOML = """
[network]
preset = "cats"
size = 64
primitives = 2
[schedule]
steps = {steps}
batch = 2
evaluate_every = 1
"""


@pytest.fixture
def folder(picture_folder, tmp_path):
    """The photographs, and four files that cannot be learnt from."""
    place = tmp_path / "mixed"
    shutil.copytree(picture_folder, place)
    (place / "broken.png").write_bytes(b"")
    Image.new("L", (70, 70), 80).save(place / "grey.png")
    Image.new("RGB", (63, 70), "red").save(place / "low.png")
    os.mkfifo(place / "pipe.png")
    return place


@pytest.fixture
def train(tmp_path, picture_folder):
    """Calls `picme train`; measures with the photographs."""

    def call(*flags, data, val=picture_folder, steps=1, toml=TOML):
        (tmp_path / "run.toml").write_text(toml.format(steps=steps))
        places = ("--data", str(data), "--val", str(val), "--out", str(tmp_path / "out"))
        return main(["train", str(tmp_path / "run.toml"), *places, *flags])

    return call


def test_a_folder_with_bad_files_is_trained_from_and_they_are_counted_by_name(
    train, folder, tmp_path, capsys
):
    clear = Image.open(folder / "0.png")
    clear.putalpha(0)
    clear.save(folder / "0.png")
    assert train("--json", data=folder, val=folder) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert (said["pictures"], said["skipped"], said["step"]) == (8, 4, 1)
    assert said["val"]["val_pairwise"] > 0
    for name in ("--data", "--val"):
        assert f"{name}: skipped 1 grey (grey.png)" in captured.err
        assert f"{name}: skipped 1 tiny (low.png)" in captured.err
        assert f"{name}: skipped 2 unreadable (broken.png, pipe.png)" in captured.err
        assert f"{name}: 1 with transparent pixels, whose stored colours are" in captured.err
    table = json.loads((tmp_path / "out" / "skipped.json").read_text())
    assert table.keys() == {"data", "val"}
    assert table["data"]["tiny"] == {"low.png": "63x70, less than 64"}
    assert list(table["val"]["unreadable"]) == ["broken.png", "pipe.png"]


def test_grey_pictures_are_learnt_from_when_they_are_asked_for(train, folder, capsys):
    assert train("--json", "--keep-grey", data=folder) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["pictures"], said["skipped"]) == (9, 3)


def test_a_list_of_skipped_files_goes_when_a_resumed_run_finds_none(
    train, folder, picture_folder, tmp_path
):
    assert train(data=folder) == 0
    assert (tmp_path / "out" / "skipped.json").exists()
    assert train("--resume", data=picture_folder) == 0
    assert not (tmp_path / "out" / "skipped.json").exists()


def test_a_run_that_exists_is_refused_before_the_pictures_are_read(
    train, folder, picture_folder, tmp_path, monkeypatch, capsys
):
    assert train(data=picture_folder) == 0
    monkeypatch.setattr(data, "load_pictures", lambda *_, **__: pytest.fail("was read"))
    assert train(data=folder) == 1
    assert "holds a run; pass --resume" in capsys.readouterr().err
    assert not (tmp_path / "out" / "skipped.json").exists()


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta"])
def test_a_device_that_is_not_here_is_one_line_before_the_pictures_are_read(
    train, folder, monkeypatch, capsys, device
):
    monkeypatch.setattr(data, "load_pictures", lambda *_, **__: pytest.fail("was read"))
    assert train("--device", device, data=folder) == 1
    error = capsys.readouterr().err
    assert f"device must be a torch device that is here, got {device!r}" in error
    assert error.count("\n") == 1


def test_a_folder_of_which_nothing_is_left_is_one_error(train, tmp_path, capsys):
    (tmp_path / "grey").mkdir()
    for i in range(9):
        Image.fromarray(np.full((70, 70), i, np.uint8)).save(tmp_path / "grey" / f"{i}.png")
    assert train(data=tmp_path / "grey") == 1
    error = capsys.readouterr().err
    assert "9 grey (0.png, 1.png, 2.png, 3.png, 4.png, ...); --keep-grey" in error
    assert len([line for line in error.splitlines() if line.startswith("picme:")]) == 1
    assert not (tmp_path / "out").exists()


def test_held_out_pictures_come_from_the_usable_ones(train, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verb, "HELD_OUT", 3)
    (tmp_path / "run.toml").write_text(TOML.format(steps=1))
    assert main(["train", str(tmp_path / "run.toml"), "--data", str(folder),
                 "--out", str(tmp_path / "out"), "--json"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["pictures"] == 5


@pytest.mark.parametrize(("emulated", "lines"), [(True, 1), (False, 0)])
def test_bf16_that_a_cpu_emulates_is_said_and_what_to_set(
    train, picture_folder, tmp_path, monkeypatch, capsys, emulated, lines
):
    monkeypatch.setattr(device, "emulates_bf16", lambda place: emulated and place.type == "cpu")
    monkeypatch.setattr("picme_training.loop.train", lambda *_, **__: tmp_path)
    assert train(data=picture_folder, toml=TOML + 'precision = "bf16"\n') == 0
    said = "precision 'bf16' is emulated on this CPU, several times slower than 'fp32': set"
    assert capsys.readouterr().err.count(f'{said} precision = "fp32" under [schedule]') == lines


def test_a_device_that_is_no_cpu_does_not_emulate_bf16():
    assert not device.emulates_bf16(torch.device("meta"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86")
def test_a_cpu_without_avx512_emulates_bf16():
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0]
    assert device.emulates_bf16(torch.device("cpu")) == ("avx512bw" not in flags)

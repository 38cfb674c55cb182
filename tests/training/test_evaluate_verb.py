import errno
import json
import shutil
import urllib.error

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from picme_rt import atomic
from picme_rt.cli import main
from picme_training.evaluate import comparison

FILES = {"latents.png", "primitives.png", "report.json", "report.md", "sheet.png"}


@pytest.fixture
def evaluate(engine, picture_folder):
    """Calls `picme evaluate`: the tiny engine on the photographs, two results each."""

    def call(*flags, model=engine, data=picture_folder):
        given = [str(flag) for flag in flags]
        return main(["evaluate", str(model), "--data", str(data), "-k", "2", *given])

    return call


@pytest.fixture(scope="module")
def weights(stand_in, tmp_path_factory):
    """The stand-in's weights as a file of LPIPS-squeeze has them."""
    state = stand_in.state_dict()
    stored = {k: v for k, v in state.items() if k.startswith("features.")}
    stored |= {f"lin{i}.model.1.weight": state[f"lins.{i}"] for i in range(7)}
    place = tmp_path_factory.mktemp("weights") / "lpips.safetensors"
    save_file(stored, place)
    return place


def one_line(capsys, says):
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("picme: ")]
    assert len(lines) == 1
    assert says in lines[0]


def test_an_engine_is_measured_and_the_report_lies_in_its_folder(
    evaluate, weights, tmp_path, capsys
):
    out = tmp_path / "out" / "report"
    flags = ("--baselines", "telea,mean", "--lpips-weights", weights, "-o", out, "--limit", 5)
    assert evaluate(*flags, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "report.json").read_text()) == said
    assert (said["pictures"], said["size"], said["samples"]) == (5, 64, 2)
    assert said["feature_space"] == "SqueezeNet"
    assert said["model"]["backend"] == "onnxruntime"
    assert said["measures"].keys() == {"original", "model", "telea", "mean"}
    assert said["relative"]["LPIPS_hole"]["telea"] > 0
    assert "best" not in said["primitives"]
    assert (out / "report.md").read_text().startswith("# ")


def test_a_checkpoint_is_measured_as_its_engine_is_and_knows_the_best(
    evaluate, saved, capsys, weights
):
    found = []
    for flags in ({}, {"model": saved}):
        assert evaluate("--lpips-weights", weights, "--json", "--limit", 4, **flags) == 0
        found.append(json.loads(capsys.readouterr().out))
    one, other = (each["measures"]["model"] for each in found)
    for name in set(one) - {"FID", "KID", "DIV_FID"}:  # a byte's rounding moves them all a little
        assert one[name]["mean"] == pytest.approx(other[name]["mean"], rel=1e-2), name
    assert found[1]["model"]["step"] == 9
    assert sum(found[1]["primitives"]["best"]) == pytest.approx(1)
    assert found[0]["primitives"]["drawn"] == found[1]["primitives"]["drawn"]


def test_without_weights_it_says_what_is_left_out(evaluate, capsys):
    assert evaluate() == 0
    captured = capsys.readouterr()
    assert "without --lpips-weights FILE (or download) LPIPS, FID and KID" in captured.err
    assert "there are no LPIPS, FID and KID" in captured.out
    assert "| PSNR in the hole, dB" in captured.out
    assert "| LPIPS" not in captured.out


def test_pictures_of_another_size_and_several_random_holes(evaluate, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        tiles = np.kron(rng.integers(0, 256, (4, 4, 3), np.uint8), np.ones((30, 30, 1), np.uint8))
        Image.fromarray(tiles).save(tmp_path / "pictures" / f"{i}.png")
    flags = ("--size", 96, "--masks", "random", "--holes", 3, "--json")
    assert evaluate(*flags, data=tmp_path / "pictures") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["size"], said["holes"], said["pictures"]) == (96, 3, 4)


def test_masks_of_a_folder_and_pictures_that_are_left_out(
    evaluate, picture_folder, tmp_path, capsys
):
    place = tmp_path / "mixed"
    place.mkdir()
    for path in picture_folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    (place / "broken.png").write_bytes(b"")
    (tmp_path / "masks").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[10:50, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "m.png")
    assert evaluate("--masks", tmp_path / "masks", "--json", data=place) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["pictures"] == 8
    assert "--data: skipped 1 unreadable (broken.png)" in captured.err


def test_a_report_is_replaced_only_when_that_is_asked_for(evaluate, tmp_path, capsys):
    out = tmp_path / "report"
    out.mkdir()
    (out / "report.json").write_text("old")
    assert evaluate("-o", out) == 1
    one_line(capsys, "exists; pass --force to replace it, or another --out")
    assert evaluate("-o", out, "--force") == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert (out / "report.json").read_text() != "old"


def test_force_replaces_nothing_but_a_report(evaluate, picture_folder, tmp_path, capsys):
    """Above all not the pictures, or a folder that holds them."""
    data = tmp_path / "data"
    shutil.copytree(picture_folder, data / "held_out")
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    for place, holds in (
        (data / "held_out", f"it holds {min(path.name for path in picture_folder.iterdir())}"),
        (data, "it holds held_out"),
        (tmp_path / "file", "it is no folder"),
    ):
        assert evaluate("-o", place, "--force", data=data / "held_out") == 1
        one_line(capsys, f"{place} is no report, for {holds}; pass another --out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written_is_one_line_before_the_work(
    evaluate, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(comparison, "compare", lambda *_, **__: pytest.fail("work for nothing"))
    (tmp_path / "file").write_text("")
    assert evaluate("-o", tmp_path / "file" / "report") == 1
    one_line(capsys, "file")


def test_what_was_measured_is_printed_though_the_disk_is_full(
    evaluate, tmp_path, capsys, monkeypatch
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "report")

    monkeypatch.setattr(atomic, "directory", full)
    assert evaluate("-o", tmp_path / "report", "--limit", 4) == 1
    captured = capsys.readouterr()
    assert "| PSNR in the hole, dB" in captured.out
    assert "picme: report: No space left on device" in captured.err


def test_a_hole_that_leaves_no_patch_is_refused_before_the_work(evaluate, tmp_path, capsys):
    mask = np.zeros((64, 64), np.uint8)
    mask[::3] = 255
    Image.fromarray(mask).save(tmp_path / "stripes.png")
    assert evaluate("--masks", tmp_path, "--patch-distance") == 1
    one_line(capsys, "and 0; leave out --patch-distance")


def test_what_cannot_be_measured_is_one_line(evaluate, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "weights").write_bytes(b"none")
    cases = [
        ({"data": empty}, (), "data must be a folder with"),
        ({"model": empty}, (), "must be an engine (engine.json), a checkpoint or a run"),
        ({}, ("--masks", empty), "masks must be a folder with"),
        ({}, ("--masks", "squares"), "masks must be centre, random or a folder of masks"),
        ({}, ("--holes", 2), "masks centre give one hole a picture"),
        ({}, ("--holes", 0), "--holes must be at least 1, got 0"),
        ({}, ("--size", 8), "--size must be at least 16 pixels, got 8"),
        ({}, ("--size", 16, "--lpips-weights", "w"), "--size must be at least 17 pixels, got 16"),
        ({}, ("--limit", 3), "at least 4 pictures, got 3"),
        ({}, ("-k", 1), "samples must be at least 2"),
        ({}, ("--baselines", "median"), "baselines must be of telea, mean"),
        ({}, ("--lpips-weights", tmp_path / "weights"), "lpips weights must be a safetensors file"),
        ({}, ("--lpips-weights", empty), "lpips weights must be a safetensors file"),
        ({}, ("--size", 500), "data must hold a picture that can be used, got "),
        ({}, ("--size", 500), "; tiny ones take a smaller size: --size, or network.size"),
    ]
    for where, flags, says in cases:
        assert evaluate(*flags, **where) == 1
        one_line(capsys, says)


def test_published_weights_are_fetched_where_there_is_a_network(
    evaluate, stand_in, monkeypatch, capsys
):
    asked = []

    def fetch(url, **options):
        asked.append((url, options["check_hash"], options["weights_only"]))
        return {k: v for k, v in stand_in.state_dict().items() if k.startswith("features.")}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    assert evaluate("--lpips-weights", "download", "--limit", 4, "--json") == 0
    assert json.loads(capsys.readouterr().out)["measures"]["model"]["LPIPS"]["mean"] > 0
    assert asked == [("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth", True, True)]


def test_without_a_network_it_names_the_file_to_give(evaluate, monkeypatch, capsys):
    def fail(url, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    assert evaluate("--lpips-weights", "download") == 1
    one_line(capsys, "no route to host>; fetch them elsewhere and pass --lpips-weights FILE")

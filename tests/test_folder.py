"""Folder runs: every picture once, bad files at the end, nothing mixed, nothing lost."""

import contextlib
import io
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import picme_rt
from picme_rt import backends, choices, cli, encoded, files, folder, run_record, sheet
from picme_rt.encoded import Request
from picme_rt.errors import InputError

SIZES = {"a": (40, 60), "b": (70, 50), "c": (33, 90)}


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Stand in a folder with photos/a.png, b.png, c.jpg and masks/ of the same names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in SIZES.items():
        suffix = "jpg" if name == "c" else "png"
        picture = Pillow.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8))
        picture.save(tmp_path / "photos" / f"{name}.{suffix}")
        hole = np.zeros(shape, np.uint8)
        hole[5:25, 10:40] = 255
        Pillow.fromarray(hole).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def read(path):
    with Pillow.open(path) as opened:
        return np.asarray(opened)


@pytest.fixture
def picme(engine):
    def run(*arguments):
        command = ["complete", "photos", "masks", "-o", "out", "-k", "2", "--engine", str(engine)]
        return cli.main([*command, *(str(a) for a in arguments)])

    return run


def names(place):
    return sorted(p.name for p in place.iterdir())


RESULTS = sorted(f"{name}_{what}.png" for name in "abc" for what in ("00", "01", "sheet"))


def test_every_picture_of_a_folder_is_completed_as_alone(disk, picme, engine, capsys):
    assert picme() == 0
    out, err = capsys.readouterr()
    assert out.split() == [f"out/{name}_sheet.png" for name in "abc"]
    assert err == ""
    assert names(disk / "out") == sorted([*RESULTS, run_record.NAME])
    for image in ("photos/a.png", "photos/b.png", "photos/c.jpg"):
        name = image[7]
        command = ["complete", image, "masks", "-o", "alone", "-k", "2", "--engine", str(engine)]
        assert cli.main(command) == 0
        known = read(f"masks/{name}.png") == 0
        for i in range(2):
            done = read(f"out/{name}_0{i}.png")
            assert (done == read(f"alone/{name}_0{i}.png")).all()
            assert (done[known] == read(image)[known]).all()


def test_one_mask_may_serve_all_pictures_of_its_size(disk, engine, capsys):
    command = ["complete", "photos", "masks/a.png", "-o", "out", "-k", "1", "--engine", str(engine)]
    assert cli.main(command) == 1
    out, err = capsys.readouterr()
    assert out.split() == ["out/a_sheet.png"]
    lines = err.splitlines()
    must = "picme: mask must have the height and width of img,"
    assert lines[0] == f"{must} (70, 50) of photos/b.png, got (40, 60) of masks/a.png"
    assert lines[1] == f"{must} (33, 90) of photos/c.jpg, got (40, 60) of masks/a.png"
    assert lines[2] == "picme: 2 of 3 pictures could not be completed"


def test_bad_files_are_named_at_the_end_and_the_rest_is_done(disk, picme, capsys):
    (disk / "photos" / "broken.png").write_bytes((disk / "photos" / "a.png").read_bytes()[:900])
    (disk / "photos" / "d.png").write_bytes((disk / "photos" / "a.png").read_bytes())  # no mask
    (disk / "photos" / "notes.txt").write_text("no picture")
    (disk / "photos" / "twin.png").write_bytes((disk / "photos" / "a.png").read_bytes())
    (disk / "photos" / "twin.jpg").write_bytes((disk / "photos" / "a.png").read_bytes())
    (disk / "photos" / ".hidden.png").write_bytes(b"")
    for name in ("broken", "twin"):
        (disk / "masks" / f"{name}.png").write_bytes((disk / "masks" / "a.png").read_bytes())
    (disk / "photos" / "sub.png").mkdir()
    (disk / "masks" / "sub.png").write_bytes((disk / "masks" / "a.png").read_bytes())
    assert picme() == 1
    out, err = capsys.readouterr()
    assert out.split() == [f"out/{name}_sheet.png" for name in "abc"]
    first, *lines, last = err.splitlines()
    assert first == "picme: left out 1 file(s) that are no pictures: .txt"
    assert last == "picme: 5 of 8 pictures could not be completed"
    assert len(lines) == 5
    for says in (
        "photos/broken.png is no picture",
        "photos/d.png: masks must hold one mask named d (.png, .jpg, ...), got none",
        "photos/twin.jpg: 2 pictures are named twin",
        "photos/twin.png: 2 pictures are named twin",
        "photos/sub.png is no picture",
    ):
        assert any(says in line for line in lines)
    assert names(disk / "out") == sorted([*RESULTS, run_record.NAME])


def test_a_mask_without_grey_and_a_name_too_long_are_failures_of_their_pictures(
    disk, picme, capsys
):
    Pillow.new("LAB", (60, 40)).save(disk / "masks" / "a.tif")
    (disk / "masks" / "a.png").unlink()
    long = "\N{CJK UNIFIED IDEOGRAPH-56FE}" * 83  # 249 bytes, and 4 of .png
    for folder_of in ("photos", "masks"):
        (disk / folder_of / f"{long}.png").write_bytes((disk / folder_of / "b.png").read_bytes())
    assert picme() == 1
    out, err = capsys.readouterr()
    assert out.split() == ["out/b_sheet.png", "out/c_sheet.png"]
    *lines, last = err.splitlines()
    assert last == "picme: 2 of 4 pictures could not be completed"
    assert len(lines) == 2
    for says in (
        "names of results must have at most 255 bytes, got 259 in",
        "mask masks/a.tif cannot be converted to L: conversion from LAB",
    ):
        assert any(says in line for line in lines)


def test_a_mask_is_found_whatever_the_case_of_its_suffix(disk, picme):
    (disk / "masks" / "a.png").rename(disk / "masks" / "a.Png")
    (disk / "masks" / "b.png").rename(disk / "masks" / "b.PNG")
    assert picme() == 0


def test_a_picture_that_has_changed_its_size_is_not_resumed(disk, picme, capsys):
    assert picme() == 0
    (disk / "out" / "a_sheet.png").unlink()
    for folder_of in ("photos", "masks"):
        (disk / folder_of / "a.png").write_bytes((disk / folder_of / "b.png").read_bytes())
    capsys.readouterr()
    assert picme("--resume") == 1
    says = "out/a_00.png must have the size of photos/a.png, (70, 50), got (40, 60): the picture"
    assert says in capsys.readouterr().err


def test_results_on_disk_may_be_larger_than_those_of_one_call(disk, picme, monkeypatch):
    monkeypatch.setattr(encoded, "RESULT_BYTES", 1000)
    assert picme() == 0


def test_two_masks_of_one_name_are_refused(disk):
    (disk / "masks" / "a.JPG").write_bytes(b"")
    with pytest.raises(InputError, match=r"one mask named a .*got 2: a\.JPG, a\.png"):
        folder.pair(disk / "photos" / "a.png", disk / "masks")


def test_json_is_one_line_a_picture_and_a_summary(disk, picme, capsys):
    (disk / "photos" / "z.png").write_bytes(b"")
    assert picme("--json") == 1
    *lines, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["image"] for line in lines] == ["photos/a.png", "photos/b.png", "photos/c.jpg"]
    assert [one["index"] for one in lines[0]["results"]] == [0, 1]
    assert lines[0]["results"][1]["path"] == "out/a_01.png"
    assert (last["completed"], last["kept"]) == (3, 0)
    assert [one["image"] for one in last["failed"]] == ["photos/z.png"]


def test_what_is_there_is_kept_unless_forced_or_resumed(disk, picme, capsys):
    assert picme() == 0
    before = {name: (disk / "out" / name).read_bytes() for name in RESULTS}
    capsys.readouterr()
    assert picme("--seed", 1) == 1
    assert "holds a run; pass --resume to go on, --force" in capsys.readouterr().err
    assert {name: (disk / "out" / name).read_bytes() for name in RESULTS} == before
    assert picme("--seed", 1, "--force") == 0
    assert all((disk / "out" / name).read_bytes() != before[name] for name in RESULTS)


def test_results_without_a_record_are_not_overwritten(disk, picme, capsys):
    (disk / "out").mkdir()
    (disk / "out" / "b_01.png").write_text("somebody's")
    assert picme() == 1
    assert "out/b_01.png exists; pass --force" in capsys.readouterr().err
    assert names(disk / "out") == ["b_01.png"]
    assert picme("--resume") == 1
    assert "holds no run to go on with" in capsys.readouterr().err


def test_resume_makes_what_is_missing_and_nothing_twice(disk, picme, capsys):
    assert picme() == 0
    before = {name: (disk / "out" / name).read_bytes() for name in RESULTS}
    gone = ["a_01.png", "a_sheet.png", "c_00.png", "c_01.png", "c_sheet.png"]
    for name in gone:
        (disk / "out" / name).unlink()
    stamps = {name: (disk / "out" / name).stat().st_mtime_ns for name in set(RESULTS) - set(gone)}
    (disk / "out" / ".picme-killed.tmp").mkdir()  # what a writer that was killed leaves
    capsys.readouterr()
    assert picme("--resume", "--json") == 0
    *lines, last = map(json.loads, capsys.readouterr().out.splitlines())
    done = {one["path"] for line in lines for one in line["results"]}
    assert done == {"out/a_01.png", "out/c_00.png", "out/c_01.png"}
    assert (last["completed"], last["kept"]) == (2, 1)
    assert {name: (disk / "out" / name).read_bytes() for name in RESULTS} == before
    assert {name: (disk / "out" / name).stat().st_mtime_ns for name in stamps} == stamps
    assert names(disk / "out") == sorted([*RESULTS, run_record.NAME])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--seed", 1], "another seed (0, not 1)"),
        (["-k", 3], "another k (2, not 3)"),
        (["--format", "webp"], "another format (png, not webp)"),
        (["--temperature", 0.5, "--mode", "mean"],
         "another mode (categorical, not mean) and temperature (1.0, not 0.5); ask for the same"),
    ],
)  # fmt: skip
def test_a_run_is_not_resumed_with_other_options(disk, picme, capsys, change, says):
    assert picme() == 0
    capsys.readouterr()
    assert picme("--resume", *change) == 1
    assert says in capsys.readouterr().err


def test_options_are_refused_before_anything_is_written(disk, picme, capsys):
    for options, says in (
        (["-k", 0], "k must be"),
        (["-k", 10_001], "at most 10000"),
        (["--primitive", 6], "primitive must be"),
        (["--temperature", "nan"], "temperature must be"),
        (["--seed", 2**64], "seed must be"),
    ):
        assert picme(*options) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert says in err
    assert not (disk / "out").exists()


def test_an_empty_folder_is_one_error(disk, engine, capsys):
    (disk / "empty").mkdir()
    command = ["complete", "empty", "masks", "-o", "out", "--engine", str(engine)]
    assert cli.main(command) == 1
    assert "empty holds no picture (.jpg" in capsys.readouterr().err
    assert not (disk / "out").exists()


def test_results_never_go_among_the_pictures_or_masks(disk, engine, capsys):
    for out in ("photos", "masks", "masks/../photos"):
        command = ["complete", "photos", "masks", "-o", out, "--engine", str(engine)]
        assert cli.main(command) == 1
        assert "--out must be another folder" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["webp", "jpg"])
def test_other_formats_keep_exif_and_profile(disk, engine, suffix):
    exif = Pillow.Exif()
    exif[0x0112], exif[0x013B] = 3, "Artist"
    image = read("photos/a.png")
    Pillow.fromarray(image).save("turned.png", exif=exif, icc_profile=b"a profile")
    Pillow.fromarray(read("masks/a.png")[::-1, ::-1]).save("mask.png")
    command = ["complete", "turned.png", "mask.png", "-o", "o", "-k", "1", "--format", suffix]
    assert cli.main([*command, "--engine", str(engine)]) == 0
    with Pillow.open(f"o/turned_00.{suffix}") as done:
        assert done.info["icc_profile"] == b"a profile"
        assert done.getexif()[0x013B] == "Artist"
        assert done.getexif().get(0x0112, 1) == 1
        pixels = np.asarray(done)
    known = read("mask.png") == 0
    error = np.abs(pixels.astype(int) - image[::-1, ::-1])[known]
    assert error.max() == 0 if suffix == "webp" else error.mean() < 20  # noise is hard on JPEG
    assert (disk / "o" / "turned_sheet.png").exists()


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_alpha_is_kept_but_in_the_hole(disk, picme, suffix):
    image, hole = read("photos/a.png"), read("masks/a.png") > 0
    alpha = np.zeros(hole.shape, np.uint8)
    alpha[:, 20:] = 200
    Pillow.fromarray(np.dstack([image, alpha])).save("photos/a.png")
    assert picme("--format", suffix) == 0
    done, page = read(f"out/a_00.{suffix}"), read("out/a_sheet.png")
    assert (done[~hole] == read("photos/a.png")[~hole]).all()
    assert (done[hole, 3] == 255).all()
    assert read(f"out/b_00.{suffix}").shape == (*SIZES["b"], 3)
    tile = page[8:48, 8:68]
    assert (tile[~hole & (alpha == 0)] == 255).all()  # what is hidden is not shown
    assert (tile[hole] == sheet.HOLE_GREY).all()
    (disk / "out" / "a_sheet.png").unlink()
    assert picme("--format", suffix, "--resume") == 0
    assert (read("out/a_sheet.png") == page).all()


def test_a_black_and_white_photograph_gets_no_colour(disk, picme):
    grey = Pillow.fromarray(read("photos/a.png")).convert("L")
    grey.save("photos/a.png")
    assert picme() == 0
    done, known = read("out/a_00.png"), read("masks/a.png") == 0
    assert done.shape == SIZES["a"]
    assert (done[known] == np.asarray(grey)[known]).all()
    assert (done[~known] != np.asarray(grey)[~known]).any()
    assert read("out/a_sheet.png").ndim == 2
    assert read("out/b_00.png").ndim == read("out/b_sheet.png").ndim == 3


def test_alpha_that_the_format_cannot_hold_is_one_error_before_anything_is_written(
    disk, engine, capsys
):
    Pillow.open("photos/a.png").convert("RGBA").rotate(9).save("turned.png")
    command = ["complete", "turned.png", "masks/a.png", "-o", "o", "--engine", str(engine)]
    assert cli.main([*command, "--format", "jpg"]) == 1
    says = (
        "picme: jpg holds no alpha, got transparent pixels for o/turned_00.jpg; choose png or webp"
    )
    assert capsys.readouterr().err.strip() == says
    assert not (disk / "o").exists()


def test_a_terminal_sees_pictures_a_second_and_the_time_left(disk, engine):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = ["complete", "photos", "masks", "-o", "out", "-k", "1", "--engine", str(engine)]
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with os.fdopen(theirs, "wb") as terminal:
            done = subprocess.run(
                [sys.executable, "-m", "picme_rt", *command],
                stdout=subprocess.PIPE, stderr=terminal, check=False,
            )  # fmt: skip
        shown = ""
        with contextlib.suppress(OSError):  # EIO: nobody writes any more
            while text := screen.read(1 << 16):
                shown += text.decode()
    assert done.returncode == 0
    assert len(done.stdout.split()) == 3
    assert "3/3" in shown
    assert "img" in shown
    assert "<00:0" in shown


def test_ctrl_c_ends_with_130_and_a_folder_that_can_be_resumed(disk, picme, engine):
    for i in range(200):
        (disk / "photos" / f"n{i:03d}.png").symlink_to(disk / "photos" / "a.png")
        (disk / "masks" / f"n{i:03d}.png").symlink_to(disk / "masks" / "a.png")
    command = ["complete", "photos", "masks", "-o", "out", "-k", "2", "--engine", str(engine)]
    # a shell's background job ignores Ctrl-C, and so would its children
    listening = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from picme_rt.cli import main; sys.exit(main())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", listening, *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        child.stdout.readline()  # the first picture is done
        child.send_signal(signal.SIGINT)
        _, err = child.communicate()
    assert child.returncode == 130
    assert err == "picme: interrupted; files that were finished are whole\n"
    for path in (disk / "out").glob("*.png"):
        read(path)
    assert not [p for p in (disk / "out").iterdir() if p.name.startswith(".")]
    assert picme("--resume") == 0
    assert len(list((disk / "out").glob("*.png"))) == 203 * 3


def test_memory_is_flat_over_pictures_and_results(disk, engine, monkeypatch):
    """No more than one result is alive at a time: each is written before the next is made."""
    alive = []

    def stream(self, **options):
        for one in original(self, **options):
            alive.append(one.index)
            assert (disk / "out" / f"a_{one.index:02d}.png").exists() is False
            yield one
            assert (disk / "out" / f"a_{one.index:02d}.png").exists()

    original = encoded.Encoded.stream
    monkeypatch.setattr(encoded.Encoded, "stream", stream)
    command = ["complete", "photos/a.png", "masks", "-o", "out", "-k", "5", "--engine", str(engine)]
    assert cli.main(command) == 0
    assert alive == list(range(5))


def test_a_sheet_of_many_or_large_pictures_stays_small(monkeypatch):
    img, hole = np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10), bool)
    made = 0

    def results(k):
        nonlocal made
        for _ in range(k):
            made += 1
            yield img

    assert sheet.sheet(img, hole, results(3), 3).shape == (26, 80, 3)
    page = sheet.sheet(img, hole, results(500), 500)
    assert made == 503  # all are taken, 99 are shown
    assert page.shape == (25 * 18 + 8, 80, 3)
    monkeypatch.setattr(sheet, "PAGE_PIXELS", 100)
    assert sheet.sheet(img, hole, results(3), 3).shape == (21, 60, 3)
    Pillow.fromarray(page).save(io.BytesIO(), "PNG")


def test_a_disk_that_is_full_stops_the_run_and_keeps_what_is_done(disk, picme, capsys, monkeypatch):
    write, written = folder.files.write_picture, []

    def full(path, photograph):
        if path.name in ("b_01.png", "c_00.png"):
            raise OSError(28, "No space left on device", str(path))
        write(path, photograph)
        written.append(path.name)

    monkeypatch.setattr(folder.files, "write_picture", full)
    assert picme() == 1
    out, err = capsys.readouterr()
    # whichever came first: it is what a run of one picture after the other says
    assert out.split() == ["out/a_sheet.png"]
    assert err == "picme: out/b_01.png: No space left on device\n"
    assert {*names(disk / "out")} == {*written, run_record.NAME}
    monkeypatch.undo()
    monkeypatch.chdir(disk)
    stamps = {name: (disk / "out" / name).stat().st_mtime_ns for name in written}
    assert picme("--resume") == 0
    assert {name: (disk / "out" / name).stat().st_mtime_ns for name in written} == stamps
    assert names(disk / "out") == sorted([*RESULTS, run_record.NAME])


def test_a_forced_run_that_is_killed_leaves_no_result_of_the_old_one(disk, picme, monkeypatch):
    """Else --resume would take the old results for the new run's."""
    assert picme("-k", 4, "--format", "webp") == 0
    (disk / "photos" / "c.jpg").rename(disk / "c.jpg")  # its results are of the old run too

    def killed(*arguments, **options):
        raise SystemExit(9)

    monkeypatch.setattr(folder, "complete", killed)
    with pytest.raises(SystemExit):
        picme("--force", "--seed", 1)
    monkeypatch.undo()
    monkeypatch.chdir(disk)
    assert names(disk / "out") == [run_record.NAME]
    (disk / "c.jpg").rename(disk / "photos" / "c.jpg")
    assert picme("--resume", "--seed", 1) == 0
    assert names(disk / "out") == sorted([*RESULTS, run_record.NAME])


def test_a_place_that_is_not_there_is_one_error_and_leaves_what_was(disk, engine, picme, capsys):
    assert picme() == 0
    before = {path.name: path.read_bytes() for path in (disk / "out").iterdir()}
    capsys.readouterr()
    (disk / "text.png").write_text("no mask")
    for image, mask, says in (
        ("photos", "maskss", "picme: there is no mask file or folder maskss\n"),
        ("photos", "text.png", "picme: text.png is no picture"),
        ("photo", "masks", "picme: there is no picture or folder photo\n"),
        ("photos/nope", "masks", "picme: there is no picture or folder photos/nope\n"),
    ):
        command = ["complete", image, mask, "--engine", str(engine), "-k", "2", "-o"]
        assert cli.main([*command, "out", "--force"]) == 1
        assert cli.main([*command, "other"]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 2)
        assert err.startswith(says)
    assert {path.name: path.read_bytes() for path in (disk / "out").iterdir()} == before
    assert not (disk / "other").exists()


def test_a_folder_with_no_mask_for_any_picture_leaves_what_was(disk, engine, picme, capsys):
    assert picme() == 0
    (disk / "none").mkdir()
    command = ["complete", "photos", "none", "--engine", str(engine), "-k", "2", "-o"]
    assert cli.main([*command, "out", "--force"]) == 1
    assert cli.main([*command, "other"]) == 1
    assert "3 of 3 pictures could not be completed" in capsys.readouterr().err
    assert names(disk / "out") == sorted([*RESULTS, run_record.NAME])
    assert not (disk / "other").exists()


def test_one_picture_joins_a_folders_run_of_the_same_options_alone(disk, picme, engine, capsys):
    (disk / "photos" / "c.jpg").rename(disk / "c.jpg")
    assert picme() == 0
    before = {path.name: path.read_bytes() for path in (disk / "out").iterdir()}
    alone = ["complete", "c.jpg", "masks", "-o", "out", "-k", "2", "--engine", str(engine)]
    for options, says in (
        (["--seed", "7", "--threads", "1"], "out was made with another seed (0, not 7)"),
        (["--seed", "7", "--threads", "1", "--force"], "another seed (0, not 7)"),
        (["--threads", "2"], "another threads (1, not 2); ask for the same, or choose another"),
    ):
        assert cli.main([*alone, *options]) == 1
        assert says in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (disk / "out").iterdir()} == before
    assert cli.main([*alone, "--threads", "1"]) == 0
    stamp = (disk / "out" / "c_00.png").stat().st_mtime_ns
    (disk / "c.jpg").rename(disk / "photos" / "c.jpg")
    assert picme("--resume") == 0
    assert (disk / "out" / "c_00.png").stat().st_mtime_ns == stamp
    assert names(disk / "out") == sorted([*RESULTS, run_record.NAME])


REQUEST = Request(k=3, seed=0, first=0, mode="categorical", primitive=None, temperature=1.0)


def outcomes(engine, out, at_once, backend):
    """What became of each picture, and what is on disk then."""
    out.mkdir()
    planned = folder.tasks(Path("photos"), Path("masks"), out, REQUEST.k, "png")
    with picme_rt.Session(engine, backend=backend, threads=1) as opened:
        found = list(folder.complete_all([opened], planned, REQUEST, keep=False, at_once=at_once))
    said = [
        one if isinstance(one, folder.Failure) else (one.task.image, one.results[1].log_prob)
        for one in found
    ]
    return said, {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_pictures_at_once_leave_the_bytes_and_words_of_one_after_the_other(disk, engine, backend):
    (disk / "photos" / "aa.png").write_bytes((disk / "photos" / "a.png").read_bytes()[:900])
    (disk / "masks" / "aa.png").write_bytes((disk / "masks" / "b.png").read_bytes())
    want = outcomes(engine, disk / "serial", 1, backend)
    assert [isinstance(one, folder.Failure) for one in want[0]] == [False, True, False, False]
    assert len(want[1]) == 3 * (REQUEST.k + 1)
    for at_once in (2, 5):
        assert outcomes(engine, disk / f"at_once_{at_once}", at_once, backend) == want


def test_two_pictures_of_a_folder_may_wait_for_the_disk_while_the_core_computes(
    disk, picme, monkeypatch
):
    encode, write = picme_rt.Session.encode, files.write_picture
    begun, third = itertools.count(1), threading.Event()

    def encode_counted(*arguments):
        if next(begun) == 3:
            third.set()
        return encode(*arguments)

    def write_slowly(*arguments):
        assert third.wait(30)  # the first two write until the third is on its way
        write(*arguments)

    monkeypatch.setattr(choices, "cores", lambda: 1)
    monkeypatch.setattr(picme_rt.Session, "encode", encode_counted)
    monkeypatch.setattr(files, "write_picture", write_slowly)
    assert picme() == 0
    assert names(disk / "out") == sorted([*RESULTS, run_record.NAME])


def test_a_folder_run_says_with_how_many_threads_and_resumes_with_the_same(disk, picme, capsys):
    assert picme("--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["threads"] == 1
    assert picme("--resume", "--threads", 2) == 1
    assert "another threads" in capsys.readouterr().err
    assert picme("--force", "--threads", 2) == 0
    assert json.loads((disk / "out" / run_record.NAME).read_text())["threads"] == 2

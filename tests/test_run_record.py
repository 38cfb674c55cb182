"""The record of a folder's run: whose results are there, and what may stay or go."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from picme_rt import run_record
from picme_rt.errors import InputError
from picme_rt.folder import Task

RECORD = {"record": 3, "engine": {"a": "1"}, "seed": 0, "k": 2, "format": "png"}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def tasks(out, names="ab", k=2, form="png"):
    return [Task(Path("photos", f"{name}.png"), Path("mask.png"), out, k, form) for name in names]


def finish(planned):
    for task in planned:
        for path in task.paths:
            path.touch()


def names(out):
    return sorted(path.name for path in out.iterdir() if path.name != run_record.NAME)


def test_a_forced_run_deletes_what_the_record_names_and_nothing_else(out):
    planned = tasks(out, ["a", "b.c"], k=3)
    run_record.begin(out, planned, RECORD | {"k": 3}, force=False)
    finish(planned)
    (out / "a_sheet.png").unlink()  # that run was killed
    for name in ("a_03.png", "a_00.txt", "c_00.png", "mine.png"):
        (out / name).touch()
    fresh = tasks(out, "a", k=1, form="webp")
    run_record.begin(out, fresh, RECORD | {"k": 1, "format": "webp"}, force=True)
    assert names(out) == ["a_00.txt", "a_03.png", "c_00.png", "mine.png"]
    assert json.loads((out / run_record.NAME).read_text())["pictures"] == ["a"]


def test_a_forced_run_without_a_record_knows_old_results_by_their_sheet(out):
    out.mkdir()
    finish(tasks(out, "a", k=3, form="webp"))
    (out / "b_02.webp").touch()  # without a sheet: who knows whose
    (out / run_record.NAME).write_text("{")
    run_record.begin(out, tasks(out), RECORD, force=True)
    assert names(out) == ["b_02.webp"]


def test_wherever_a_forced_run_is_killed_no_old_result_is_under_its_record(out, monkeypatch):
    old, new = RECORD | {"k": 3}, RECORD | {"seed": 1}
    unlink, left = Path.unlink, 0

    def killed(path, missing_ok=False):
        nonlocal left
        if path.parent == out:
            left -= 1
            if left < 0:
                raise SystemExit(9)
        unlink(path, missing_ok)

    for allowed in range(7):  # of the eight files of the old run
        run_record.begin(out, tasks(out, k=3), old, force=True)
        finish(tasks(out, k=3))
        with monkeypatch.context() as patched:
            left = allowed
            patched.setattr(Path, "unlink", killed)
            with pytest.raises(SystemExit):
                run_record.begin(out, tasks(out, "b"), new, force=True)
        assert len(names(out)) == 8 - allowed
        run_record.resume(out, tasks(out, k=3), old)  # the rest is the old run's still
        run_record.begin(out, tasks(out, "b"), new, force=True)
        assert names(out) == []


def test_pictures_may_join_a_run_unless_results_of_theirs_are_there_already(out):
    run_record.begin(out, tasks(out), RECORD, force=False)
    finish(tasks(out))
    run_record.resume(out, tasks(out, "abc"), RECORD)
    assert json.loads((out / run_record.NAME).read_text())["pictures"] == ["a", "b", "c"]
    (out / "d_01.png").touch()
    with pytest.raises(InputError, match=r"d_01\.png exists; the run in .* did not make it: move"):
        run_record.resume(out, tasks(out, "abcd"), RECORD)


def test_pictures_that_join_at_the_same_moment_are_all_in_the_record(out, monkeypatch):
    """Each reads the names, then writes them with its own: not while another is at it."""
    run_record.begin(out, [], RECORD, force=False)
    read, names = run_record._pictures, [f"p{i}" for i in range(4)]

    def slowly(*given):
        found = read(*given)
        time.sleep(0.02)
        return found

    monkeypatch.setattr(run_record, "_pictures", slowly)
    with ThreadPoolExecutor(len(names)) as pool:
        for done in [pool.submit(run_record.join, *tasks(out, [n]), RECORD) for n in names]:
            done.result()
    assert sorted(json.loads((out / run_record.NAME).read_text())["pictures"]) == names


def test_another_engine_version_or_a_damaged_record_are_not_gone_on_with(out):
    run_record.begin(out, tasks(out), RECORD, force=False)
    place = out / run_record.NAME
    with pytest.raises(InputError, match=r"with another engine and seed \(0, not 1\); ask"):
        run_record.resume(out, tasks(out), RECORD | {"engine": {}, "seed": 1})
    for content, says in (
        (b"{", "is damaged: .*; begin the folder again with --force"),
        (b"\xff", "is damaged"),
        (b"[]", "another version of picme_rt; begin"),
        (b'{"record": 2}', "another version"),
        (b'{"record": 3, "pictures": [], "more": 1}', "another engine and seed"),
        (json.dumps({**RECORD, "pictures": [], "more": 1}).encode(), "another version"),
        (b'{"record": 3}', "does not name its pictures"),
        (b'{"record": 3, "pictures": ["../a"]}', "does not name its pictures"),
    ):
        place.write_bytes(content)
        for ask in (
            lambda: run_record.resume(out, tasks(out), RECORD),
            lambda: run_record.check_one(tasks(out)[0], RECORD, force=True),
        ):
            with pytest.raises(InputError, match=says):
                ask()


def test_a_record_leads_to_no_file_outside_of_its_folder(out):
    run_record.begin(out, tasks(out), RECORD, force=False)
    (out.parent / "a_00.png").touch()
    for changed in ({"pictures": ["../a"]}, {"k": 10**12}, {"k": "2"}, {"format": ["png"]}):
        there = RECORD | {"pictures": ["a"]} | changed
        (out / run_record.NAME).write_text(json.dumps(there))
        run_record.begin(out, tasks(out), RECORD, force=True)
    assert (out.parent / "a_00.png").exists()

import contextlib
import io
import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from picme_rt import cli
from picme_rt.errors import InputError
from picme_training import config

TRAINING = Path(__file__).parents[2] / "training"
PLAN = TRAINING / "comparison.toml"


@pytest.fixture(scope="module")
def compare(load_script):
    return load_script("compare")


@pytest.fixture
def plan(tmp_path):
    def write(text):
        path = tmp_path / "plan.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def in_this_process(compare, monkeypatch):
    """`picme` without processes of its own, which import torch for seconds."""

    def run(command, log):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(log):
            code = cli.main(command[3:])
        return SimpleNamespace(returncode=code, stdout=said.getvalue())

    with monkeypatch.context() as patch:
        patch.setattr(compare.children, "run", run)
        yield patch


def test_the_shipped_plan_compares_one_primitive_with_six_and_nothing_else(compare):
    runs = compare.runs_of(PLAN, ["p6", "p1"], None)
    assert [(run.row, run.seed) for run in runs] == [(r, s) for s in range(3) for r in ("p6", "p1")]
    for six, one in zip(runs[::2], runs[1::2], strict=True):
        tables = six.settings.to_dict(), one.settings.to_dict()
        assert [t["network"].pop("primitives") for t in tables] == [6, 1]
        assert tables[0] == tables[1]
        assert six.settings.schedule.steps * six.settings.schedule.batch >= 100_000 == six.pictures


def test_each_departure_differs_from_the_paper_s_row(compare):
    runs = {run.row: run.settings for run in compare.runs_of(PLAN, None, None) if run.seed == 0}
    budget = {run.row: run.pictures for run in compare.runs_of(PLAN, None, None)}
    rows = [name for name in runs if name not in ("p6", "p1")]
    assert {budget[name] for name in rows} == {50_000}
    assert len({json.dumps(runs[name].to_dict()) for name in rows}) == len(rows)


def test_the_settings_are_written_as_they_are_read(compare):
    for run in compare.runs_of(PLAN, None, 1000):
        written = compare.toml_of(run.settings)
        assert config.from_dict(tomllib.loads(written)) == run.settings


def test_another_budget_changes_steps_and_name(compare):
    (run,) = compare.runs_of(PLAN, ["cats"], 100)
    assert (run.pictures, run.settings.schedule.steps, run.name) == (100, 7, "cats-0-100")
    assert run.settings.schedule.evaluate_every == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a", "is no file of rows"),
        ('[a]\nconfig = "cats64"\nseeds = [0]', "must have config, seeds and pictures"),
        ("a = 3", "a must be a table of a row, got 3"),
        (
            '[a]\nconfig = "cats64"\nseeds = 3\npictures = 9',
            "list of different numbers, got 3 for",
        ),
        (
            '[a]\nconfig = "cats64"\nseeds = [0]\npictures = "x"',
            "a number, at least 1, got 'x'",
        ),
        ('[a]\nconfig = "cats64"\nseeds = [0]\npictures = 0', "at least 1, got 0 for"),
        ('[a]\nconfig = "cats64"\nseeds = []\npictures = 9', "different numbers, got"),
        ('[a]\nconfig = "cats64"\nseeds = [0, 0]\npictures = 9', "different numbers, got"),
        ('[a]\nconfig = "cats64"\nseeds = [0]\npictures = 9\nset = 3', "must be a table, got 3"),
        ('[a]\nconfig = "cats64"\nseeds = [0]\npictures = 9\nset.schedule.batch = 0', "batch"),
        ('[a]\nconfig = "cats64"\nseeds = [0]\npictures = 9\nset.framing = 3', "framing"),
        ('[a]\nconfig = "none"\nseeds = [0]\npictures = 9', "there is no configuration file"),
        ('[a]\nconfig = "cats64"\nseeds = [0]\npictures = 9\nset.loss.x = 1', "unknown key 'x'"),
    ],
)
def test_a_wrong_plan_is_refused(compare, plan, text, message):
    with pytest.raises(InputError, match=message):
        compare.runs_of(plan(text), None, None)


def test_an_unknown_row_is_refused_with_the_known_ones(compare):
    with pytest.raises(InputError, match=r"rows must be of p6, p1, .*, got p7"):
        compare.runs_of(PLAN, ["p7"], None)


def report(folder, **values):
    folder.mkdir(parents=True)
    table = {name: {"mean": value, "spread": 0.5} for name, value in values.items()}
    (folder / "report.json").write_text(json.dumps({"measures": {"model": table}}))


def test_the_table_has_mean_and_deviation_over_the_seeds(compare, tmp_path):
    runs = compare.runs_of(PLAN, ["p6", "p12", "p1"], None)
    for seed, value in enumerate((1.0, 2.0, 3.0)):
        report(tmp_path / f"p6-{seed}-100000", pairwise=value)
    report(tmp_path / "p12-0-50000", pairwise=4.0, KID=0.25)
    lines = compare.table_of(runs, tmp_path).splitlines()
    assert lines[0].startswith("| row | pictures | seeds | difference of pairs, levels |")
    assert lines[2] == "| p6 | 100,000 | 3 | 2 ± 1 | - | - | - | - | - |"
    assert lines[3] == "| p12 | 50,000 | 1 | 4 | - | - | - | - | 0.25 ± 0.5 |"
    assert len(lines) == 4  # p1 is not measured


def test_a_measure_that_one_seed_lacks_has_the_spread_of_the_other(compare, tmp_path):
    runs = compare.runs_of(PLAN, ["p6"], None)
    report(tmp_path / "p6-0-100000", pairwise=1.0)
    report(tmp_path / "p6-1-100000", pairwise=3.0, KID=0.25)
    assert "| 2 ± 1.4 | - | - | - | - | 0.25 ± 0.5 |" in compare.table_of(runs, tmp_path)


def test_a_report_of_other_pictures_or_without_the_weights_is_none_for_these(compare, tmp_path):
    place = tmp_path / "report.json"
    for space, weights, expected in (
        (None, None, True), (None, "w", False), ("SqueezeNet", "w", True),
    ):  # fmt: skip
        place.write_text(json.dumps({"data": "val", "feature_space": space}))
        assert compare.measured_as(place, Path("val"), weights) is expected
        assert not compare.measured_as(place, Path("other"), weights)
    place.write_text("{")
    with pytest.raises(InputError, match=r"is damaged: .*; delete it to measure again"):
        compare.measured_as(place, Path("val"), None)


@pytest.mark.parametrize("name", ["jobs", "stage"])
def test_counts_below_one_are_one_line(compare, tmp_path, capsys, name):
    given = [str(PLAN), "--data", "d", "--val", "v", "--out", str(tmp_path), f"--{name}", "0"]
    assert compare.main(given) == 1
    assert capsys.readouterr().err == f"compare: --{name} must be at least 1, got 0\n"


def test_a_stage_of_a_run_is_measured_and_the_next_one_goes_on(
    compare, plan, picture_folder, tmp_path, capsys, in_this_process
):
    row = '[one]\nconfig = "cats64"\nseeds = [3]\npictures = 6\n'
    row += 'set.schedule = {batch = 2, precision = "fp32"}\nset.loss = {perceptual = 0.0}\n'
    out = tmp_path / "out"
    given = [str(plan(row)), "--data", str(picture_folder), "--val", str(picture_folder)]
    given += ["--out", str(out), "--stage"]
    for stage, step in (("3", 2), ("9", 3)):
        assert compare.main([*given, stage]) == 0
        assert f"| one | {min(int(stage), 6)} | 1 |" in capsys.readouterr().out
        checkpoints = out / "one-3-6" / "run" / "checkpoints"
        assert max(path.name for path in checkpoints.iterdir()) == f"step_{step:08d}"
    reports = sorted(path.name for path in (out / "one-3-6").glob("report*"))
    assert reports == ["report-00000002.json", "report.json"]
    assert compare.main([*given, "2"]) == 1  # a checkpoint of one step was never kept
    assert "failed: see" in capsys.readouterr().err


def test_what_is_asked_for_is_trained_and_measured_once(
    compare, plan, picture_folder, tmp_path, capsys, in_this_process
):
    row = '[one]\nconfig = "cats64"\nseeds = [3]\npictures = 4\n'
    row += 'set.schedule = {batch = 2, precision = "fp32"}\nset.loss = {perceptual = 0.0}\n'
    out = tmp_path / "out"
    given = [str(plan(row)), "--data", str(picture_folder), "--val", str(picture_folder)]
    given += ["--out", str(out)]
    assert compare.main([*given, "--train-only"]) == 0
    assert "| one |" not in capsys.readouterr().out
    checkpoint = out / "one-3-4" / "run" / "checkpoints" / "step_00000002"
    trained = (checkpoint / "checkpoint.json").stat().st_mtime_ns
    log = (out / "one-3-4" / "log.txt").read_text()
    assert compare.main([*given, "--train-only"]) == 0
    assert (out / "one-3-4" / "log.txt").read_text() == log  # nothing was started
    assert compare.main(given) == 0
    assert "| one | 4 | 1 |" in capsys.readouterr().out
    assert (checkpoint / "checkpoint.json").stat().st_mtime_ns == trained
    assert json.loads((out / "one-3-4" / "report.json").read_text())["measures"]["model"]["PSNR"]
    in_this_process.undo()  # one by a process
    assert compare.main([*given[:-1], str(tmp_path / "x"), "--device", "nowhere"]) == 1
    assert "picme train of one-3-4 failed: see" in capsys.readouterr().err
    Path(given[0]).write_text(row + "set.masks = {centre = 2.0}\n")
    assert compare.main(given) == 1
    said = capsys.readouterr()
    assert "was begun with other settings than one has now; delete it" in said.err
    assert "| one | 4 | 1 |" not in said.out

"""`picme bench`: what is measured, the table, the chart, the files."""

import dataclasses
import functools
import json
import time

import numpy as np
import pytest
import tiny_engines
from cpu_backends import EVERY
from PIL import Image as Pillow

from picme_rt import MissingPackageError, Session, UnavailableError, backends, choices, cli, tuning
from picme_rt import engine as engines
from picme_rt.choices import Measured, Settings
from picme_rt.speed import chart, cold_start, peaks, report, stages, table, timing

COLD = cold_start.ColdStart(8.0, 50.0, 70.0, 12.0, 140.0, 90_000_000)


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """Choices of this test alone; peaks and starts, which other tests measure, take no time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(peaks, "measure", functools.partial(peaks.measure, seconds=0))
    monkeypatch.setattr(cold_start, "measure", lambda *_, **__: COLD)


@pytest.fixture
def path(tmp_path):
    root = tmp_path / "engine"
    (root / "fp32").mkdir(parents=True)
    for name, content in tiny_engines.make(z_m=True).files.items():
        (root / name).write_bytes(content)
    return root


def made(rows=3, **changed):
    """A report of numbers that are easy to find again."""
    times = {k: timing.Times(k, 1.1 * k, 2.0 * k, 3.0 * k) for k in report.KS}
    parts = dict.fromkeys(stages.STAGES, timing.Times(1.0, 1.1, 1.25, 1.5))
    row = report.Row(
        "default", "openvino", "fp32", 2, 1, times, parts, 0.5, 123.4, 0.456, COLD
    )  # fmt: skip
    found = [dataclasses.replace(row, **changed) for _ in range(rows)]
    found[1:] = [dataclasses.replace(one, chosen_by="asked") for one in found[1:]]
    peak = peaks.Peaks(2, {"fp32": 270.6, "int8": 1058.0}, 44.0)
    return report.Report("cats", 128, "A CPU", 2, 10, peak, found)


def bench(*arguments):
    return cli.main(["bench", *map(str, arguments)])


def test_a_report_has_a_row_for_auto_and_each_backend(path, tmp_path):
    done = report.measure(path, rounds=2)
    rows = [(row.backend, row.precision, row.chosen_by) for row in done.rows]
    assert rows == [("onnxruntime", "fp32", "default"), *((*one, "asked") for one in EVERY)]
    for row in done.rows:
        assert tuple(row.calls) == report.KS
        assert tuple(row.stages) == stages.STAGES
        for one in (*row.calls.values(), *row.stages.values()):
            assert 0 < one.minimum <= one.low <= one.median <= one.high
        assert row.gmac == stages.decoder_macs(path, row.precision) / 1e9 > 0
        assert row.share == row.gops / done.peaks.operations[row.precision]
        assert row.cold == COLD
    assert not (tmp_path / "cache" / "picme_rt").exists()


def test_one_backend_or_precision_is_timed_alone(path):
    done = report.measure(path, rounds=1, backend="openvino")
    found = [(row.backend, row.precision, row.chosen_by) for row in done.rows]
    assert found == [(*one, "asked") for one in EVERY if one[0] == "openvino"]
    (row,) = report.measure(path, rounds=1, backend="onnxruntime", precision="fp32").rows
    assert (row.backend, row.precision) == ("onnxruntime", "fp32")
    assert "auto" not in table.text(done)


def test_a_precision_that_this_cpu_lacks_is_refused_where_it_is_all_that_is_asked_for(
    path, monkeypatch
):
    def lacking(*given, **more):
        raise UnavailableError("precision bf16 needs a CPU that computes in it")

    monkeypatch.setattr(report, "Session", lacking)
    with pytest.raises(UnavailableError, match="needs a CPU"):
        report.measure(path, rounds=1, backend="openvino", precision="bf16")


def test_without_openvino_the_share_of_the_peak_is_not_known(path, monkeypatch):
    def missing():
        raise MissingPackageError("no openvino")

    monkeypatch.setattr(peaks, "measure", missing)
    monkeypatch.setattr(backends, "installed", lambda: ("onnxruntime",))
    done = report.measure(path, rounds=1)
    assert done.peaks is None
    assert [row.share for row in done.rows] == [None, None]
    text = table.text(done)
    assert text.endswith("measured with OpenVINO: pip install 'picme_rt[openvino]'")
    assert text.count("not known") == 2


def test_the_stages_do_what_a_call_does(path):
    img, hole = report.picture(engines.load(path).size)
    with Session(path) as session:
        every = stages.stages(session, img, hole, k=3)
        for stage in every.values():
            stage()
        assert tuple(every) == stages.STAGES
        drawn = every["sample"]()
        done = session.complete(img, hole, k=3)
    assert (drawn.primitive[0] == done.primitives).all()


def test_calls_are_timed_in_turn():
    order = []
    calls = {name: functools.partial(order.append, name) for name in "ab"}
    times = timing.in_turn(calls, 3)
    assert "".join(order) == "ab" * 4  # the first turn warms up
    assert set(times) == {"a", "b"}


def test_a_time_is_what_passed(monkeypatch):
    clock = iter(np.cumsum([0, 1, 5, 3, 5, 2, 5, 4]))  # calls of 1, 3, 2 and 4 s
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    (found,) = timing.in_turn({"it": lambda: None}, 4).values()
    assert (found.minimum, found.median) == (1000, 2500)
    assert 1000 < found.low < 2000
    assert 3000 < found.high < 4000


def test_the_table_says_calls_stages_first_results_and_the_machine():
    lines = table.text(made()).splitlines()
    assert lines[0] == "cats, 128 x 128, hole in the middle; A CPU, 2 cores; 10 rounds in turn"
    auto, asked, _ = [line for line in lines if "12.0 (6.6 to 18.0)" in line]
    assert auto.startswith("openvino fp32 (auto, default)  ")
    assert asked.startswith("openvino fp32   ")
    assert asked.endswith("100.0 (55.0 to 150.0)      500.0")  # 50 results in 100 ms
    assert sum(line.endswith("0.5    123     46 %") for line in lines) == 3
    assert sum(line.endswith("140   90 MB") for line in lines) == 3
    assert lines[-1].endswith("2 threads: fp32 271, int8 1058 GOP/s; a copy 44.0 GB/s")


def test_a_bar_is_as_long_as_its_call(tmp_path):
    slow = {6: timing.Times(20.0, 20.0, 24.0, 30.0)}
    done = made(rows=2)
    done.rows.append(dataclasses.replace(done.rows[0], calls={**done.rows[0].calls, **slow}))
    chart.write(done, tmp_path / "chart.png")
    with Pillow.open(tmp_path / "chart.png") as opened:
        assert opened.format == "PNG"
        pixels = np.asarray(opened.convert("RGB"))
        found = {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in opened.getcolors(1 << 20)}
    assert set(chart._COLOURS.values()) <= found  # every part, and the legend
    bars = [(pixels == [0x1F, 0x3A, 0x5F]).all(2)[row].sum() for row in (192, 268)]
    assert abs(int(bars[0]) - int(bars[1])) <= 1  # both decode for 1.25 ms
    rests = [(pixels == [0xC9, 0xC9, 0xC9]).all(2)[row].sum() for row in (192, 268)]
    assert rests[1] / rests[0] == pytest.approx((24 - 6.25) / (12 - 6.25), rel=0.02)


@pytest.mark.parametrize("longest", [0.004, 0.3, 7.0, 99.0, 12345.0])
def test_the_axis_of_the_chart_has_a_few_round_numbers(longest):
    step = chart._round_step(longest / 8)
    assert 3 <= longest / step <= 8
    assert f"{step:e}"[0] in "125"


@pytest.fixture
def measured(monkeypatch):
    """What was asked of `report.measure`, which gives `made()` without measuring."""
    asked = []

    def measure(engine, *, rounds, backend, precision, progress):
        assert (backend, precision) == (None, None)
        asked.append((engine, rounds, list(progress(range(rounds)))))
        return made()

    monkeypatch.setattr(report, "measure", measure)
    return asked


def test_bench_prints_writes_and_draws(path, tmp_path, capsys, measured):
    picture, file = tmp_path / "chart.png", tmp_path / "all.json"
    asked = (path, "--rounds", 1, "--chart", picture, "-o", file)
    assert bench(*asked) == 0
    assert measured == [(path, 1, [0])]
    assert capsys.readouterr().out == table.text(made()) + "\n"
    content = json.loads(file.read_text())
    assert content["rows"][0]["calls"]["6"]["median"] == 12
    assert content["choices"] is None
    assert picture.stat().st_size > 1000
    assert bench(*asked) == 1  # nothing is overwritten
    assert f"{picture} exists; pass --force" in capsys.readouterr().err
    assert bench(*asked, "--force") == 0


def test_bench_prints_json_alone_wherever_the_flag_stands(path, tmp_path, capsys, measured):
    assert bench("--json", path, "--rounds", 3, "-o", tmp_path / "all.json") == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "all.json").read_text() + "\n"
    content = json.loads(printed)
    assert measured == [(path, 3, [0, 1, 2])]
    assert content["peaks"]["operations"] == made().peaks.operations


def test_bench_tune_lets_auto_know(path, capsys, monkeypatch, measured):
    engine = engines.load(path)
    found = [
        Measured(Settings("onnxruntime", "fp32", threads=2), 9.5),
        Measured(Settings("openvino", "fp32", threads=1, micro_batch=4), 3.0),
    ]
    monkeypatch.setattr(tuning, "tune", lambda *_, **__: found)
    assert bench(path, "--tune", "--rounds", 1, "--json") == 0
    kept = json.loads(capsys.readouterr().out)["choices"]
    assert kept.endswith(".json")
    assert choices.read(engine, backends.BACKENDS) == found
    assert cli.main(["info", str(path), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["backend"], info["threads"], info["micro_batch"]) == ("openvino", 1, 4)
    assert info["chosen_by"] == "measured"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--rounds", 0), "--rounds must be at least 1, got 0"),
        (("--chart", "a.jpg"), "--chart must be a file .png, got a.jpg"),
        (("--chart", "no/such/a.png"), "must be a file in a folder that is there"),
        (("-o", "."), "--out must be a file in a folder that is there, got ."),
        (("--tune", "--backend", "openvino"), "--tune compares all backends; leave out --backend"),
    ],
)
def test_bench_refuses_before_it_measures(path, capsys, monkeypatch, arguments, says):
    monkeypatch.setattr(report, "measure", None)
    assert bench(path, *arguments) == 1
    assert says in capsys.readouterr().err


def test_bench_names_what_there_is_where_something_else_is_asked_for(path, capsys):
    assert bench(path, "--backend", "openvino", "--precision", "fp8") == 1
    said = capsys.readouterr().err
    assert "--backend openvino --precision fp8 must be among what this engine has here: " in said
    assert "onnxruntime fp32, openvino fp32" in said


def test_bench_says_that_patch_mode_is_no_engine(capsys):
    assert bench("patch") == 1
    assert capsys.readouterr().err.startswith("picme: picme bench times engines, got patch, which")


def test_bench_tune_finds_out_first_that_choices_cannot_be_kept(
    path, capsys, monkeypatch, tmp_path
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tuning, "tune", lambda *_, **__: pytest.fail("measured for nothing"))
    assert bench(path, "--tune") == 1
    assert "Not a directory" in capsys.readouterr().err


def test_tune_lower_lets_auto_be_another_precision(path, capsys, monkeypatch):
    asked = []

    def tune(_, *, lower, progress):
        asked.append(lower)
        return [Measured(Settings("onnxruntime", "fp32", 1), 1.0, lower)]

    monkeypatch.setattr(tuning, "tune", tune)
    assert bench(path, "--tune", "--lower", "--rounds", "1") == 0
    assert "does not say how near lower precisions come" in capsys.readouterr().err
    assert bench(path, "--tune", "--rounds", "1") == 0
    assert "lower precisions" not in capsys.readouterr().err
    assert asked == [True, False]
    assert bench(path, "--lower") == 1
    assert "--lower must go with --tune" in capsys.readouterr().err

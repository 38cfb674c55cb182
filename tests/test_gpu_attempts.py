"""What breaks off on a GPU's machine is told, and takes nothing else with it."""

import contextlib
import importlib
import json
import pathlib
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch

TRAINING = pathlib.Path(__file__).parents[1] / "training"
CPU = torch.device("cpu")
TAKEN = {"median_ms": 2.0, "low_ms": 1.0, "high_ms": 3.0, "repeats": 10}


@pytest.fixture
def of(monkeypatch):
    """A module of training/gpu, or the script itself."""
    monkeypatch.syspath_prepend(TRAINING)
    return importlib.import_module


@pytest.fixture
def gpu_check(of):
    return of("gpu_check")


def breaking(*_, **__):
    raise RuntimeError("the device is lost")


def test_a_part_that_breaks_off_is_a_failed_check_and_the_next_one_is_measured(
    gpu_check, of, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(of("gpu.decode"), "measure", breaking)
    out = tmp_path / "report.json"
    given = ["decode", "tensorrt", "--device", "cpu", "--tiny", "--out", str(out)]
    assert gpu_check.main(given) == 1
    said = capsys.readouterr()
    assert "It broke off: RuntimeError: the device is lost" in said.out
    assert "failed: " in said.err
    parts = json.loads(out.read_text())["parts"]
    assert [check["pass"] for check in parts["decode"]["checks"]] == [False]
    assert parts["tensorrt"]["skipped"]
    # the next run measures that part alone
    monkeypatch.setattr(of("gpu.decode"), "measure", lambda *_: {"rows": [], "checks": []})
    assert gpu_check.main(given) == 0
    assert "tensorrt is in" in capsys.readouterr().err
    assert json.loads(out.read_text())["parts"]["decode"]["checks"] == []


@pytest.fixture
def plans_of(of, monkeypatch):
    """The part `tensorrt` as if its library were there; sessions by a function of precision."""
    part = of("gpu.tensorrt_session")

    def put(opened):
        library = SimpleNamespace(name="tensorrt", version="11")
        monkeypatch.setattr(part, "_missing", lambda device: None)
        monkeypatch.setattr(part, "_build", lambda *_: None)
        monkeypatch.setattr(part.tensorrt_library, "installed", lambda: library)
        monkeypatch.setattr(part.plans, "offered", lambda engine: ("fp32", "fp16"))
        monkeypatch.setattr(part.picme_rt, "Session", opened)
        return part

    return put


class Session:
    """Gives black pictures; the calls from `until` on break."""

    def __init__(self, precision, until=100):
        self.info, self.until, self.calls = SimpleNamespace(precision=precision), until, 0

    def complete(self, image, mask, *, k, device_output=False, **_):
        self.calls += 1
        if self.calls > self.until:
            raise RuntimeError("the device is lost")
        images = torch.from_numpy(np.stack([np.where(mask[..., None], 0, image)] * k))
        given = images if device_output else images.numpy()
        return SimpleNamespace(images=given, primitives=np.zeros(k, int))

    def complete_batch(self, images, masks, *, k):
        return [self.complete(*pair, k=k) for pair in zip(images, masks, strict=True)]


def test_a_precision_that_does_not_run_leaves_the_others(plans_of):
    def opened(path, *, backend, precision="fp32"):
        if backend == "tensorrt" and precision == "fp32":
            raise ValueError("no plan")
        return contextlib.nullcontext(Session(precision))

    found = plans_of(opened).measure(CPU, True)
    first, *rest = found["checks"]
    assert first == {
        "name": "fp32: a session on its plans",
        "pass": False,
        "said": "ValueError: no plan",
    }
    assert len(rest) >= 5
    assert all(check["pass"] for check in rest)
    assert [row["precision"] for row in found["rows"]] == ["fp16", "fp16"]


def test_what_was_compared_and_timed_before_an_error_stays(plans_of):
    def opened(path, *, backend, precision="fp32"):
        until = {"fp32": 3, "fp16": 4 + 3}[precision] if backend == "tensorrt" else 100
        return contextlib.nullcontext(Session(precision, until))

    found = plans_of(opened).measure(CPU, True)
    failed = [check["name"] for check in found["checks"] if not check["pass"]]
    compared = "fp32: compared with the CPU's"
    assert failed == [compared, "fp32: timed", "fp16: timed"]
    assert [check["name"] for check in found["checks"]].index(compared) == 4
    assert [(row["precision"], row["batch"]) for row in found["rows"]] == [("fp16", 1)]


FOUND = """
import time

def use(device, tiny):
    yield "rows", {"k": 1, "device": str(device), "tiny": tiny}
    yield "skipped", "one thing"
    ENDS
"""


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("time.sleep(60)", "it was ended after 4 s"),
        ("pass", None),
    ],
)
def test_what_a_process_of_its_own_found_is_kept_however_it_ends(
    of, monkeypatch, tmp_path, ends, said
):
    own_process = of("gpu.own_process")
    monkeypatch.setattr(own_process, "MOST_SECONDS", 4)
    # a stand-in for torch, which takes seconds to import
    (tmp_path / "torch.py").write_text("device = str\n")
    place = tmp_path / "gpu"
    place.mkdir()
    (place / "__init__.py").touch()
    (place / "part.py").write_text(FOUND.replace("ENDS", ends))
    source = pathlib.Path(own_process.__file__)
    (place / "own_process.py").write_text(source.read_text())
    ended, found = own_process.run("part", CPU, True, tmp_path, check="it runs")
    assert ended == {"name": "it runs", "pass": said is None} | ({"said": said} if said else {})
    assert own_process.sorted_out(found, ("rows", "loops", "skipped")) == {
        "rows": [{"k": 1, "device": "cpu", "tiny": True}],
        "loops": [],
        "skipped": ["one thing"],
    }


def test_half_a_line_of_a_process_that_was_ended_is_left_out(of, monkeypatch, tmp_path):
    own_process = of("gpu.own_process")

    def ended(command, **_):
        pathlib.Path(command[-1]).write_text('["rows", 1]\n["rows", {"k"')
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(own_process.subprocess, "run", ended)
    assert own_process.run("part", CPU, True, tmp_path, check="x")[1] == [("rows", 1)]


def test_a_row_that_fails_is_a_failed_check_and_the_others_follow(of, monkeypatch):
    inference, pipelines = of("gpu.inference"), of("gpu.pipelines")
    timing = of("gpu.timing")

    def timed(engine, device, effort, row):
        if row["k"] == 2:
            breaking()
        return timing.Timing(**TAKEN)

    monkeypatch.setattr(pipelines, "timed", timed)
    monkeypatch.setattr(pipelines.counting, "macs", lambda engine: (1, 1))
    sizes = ((1, 1), (1, 2), (2, 1))
    found = list(inference.attempted("rows", lambda: pipelines.rows(None, CPU, None, sizes)))
    rows = [value["outcome"] for kind, value in found if kind == "rows"]
    assert rows == ["measured", "failed", "measured"] * 2
    checks = [value for kind, value in found if kind == "checks"]
    assert [check["name"] for check in checks] == [
        f"W1 {name}, batch 1, k = 2, one by one" for name in ("fp32", "fp16")
    ]
    assert not any(check["pass"] for check in checks)
    loops = list(inference.attempted("loops", breaking))
    assert [kind for kind, _ in loops] == ["checks"]


def test_a_backend_that_fails_in_a_call_is_a_failed_check(of, monkeypatch):
    sessions = of("gpu.sessions")
    engine = TRAINING.parent / "engines" / "cats128"
    monkeypatch.setattr(sessions, "candidates", lambda *_: [("torch", "fp32"), ("x", "fp16")])

    def of_two(engine, device, backend, precision):
        if backend == "torch":
            return contextlib.nullcontext(Session(precision, until=0))
        raise sessions.PicmeError("it is not installed")

    monkeypatch.setattr(sessions, "opened", of_two)
    (first, check), (second, why) = sessions.parity(engine, CPU, 2)
    assert (first, check["name"], check["pass"]) == ("checks", "cats128, torch fp32", False)
    assert (second, why) == ("skipped", "cats128, x fp16: it is not installed")
    ((kind, call),) = sessions.calls(engine, CPU, tiny=True)
    assert (kind, call["pass"]) == ("checks", False)


def test_the_largest_sizes_of_w1_come_last(of):
    pipelines = of("gpu.pipelines")
    assert {(32, 50), (32, 1), (1, 50)} < set(pipelines.LARGE) < set(pipelines.SIZES)
    assert (1, 16) not in pipelines.LARGE

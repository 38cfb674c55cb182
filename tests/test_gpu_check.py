import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

TRAINING = pathlib.Path(__file__).parents[1] / "training"
TINY = ["--device", "cpu", "--tiny"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One run of every part as a user starts it; the finished process and its JSON."""
    out = tmp_path_factory.mktemp("gpu") / "report.json"
    done = subprocess.run(
        [sys.executable, str(TRAINING / "gpu_check.py"), *TINY, "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    return done, out


@pytest.fixture
def gpu_check(monkeypatch):
    """The script as a module; sys.path is put back afterwards."""
    monkeypatch.syspath_prepend(TRAINING)
    import gpu_check

    return gpu_check


@pytest.fixture
def report(measured, tmp_path):
    """A copy of the report, to change."""
    return pathlib.Path(shutil.copy(measured[1], tmp_path / "report.json"))


def changed(path, change):
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


def test_it_measures_every_part_without_a_gpu(measured):
    done, out = measured
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["settings"] == {"machine": "cpu", "tiny": True}
    parts = ["environment", "decode", "training", "kernels", "inference", "tensorrt"]
    assert list(report["parts"]) == parts
    for part, found in report["parts"].items():
        assert found["seconds"] >= 0
        assert all(check["pass"] for check in found["checks"])
        assert f"\n## {part} (" in done.stdout
    assert "figures mean nothing" in done.stdout
    assert not list(out.parent.glob("*.partial"))


def test_every_way_of_decoding_is_timed_and_checked(measured):
    found = json.loads(measured[1].read_text())["parts"]["decode"]
    cases = {(r["k"], r["way"], r["precision"], r["layout"]) for r in found["rows"]}
    ways = [("loop", "nchw"), ("batch", "nchw"), ("batch", "channels_last")]
    assert cases == {(k, w, p, y) for k in (1, 2) for w, y in ways for p in ("fp32", "bf16")}
    assert len(found["checks"]) == len(found["rows"]) == len(cases)
    for row in found["rows"]:
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        assert row["ms_per_image"] == row["median_ms"] / row["k"]
        assert row["way"] != "loop" or row["speedup"] == 1
        assert row["share_of_peak"] > 0


def test_training_says_pictures_a_second_and_seconds_for_a_million(measured):
    found = json.loads(measured[1].read_text())["parts"]["training"]
    assert [(r["preset"], r["size"], r["outcome"]) for r in found["rows"]] == [
        ("cats", 64, "measured"),
        ("picme", 64, "measured"),
    ]
    for row in found["rows"]:
        assert row["pictures_per_second"] == pytest.approx(1e3 * row["batch"] / row["median_ms"])
        assert row["seconds_per_million"] == pytest.approx(1e6 / row["pictures_per_second"])
        assert row["seconds_per_million_at_most"] > row["seconds_per_million"]


def test_the_kernels_are_compared_by_hash_and_by_number(measured):
    found = json.loads(measured[1].read_text())["parts"]["kernels"]
    assert sum(check["name"].startswith("golden hash") for check in found["checks"]) == 6
    if "skipped" not in found["device_program"]:
        counts = [check["differ"] for check in found["checks"] if "of" in check]
        assert counts[:14] == [0] * 14
        assert not any(counts)
        names = {check["name"] for check in found["checks"]}
        assert {"the kernel's golden hash, categorical", "the kernel: P 33, D 131"} <= names
        assert {"the composite's golden hashes, by its kernels", "the composite: enlarged"} <= names
    by_reference = [c for c in found["checks"] if c["name"].endswith("hashes, by the reference")]
    assert len(by_reference) == 1


def test_what_needs_a_gpu_is_named_as_skipped(measured):
    done, out = measured
    found = json.loads(out.read_text())["parts"]["kernels"]
    assert found["skipped"][-1] == "the module, its graph and its time: no GPU with nvcc"
    assert "Skipped: the module, its graph" in done.stdout
    assert found["rows"] == found["composite_rows"] == []


def test_the_torch_backend_is_measured_beside_the_loop(measured):
    done, out = measured
    found = json.loads(out.read_text())["parts"]["inference"]
    cases = [(row["precision"], row["batch"], row["k"], row["way"]) for row in found["rows"]]
    assert cases == [(p, 1, k, "one by one") for p in ("fp32", "fp16") for k in (1, 2)]
    for row in found["rows"]:
        assert row["outcome"] == "measured"
        assert row["ms_per_picture"] == row["median_ms"] > 0
    shared = [row for row in found["rows"] if row["precision"] == "fp32"]
    # no more is sure of a peak that was measured in microseconds, beside other work
    assert all(row["share_of_peak"] > 0 for row in shared)
    assert [(row["k"], row["precision"]) for row in found["loops"]] == [(1, "fp32"), (1, "bf16")]
    (check,) = found["checks"]
    assert check["name"] == "cats128, torch fp32"
    assert (check["mean_levels"], check["known"]) == (0, True)
    (call,) = found["calls"]
    assert (call["backend"], call["pictures"]) == ("torch", 2)
    assert "| cats128, torch fp32 | 0.000 | 0 |" in done.stdout


def test_what_an_h200_is_to_reach_is_no_check(gpu_check):
    gpu_check.add_paths()
    from gpu import inference

    row = {"precision": "fp16", "batch": 1, "k": 6, "outcome": "measured", "speedup": 12.0}
    call = {"backend": "torch", "precision": "fp16", "pictures": 100, "seconds": 0.16}
    rows = [
        {**row, "way": way, "median_ms": ms} for way, ms in (("graph", 1.6), ("one graph", 1.4))
    ]
    found = inference.targets({"rows": rows, "calls": [call]})
    assert [one["reached"] for one in found] == [True, True, False]
    slow = inference.targets({"rows": rows[:1], "calls": []})
    assert [one["reached"] for one in slow] == [False, True]
    assert not any("pass" in one for one in found)
    assert inference.targets({"rows": [], "calls": []}) == []


def test_what_did_not_fit_into_memory_is_a_row_too(gpu_check, monkeypatch):
    gpu_check.add_paths()
    from gpu import inference, pipelines

    def full(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(pipelines, "timed", full)
    label = {"precision": "fp32", "batch": 32, "k": 50, "way": "graph", "gmac": 1.0}
    row = label | pipelines.attempt(None, torch.device("cpu"), None, label)
    result = {"rows": [row], "loops": [], "checks": [], "calls": [], "skipped": ["one thing"]}
    inference.add_speedups(result)
    inference.add_shares(result, {"fp32": {"median": 1.0}})
    drawn = inference.table(result)
    assert "| fp32 | 32 | 50 | graph | out of memory | - | - | - | - |" in drawn
    assert drawn.endswith("Skipped: one thing.")


def test_results_that_are_off_are_found_out(gpu_check):
    gpu_check.add_paths()
    import picme_rt
    from gpu import sessions

    img, hole = np.full((8, 8, 3), 90, np.uint8), np.zeros((8, 8), bool)
    hole[2:6, 2:6] = True
    want = picme_rt.Completions(np.stack([img] * 2), np.arange(2), np.zeros(2, np.int32), None)

    def judged(change, precision="fp32", first=0):
        images = want.images.copy()
        images[change] += 2
        got = want._replace(images=images)
        again = want._replace(images=images[first : first + 1])
        return sessions.compared(want, got, again, hole, img, precision)["pass"]

    nothing, inside, outside = np.s_[:0], np.s_[:, 3, 3], np.s_[:, 0, 0]
    assert judged(nothing)
    assert judged(inside, "fp16")
    assert not judged(inside)  # two levels at the 99.9th percentile
    assert not judged(outside, "fp16")  # a known pixel
    assert not judged(np.s_[0, 3, 3], "fp16", first=1)  # another picture for another k
    drawn = want._replace(primitives=np.ones(2, np.int32))
    assert not sessions.compared(want, drawn, want, hole, img, "fp16")["pass"]
    assert sessions.compared(want, drawn, want._replace(images=want.images[:1]), hole, img, "tf32")[
        "pass"
    ]


def test_w1_is_the_same_engine_each_time(gpu_check, tmp_path):
    gpu_check.add_paths()
    from gpu import w1
    from picme_rt import engine as engines

    one, two = (engines.load(w1.write(tmp_path / name)) for name in "ab")
    assert one.files == two.files
    assert (one.size, one.primitives, one.latent) == (256, 6, 256)
    content = one.read("fp32/decoder.onnx")
    assert abs(np.frombuffer(content[1000:], np.uint8).astype(float)).mean() > 50  # no zeros left


def test_launches_are_counted_as_torch_makes_them(gpu_check):
    gpu_check.add_paths()
    from gpu import counting

    x, weight, bias = torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 1, 1), torch.zeros(3)
    with torch.no_grad(), counting._Counter() as counter:
        y = torch.nn.functional.conv2d(x, weight, bias)  # two launches
        y.flatten(1).view(3, 16).t()  # views
        torch.cat([y, y], 1)
    assert counter.launches == 3
    assert counter.bytes == 4 * (32 + 6 + 3 + 48) + 4 * (48 + 48 + 96)


def test_a_check_that_raises_is_a_failed_check(gpu_check):
    gpu_check.add_paths()
    from gpu import module

    def breaks(device):
        yield {"name": "before", "pass": True}
        raise RuntimeError(f"{device} is lost")

    before, broken = module.attempted(breaks, "cuda")
    assert before["pass"]
    assert broken == {"name": "breaks", "pass": False, "said": "RuntimeError: cuda is lost"}


def test_a_build_that_fails_is_told(gpu_check, tmp_path):
    gpu_check.add_paths()
    from gpu import module

    told = module.build(tmp_path / "new", str(tmp_path / "no_nvcc"), "90-real")
    assert not told["pass"]
    assert "PICME_CUDA=ON, but nvcc found, but it fails" in told["said"].replace("\n", " ")


def test_the_times_of_the_launches_are_a_table(gpu_check):
    gpu_check.add_paths()
    from gpu import module, timing

    taken = timing.Timing(2.0, 1.0, 3.0, 10)._asdict()
    row = {"size": [1, 6, 256, 6], "log_prob": True, "bytes": 18_500, "of_copy": 0.25}
    drawn = module.table([{**row, "launch": taken, "graph": taken, "copy": taken}])
    said = "| 1, 6, 256, 6 | yes | 0.0185 | 2 (1 to 3) | 2 (1 to 3) | 2 (1 to 3) | 25% |"
    assert drawn.splitlines()[-1] == said


def test_the_times_of_the_composites_are_a_table(gpu_check):
    gpu_check.add_paths()
    from gpu import composite_module, timing

    taken = timing.Timing(2.0, 1.0, 3.0, 10)._asdict()
    row = {"size": [1, 6, 256, 256, 256], "hole": "quarter", "type": "float16", "bytes": 18_500}
    drawn = composite_module.table(
        [{**row, "of_copy": 0.25, "launch": taken, "graph": taken, "copy": taken}]
    )
    said = (
        "| 1, 6, 256, 256, 256 | quarter | float16 | 0.0185 | 2 (1 to 3) | 2 (1 to 3) | 2 (1 to 3) "
    )
    assert drawn.splitlines()[-1] == f"{said}| 25% |"


def test_a_composite_that_writes_another_byte_is_found_out(gpu_check):
    gpu_check.add_paths()
    from gpu import composites

    case = composites.cases()[0]
    written = composites.truth(case)
    assert composites.judged(case, written)["pass"]
    written[0, 0, 3, 5, 1] ^= 1
    assert composites.judged(case, written) == {
        "name": "not resized",
        "pass": False,
        "of": 67500,
        "differ": 1,
    }


def test_what_was_measured_is_kept_and_the_rest_is_made_up_for(gpu_check, report, capsys):
    changed(report, lambda held: held["parts"].pop("tensorrt"))
    before = json.loads(report.read_text())["parts"]
    assert gpu_check.main([*TINY, "--out", str(report)]) == 0
    after = json.loads(report.read_text())["parts"]
    assert after.pop("tensorrt")["skipped"]
    assert after == before
    said = capsys.readouterr().err
    assert "decode is in" in said
    assert "tensorrt ..." in said


def test_force_measures_anew(gpu_check, report):
    changed(report, lambda held: held["parts"]["tensorrt"].update(seconds=-1))
    assert gpu_check.main(["tensorrt", "--force", *TINY, "--out", str(report)]) == 0
    parts = json.loads(report.read_text())["parts"]
    assert parts["tensorrt"]["seconds"] >= 0
    assert len(parts) == 6


def test_a_failed_check_is_told_and_ends_with_1(gpu_check, report, capsys):
    changed(report, lambda held: held["parts"]["kernels"]["checks"][0].update({"pass": False}))
    assert gpu_check.main([*TINY, "--out", str(report)]) == 1
    assert "failed" in capsys.readouterr().err


def test_a_report_of_another_machine_is_not_mixed_in(gpu_check, report, capsys):
    changed(report, lambda held: held["settings"].update(machine="another"))
    assert gpu_check.main([*TINY, "--out", str(report)]) == 1
    assert "another --out" in capsys.readouterr().err


def test_a_file_that_is_no_report_is_refused(gpu_check, tmp_path, capsys):
    path = tmp_path / "notes.json"
    path.write_text("[]")
    assert gpu_check.main([*TINY, "--out", str(path)]) == 1
    assert "no report" in capsys.readouterr().err


def test_an_unknown_part_is_a_usage_error(gpu_check, capsys):
    with pytest.raises(SystemExit) as raised:
        gpu_check.main(["decoder", *TINY])
    assert raised.value.code == 2
    assert (
        "PART must be one of environment, decode, training, kernels, inference"
        in capsys.readouterr().err
    )


def test_a_missing_gpu_is_one_clear_line(gpu_check, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "report.json"
    assert gpu_check.main(["--out", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gpu-check: no GPU: ")
    assert said.err.count("\n") == 1
    assert not out.exists()


def test_nan_and_wrong_shapes_never_pass(gpu_check):
    gpu_check.add_paths()
    from gpu import decode, timing

    suite = decode.Suite(torch.device("cpu"), timing.TINY)
    truth = torch.ones(3)
    suite.check({"way": "same"}, truth, truth, 0.1)
    suite.check({"way": "nan"}, truth * float("nan"), truth, 0.1)
    suite.check({"way": "broadcast"}, torch.ones(1), truth, 0.1)
    suite.check({"way": "far"}, 2 * truth, truth, 0.1)
    assert [check["pass"] for check in suite.checks] == [True, False, False, False]


@pytest.mark.parametrize("stale", [False, True])
def test_a_graph_that_keeps_old_inputs_is_found_out(gpu_check, stale):
    gpu_check.add_paths()
    from gpu import decode, timing

    def request():
        return decode.Request(*torch.rand(4, 1, 3))

    held = request()
    old, output = held.image * 2, torch.empty(1, 3)

    class Graph:
        def replay(self):
            output.copy_(old if stale else held.image * 2)

    suite = decode.Suite(torch.device("cpu"), timing.TINY)
    label = {"way": "graph", "precision": "fp32"}
    new = request()
    decode.check_graph(suite, label, Graph(), output, lambda: held.image * 2, held, new)
    assert (held.image == new.image).all()
    assert suite.checks[0]["pass"] is not stale


def test_a_program_that_draws_other_numbers_is_found_out(gpu_check, tmp_path):
    gpu_check.add_paths()
    from gpu import bits

    compiler = bits.compiler(torch.device("cpu"))
    assert compiler is not None, "the project needs a C++ compiler"
    source = tmp_path / "draw.cpp"
    source.write_text(bits.PROGRAM.replace("u * 192.0f - 104.0f", "u * 192.0f - 103.0f"))
    include = ["-DQUADS=64", "-I", str(TRAINING.parent / "kernels")]
    subprocess.run([*compiler, *include, "-o", str(tmp_path / "draw"), str(source)], check=True)
    found = {check["name"]: check for check in bits.draws(tmp_path / "draw", 256, 0)}
    assert not found["exp, seed 0"]["pass"]
    assert found["exp, seed 0"]["differ"] > 900
    assert all(check["pass"] for name, check in found.items() if name != "exp, seed 0")


def test_a_part_whose_package_is_missing_is_one_line(gpu_check, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(gpu_check.MODULES, "decode", "gpu.of_another_day")
    assert gpu_check.main(["decode", *TINY, "--out", str(tmp_path / "report.json")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("gpu-check: decode needs gpu.of_another_day, which this python3 lacks")

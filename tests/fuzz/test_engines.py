"""Damaged engines: a few hundred in every run of the tests; `make fuzz` opens 100,000."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import engine_mutations
import numpy as np
import onnx
import pytest
import tiny_engines

import engines as fuzz
import picme_rt
from picme_rt import onnx_file
from picme_rt.errors import EngineError
from picme_rt.operators import RULES

PROGRAM = Path(__file__).with_name("engines.py")


def opened(*options):
    """The program's exit status and its summary; a process of its own, since it forks."""
    command = [sys.executable, str(PROGRAM), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(("backend", "cases"), [("onnxruntime", 400), ("openvino", 150)])
def test_each_damaged_engine_is_refused_or_gives_a_right_result(backend, cases):
    status, found = opened("--cases", str(cases), "--seed", "7", "--backend", backend)
    assert found["findings"] == []
    assert status == 0
    assert found["count"]["refused"] + found["count"]["loaded"] == cases
    assert found["count"]["loaded"] > 10  # harmless changes: the oracle sees pictures too
    assert set(found["kinds"]) == set(fuzz.KINDS)


def test_a_decoder_that_is_right_for_few_boxes_is_refused_at_the_first_other(tmp_path):
    """Its map is empty there: an instance norm of it ended the process in ONNX Runtime."""
    fuzz.write(tmp_path / "engine", tiny_engines.bent("sum").files)
    img, made, said = np.zeros((16, 16, 3), np.uint8), 0, []
    with picme_rt.Session(tmp_path / "engine", backend="onnxruntime") as session:
        for at in range(16):
            hole = np.zeros((16, 16), bool)
            hole[at, at] = True
            try:
                assert session.complete(img, hole, k=1).images.shape == (1, 16, 16, 3)
                made += 1
            except EngineError as exc:
                said.append(str(exc))
    assert made > 0
    assert len(said) > 0
    for words in said:
        assert re.search(
            r"as the box \(.*\) shows: Slice 'n\d+': a window must be inside of", words
        )


def test_a_decoder_that_multiplies_rows_of_its_box_is_refused(tmp_path):
    fuzz.write(tmp_path / "engine", tiny_engines.bent("product").files)
    with pytest.raises(EngineError, match=r"must be one or two of 0 or more|must be a row of"):
        fuzz.complete(tmp_path / "engine")


def test_the_tiny_engines_have_every_operator():
    made = [tiny_engines.make(z_m=z_m) for z_m in (True, False)]
    graphs = [onnx_file.parse(one.files[name]) for one in made for name in fuzz.graphs_of(one)]
    assert {node.operator for graph in graphs for node in graph.nodes} == set(RULES)


def test_a_case_is_a_function_of_its_number():
    made = fuzz.wholes_of()
    for number in range(50):
        assert fuzz.make(3, number, made).files == fuzz.make(3, number, made).files


@pytest.mark.parametrize("change", engine_mutations.GRAPH_CHANGES, ids=lambda c: c.__name__)
def test_each_change_of_a_graph_changes_something(change):
    whole = tiny_engines.make(z_m=True)
    content = whole.files["fp32/decoder.onnx"]
    dice, other = random.Random(0), onnx.ModelProto.FromString(content)
    changed = 0
    for _ in range(30):
        model = onnx.ModelProto.FromString(content)
        change(dice, model, other)
        changed += model.SerializeToString(deterministic=True) != content
    assert changed > 10


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({}, "loaded"),
        ({"fp32/encoder.onnx": b"<pipe>"}, "refused"),
        ({"engine.json": b"{}"}, "refused"),
    ],
)
def test_a_right_answer_is_no_finding(tmp_path, files, word):
    assert judged(tmp_path, files, "files")[0] == word


def test_the_program_sees_a_changed_graph_that_nobody_noticed(tmp_path):
    """As if digests were not compared."""
    whole = tiny_engines.make(z_m=True)
    other = tiny_engines.make(z_m=True)
    model = onnx.ModelProto.FromString(other.files["fp32/decoder.onnx"])
    model.graph.node[-1].name = "another"
    graphs = {
        "fp32/encoder.onnx": whole.files["fp32/encoder.onnx"],
        "fp32/decoder.onnx": model.SerializeToString(),
    }
    files = {**graphs, "engine.json": tiny_engines.signed(whole.engine, graphs)}
    assert judged(tmp_path, files, "graph bytes")[0] == "wrong picture"
    assert judged(tmp_path, files, "graph parts, signed")[0] == "loaded"


def test_the_program_sees_another_result_and_another_error(tmp_path, monkeypatch):
    assert judged(tmp_path, {}, "files", by=1)[0] == "wrong picture"
    for error, word in ((ValueError("x"), "foreign error"), (fuzz.PicmeError("a\nb"), "long words"),
                        (fuzz.PicmeError("the decoder did not run"), "late")):  # fmt: skip

        def fails(root, backend, error=error):
            raise error

        monkeypatch.setattr(fuzz, "complete", fails)
        assert fuzz.judge(fuzz.Case({}, tiny_engines.make(z_m=True), "files"), tmp_path / "e",
                          None)[0] == word  # fmt: skip


WATCHED = """
import json, os, time
import engines as fuzz
fuzz.SILENCE = 1

def work(seed, numbers, root, backend, sender):
    sender.send(None)
    for n in numbers:
        if n == 3: os._exit(7)
        if n == 5: time.sleep(600)
        sender.send(fuzz.Outcome("files", "loaded", "", 0.0, (1 << 30) * (n == 7)))

fuzz.work = work
print(json.dumps(fuzz.run(0, 0, 10)))
"""


def test_the_program_sees_a_crash_a_hang_and_memory_and_goes_on():
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], capture_output=True, text=True, cwd=PROGRAM.parent,
        timeout=120,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert [(one["case"], one["finding"]) for one in found["findings"]] == [
        (3, "crash"), (5, "hang"), (7, "memory")
    ]  # fmt: skip
    assert found["count"]["loaded"] == 7


def judged(folder, files, kind, *, by=0):
    whole = tiny_engines.make(z_m=True)
    fuzz.write(folder / "engine", whole.files)
    expected = fuzz.complete(folder / "engine").images + by
    case = fuzz.Case({**whole.files, **files}, whole, kind)
    return fuzz.judge(case, folder / "engine", expected)

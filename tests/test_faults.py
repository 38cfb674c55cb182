"""Killed, interrupted and out of space: nothing finished is lost, no half file is taken for whole.

A helper process imports everything once and forks a victim for each command; it kills the victim
after a random while.
"""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import picme_rt
from picme_export import graphs
from picme_rt import cli
from picme_rt import engine as engines
from picme_training import checkpoint, loop
from picme_training.config import NetworkConfig, RunConfig, ScheduleConfig
from picme_training.loop import Trainer
from picme_training.networks import Picme

KILLS = {"train": 18, "export": 12, "complete": 20}
TOML = """
[network]
preset = "cats"
size = 64
primitives = 3
[schedule]
steps = 5
batch = 2
lr = 1e-3
evaluate_every = 1
"""


# The helper


class Order(NamedTuple):
    """A command of `picme`, and what shall happen to it."""

    arguments: list[str]
    seconds: float | None = None  # it is killed after this long,
    write: tuple[str, float] | None = None  # and this long into its next write below a folder
    largest: int | None = None  # bytes that a file may have: the write after them fails
    traced: Path | None = None  # an engine whose graphs are taken, instead of tracing for seconds


class Outcome(NamedTuple):
    killed: bool
    code: int | None
    stderr: str
    seconds: float


def victim(order):
    """Runs the command; gives its exit code and what it wrote to stderr."""
    if order.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.largest, order.largest))
    if order.traced is not None:
        stored = {p.name: p.read_bytes() for p in (order.traced / "fp32").iterdir()}

        def copy(module, graph, path, *, target, half):
            path.write_bytes(stored[path.name])
            return {}

        graphs.to_onnx = copy
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(order.arguments)
    return code, stderr.getvalue()


def serve(orders):
    """Forks a victim for each order; no thread has been started in this process."""
    multiprocessing.set_start_method("fork", force=True)  # else the locks of tqdm outlive a kill
    torch.set_num_threads(1)
    loop.LOG_EVERY = 1
    config = RunConfig(NetworkConfig("cats", 64, 3), ScheduleConfig(steps=1, batch=2))
    Trainer(config, torch.device("cpu"), None)  # what torch does once, it has done
    for order in iter(orders.recv, None):
        reader, writer = multiprocessing.Pipe(duplex=False)
        began = time.monotonic()
        if (child := os.fork()) == 0:
            try:
                writer.send(victim(order))
            except BaseException:  # a traceback, which no command may end with
                writer.send((None, traceback.format_exc()))
            finally:
                os._exit(0)
        writer.close()
        ended = reader.poll(order.seconds)
        if order.write is not None and not ended:
            while not leftovers(Path(order.write[0])) and not reader.poll(0.001):
                pass
            ended = reader.poll(order.write[1])
        if killed := not ended:
            os.kill(child, signal.SIGKILL)
        seconds = time.monotonic() - began
        code, stderr = (None, "") if killed else reader.recv()
        os.waitpid(child, 0)
        reader.close()
        orders.send(Outcome(killed, code, stderr, seconds))


@pytest.fixture(scope="module")
def picme():
    """Calls `picme` in a victim; gives its outcome."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    helper = context.Process(target=serve, args=(theirs,))
    helper.start()
    theirs.close()

    def call(*arguments, **how):
        ours.send(Order([str(argument) for argument in arguments], **how))
        return ours.recv()

    yield call
    ours.send(None)
    helper.join()


def succeed(outcome):
    assert outcome.code == 0, outcome.stderr
    return outcome


def one_line(outcome, text):
    """The command failed with one line, which holds `text`."""
    assert outcome.code == 1, outcome
    assert "Traceback" not in outcome.stderr
    (line,) = [part for part in outcome.stderr.splitlines() if part.startswith("picme:")]
    assert text in line
    return line


def leftovers(folder):
    """Temporary names below a folder; os.walk lets them vanish while it looks, rglob does not."""
    return [
        Path(place, name)
        for place, directories, files in os.walk(folder)
        for name in directories + files
        if name.startswith(".picme-")
    ]


# What they work on


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders `images` and `masks` of four pictures."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3)
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    mask = np.zeros((80, 90), np.uint8)
    mask[20:60, 30:70] = 255
    for i in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((90, 80), Image.Resampling.BICUBIC).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def training(pictures):
    """The arguments of `picme train`, without --out."""
    (pictures / "run.toml").write_text(TOML)
    data = pictures / "images"
    return ["train", pictures / "run.toml", "--data", data, "--val", data]


@pytest.fixture(scope="module")
def unbroken(picme, training, tmp_path_factory):
    """(folder, seconds) of a training that nobody disturbs."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    return out, succeed(picme(*training, "--out", out)).seconds


@pytest.fixture(scope="module")
def run(exported, tmp_path_factory):
    """A run with one checkpoint, to export: the weights of the tiny engine `cats`."""
    model = exported("cats").model
    judge = torch.nn.Linear(1, 1)
    state = checkpoint.State(
        Picme(model.config), model, judge, {"d": torch.optim.Adam(judge.parameters())}
    )
    place = tmp_path_factory.mktemp("runs") / "run"
    config = RunConfig(model.config, ScheduleConfig(steps=3, batch=2))
    checkpoint.save(place, checkpoint.Description(config, 3, 3), state)
    return place


def check_run(out):
    """Every checkpoint and every sample that has its name is whole; gives the newest step."""
    steps = [0]
    for place in (out / "checkpoints").glob("step_*"):
        about = json.loads((place / "checkpoint.json").read_text())
        files = {path.name for path in place.iterdir()} - {"checkpoint.json"}
        assert files == about["sha256"].keys()
        for name, expected in about["sha256"].items():
            assert hashlib.sha256((place / name).read_bytes()).hexdigest() == expected
        steps.append(about["step"])
    for path in (out / "samples").glob("step_*.png"):
        Image.open(path).load()
    return max(steps)


def curves(out):
    """metrics.jsonl without the speeds."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images/s"} for line in lines]


def check_equal(out, other):
    """Weights, optimisers, curves and samples of two finished runs are equal to the bit."""
    assert curves(out) == curves(other)
    for folder in ("checkpoints", "samples"):
        one, two = (
            {p.relative_to(run): p.read_bytes() for p in (run / folder).rglob("*") if p.is_file()}
            for run in (out, other)
        )
        assert one == two


def check_engine(place, picture):
    """The engine opens and completes; gives its name."""
    with picme_rt.Session(place) as opened:
        opened.complete(*picture, k=1)
        return opened.info.name


# kill -9


class Killer:
    """Kills one kind of command so many times, at moments spread over the time that it takes.

    Where `write` says how long a write takes, every other kill falls into one.
    """

    def __init__(self, picme, verb, longest, write=0.0):
        self.picme, self.left, self.longest, self.write = picme, KILLS[verb], longest, write
        self.random, self.progress = random.Random(verb), Counter()

    def __call__(self, *arguments, out=None, **how):
        """Whether the command was killed; if not, it has succeeded. The last one lives."""
        if self.left:
            how["seconds"] = self.random.uniform(0, self.longest)
        if self.write and self.left % 2:
            how["write"] = (str(out), self.random.uniform(0, self.write))
        outcome = self.picme(*arguments, *(["--out", out] if out else []), **how)
        if not outcome.killed:
            succeed(outcome)
        self.left -= outcome.killed
        return outcome.killed

    def tell(self):
        """Prints where the kills fell, for the reader of `pytest -s`."""
        print(f"\n{sum(self.progress.values())} kills: {dict(sorted(self.progress.items()))}")


def test_a_training_that_is_killed_ends_as_the_unbroken_one_to_the_bit(
    picme, training, unbroken, tmp_path
):
    whole, seconds = unbroken
    killer, number, newest = Killer(picme, "train", 0.7 * seconds, write=0.1), 0, 0
    out = tmp_path / "run_0"
    while killer.left or newest:
        more = ["--resume"] if newest else []
        killed = killer(*training, *more, out=out)
        reached = check_run(out)
        assert reached >= newest  # nothing finished is lost
        newest = reached
        if killed:
            killer.progress[f"step {newest}{', in a write' if leftovers(out) else ''}"] += 1
            continue
        assert leftovers(out) == []
        check_equal(out, whole)
        shutil.rmtree(out)
        number, newest = number + 1, 0
        out = tmp_path / f"run_{number}"
    killer.tell()
    assert len(killer.progress) > 4
    assert any("write" in progress for progress in killer.progress)


@pytest.mark.parametrize("force", [False, True], ids=["new", "over an old one"])
def test_an_export_that_is_killed_leaves_the_whole_old_engine_or_the_whole_new_one(
    picme, run, exported, picture, tmp_path, force
):
    target, cats = tmp_path / "engine", exported("cats").path
    command = ["export", run, "-o", target, "--name", "new", *(["--force"] if force else [])]

    def before():
        shutil.rmtree(target, ignore_errors=True)
        if force:
            shutil.copytree(cats, target)

    before()
    killer = Killer(picme, "export", succeed(picme(*command, traced=cats)).seconds)
    killer.left //= 2
    while killer.left:
        before()
        if killer.left == 1:  # once with the tracing, which takes seconds and writes nothing
            killer.longest *= 5
        if not killer(*command, traced=cats if killer.left > 1 else None):
            continue
        there = check_engine(target, picture) if target.exists() else None
        assert there in ({"cats", "new"} if force else {None, "new"})
        left = [p.name for path in leftovers(tmp_path) for p in path.rglob("*") if p.is_file()]
        killer.progress[f"{there}, files left {len(left)}"] += 1
    killer.tell()
    succeed(picme("export", run, "-o", target, "--name", "new", "--force", traced=cats))
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]
    assert check_engine(target, picture) == "new"
    assert engines.load(target).files.keys() == {"fp32/encoder.onnx", "fp32/decoder.onnx"}


def results(out):
    """The bytes of every file of a folder run."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def written(out):
    """When each file of a folder run was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("[!.]*")}


def test_a_folder_run_that_is_killed_completes_what_was_missing_and_nothing_twice(
    picme, pictures, engine, tmp_path
):
    places = pictures / "images", pictures / "masks"
    command = ["complete", *places, "-k", 8, "--engine", engine]
    whole = tmp_path / "whole"
    seconds = succeed(picme(*command, "-o", whole)).seconds
    expected = results(whole)
    assert len(expected) == 4 * 9 + 1  # eight results and a sheet each, and the run's record
    killer, number = Killer(picme, "complete", 0.9 * seconds, write=0.003), 0
    while killer.left:
        out, there, killed = tmp_path / f"out_{number}", {}, True
        number += 1
        while killed:
            more = ["--resume"] if (out / "picme_run.json").exists() else []
            before = written(out)
            killed = killer(*command, *more, out=out)
            now = results(out) if out.exists() else {}
            assert now.items() <= expected.items()  # no half file, no other picture
            assert there.keys() <= now.keys()  # nothing finished is lost
            assert before.items() <= written(out).items()
            there = now
            if killed:
                writes = ", in a write" if out.exists() and leftovers(out) else ""
                killer.progress[f"{len(now):2} files{writes}"] += 1
        assert there == expected
        assert leftovers(out) == []
    killer.tell()
    assert len(killer.progress) > 2  # on a machine that others slow down kills fall close together
    assert any("write" in progress for progress in killer.progress)


# A full disk: a file that grows over a limit fails in the middle of its write


def test_a_training_on_a_full_disk_ends_with_one_line(picme, training, unbroken, tmp_path):
    sizes = {path.name: path.stat().st_size for path in unbroken[0].rglob("*") if path.is_file()}
    for name, largest, written in (
        ("events.out.tfevents.", 10, "events"),
        ("step_00000001", sizes["model.safetensors"] - 1, "the first file of the checkpoint"),
        ("step_00000001", sizes["optimizer.safetensors"] - 1, "the last one"),
    ):
        out = tmp_path / written
        assert name in one_line(picme(*training, "--out", out, largest=largest), "File too large")
        assert check_run(out) == 0
        assert leftovers(out) == []


def test_a_training_whose_disk_fills_keeps_its_checkpoints_and_goes_on_when_there_is_room(
    picme, training, unbroken, tmp_path
):
    whole, out = unbroken[0], tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoints" / "step_00000005")
    lines = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    until_4 = sum(len(line) for line in lines if json.loads(line)["step"] <= 4)
    optimizer = (out / "checkpoints" / "step_00000004" / "optimizer.safetensors").stat().st_size
    for largest, name in ((until_4 + 100, "metrics.jsonl"), (optimizer - 1, "step_00000005")):
        line = one_line(
            picme(*training, "--out", out, "--resume", largest=largest), "File too large"
        )
        assert f"{name}: " in line
        assert check_run(out) == 4
        assert leftovers(out) == []
        if name == "metrics.jsonl":  # half a line, of which a resumed run knows nothing
            assert (out / name).stat().st_size == largest
    succeed(picme(*training, "--out", out, "--resume"))
    check_equal(out, whole)


@pytest.mark.parametrize("force", [False, True], ids=["new", "over an old one"])
@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_an_export_on_a_full_disk_leaves_what_was_there(
    picme, run, exported, picture, tmp_path, force, graph
):
    target, cats = tmp_path / "engine", exported("cats").path
    if force:
        shutil.copytree(cats, target)
    largest = (cats / "fp32" / f"{graph}.onnx").stat().st_size - 1
    command = ["export", run, "-o", target, "--name", "new", *(["--force"] if force else [])]
    line = one_line(picme(*command, largest=largest, traced=cats), "File too large")
    assert line == f"picme: {target}: File too large"
    assert [path.name for path in tmp_path.iterdir()] == (["engine"] if force else [])
    if force:
        assert check_engine(target, picture) == "cats"


def test_a_folder_run_on_a_full_disk_stops_and_goes_on_when_there_is_room(
    picme, pictures, engine, tmp_path
):
    places, out = (pictures / "images", pictures / "masks"), tmp_path / "out"
    command = ["complete", *places, "-k", 2, "--engine", engine]
    succeed(picme(*command, "-o", tmp_path / "whole"))
    expected = results(tmp_path / "whole")
    largest = len(expected["0_sheet.png"]) - 1
    assert largest > max(len(content) for name, content in expected.items() if "sheet" not in name)
    line = one_line(picme(*command, "-o", out, largest=largest), "File too large")
    assert line == f"picme: {out}/0_sheet.png: File too large"
    there = results(out)  # other pictures were in work at once
    assert there.keys() >= {"0_00.png", "0_01.png", "picme_run.json"}
    assert there.items() <= expected.items()
    assert leftovers(out) == []
    succeed(picme(*command, "-o", out, "--resume"))
    assert results(out) == expected


def test_one_picture_on_a_full_disk_is_one_line_too(picme, pictures, engine, tmp_path):
    places = pictures / "images" / "0.png", pictures / "masks" / "0.png"
    outcome = picme("complete", *places, "-o", tmp_path, "--engine", engine, largest=1000)
    assert one_line(outcome, "File too large").startswith(f"picme: {tmp_path}/0_00.png")
    assert not list(tmp_path.iterdir())


def test_learning_a_picture_on_a_full_disk_is_one_line_too(picme, pictures, tmp_path):
    places = pictures / "images" / "0.png", pictures / "masks" / "0.png"
    how = ["--preset", "fast", "--naive", "telea", "-o", tmp_path / "engine"]
    line = one_line(picme("internal", *places, *how, largest=10_000), "File too large")
    assert line == f"picme: {tmp_path}/engine.run/naive: File too large"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["run.json"]


# Ctrl-C


def interrupt(arguments, began):
    """Sends SIGINT to a real process of `picme` as soon as `began()`; checks its last words.

    Gives False where the process was done before the signal reached it.
    """
    # a test that runs in the background, as of nohup, would pass on that SIGINT is ignored
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from picme_rt.cli import main; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not began():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    if process.returncode == 0:
        return False
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert last == "picme: interrupted; files that were finished are whole"
    return True


def test_ctrl_c_ends_a_training_that_can_be_resumed_to_the_bit(picme, training, unbroken, tmp_path):
    out = tmp_path / "run"
    first = out / "checkpoints" / "step_00000001"
    assert interrupt([*training, "--out", out], first.exists)
    assert leftovers(out) == []
    assert check_run(out) >= 1
    succeed(picme(*training, "--out", out, "--resume"))
    for path in (unbroken[0] / "checkpoints").rglob("*.safetensors"):
        assert (out / path.relative_to(unbroken[0])).read_bytes() == path.read_bytes()


def test_ctrl_c_ends_an_export_and_leaves_the_old_engine(run, exported, picture, tmp_path):
    target = tmp_path / "engine"
    command = ["export", run, "-o", target, "--name", "new", "--force"]
    for _ in range(3):  # its writes are a fraction of a second at the end: a busy machine misses it
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(exported("cats").path, target)
        if interrupt(command, lambda: leftovers(tmp_path)):
            break
    else:
        pytest.fail("three exports were done before Ctrl-C reached them")
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]
    assert check_engine(target, picture) == "cats"


def test_ctrl_c_ends_a_folder_run_that_can_be_resumed(picme, pictures, engine, tmp_path):
    places, out = (pictures / "images", pictures / "masks"), tmp_path / "out"
    command = ["complete", *places, "-k", 64, "--engine", engine, "-o", out]
    assert interrupt(command, (out / "0_00.png").exists)
    there = results(out)
    assert 2 <= len(there) < 4 * 65 + 1
    succeed(picme(*command, "--resume"))
    # not before: Ctrl-C may come between the making of a writer's directory and its `try`
    assert leftovers(out) == []
    now = results(out)
    assert len(now) == 4 * 65 + 1
    assert there.items() <= now.items()
    for path in out.glob("*.png"):
        Image.open(path).load()

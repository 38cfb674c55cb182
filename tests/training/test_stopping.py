"""A run that is told to end does so between two steps, and loses none."""

import contextlib
import itertools
import json
import signal
import threading
from types import SimpleNamespace

import pytest

from picme_training import checkpoint, loop, stopping
from picme_training.config import NetworkConfig, RunConfig, ScheduleConfig
from picme_training.data import Batches

CONFIG = RunConfig(NetworkConfig("cats", 64, 2), ScheduleConfig(3, batch=2, evaluate_every=100))
KEPT = ("model", "ema", "discriminator", "optimizer")


def hashes(place):
    found = json.loads((place / "checkpoint.json").read_text())["sha256"]
    return {name: found[f"{name}.safetensors"] for name in KEPT}


@pytest.fixture(autouse=True)
def interrupts():
    """SIGINT as in a shell's foreground: in its background, where tests may run, it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(number):
    """What Python does at a signal; a real one may kill this process (own_process.py)."""
    signal.getsignal(number)(number, None)


def sends(number, at):
    """Sends a signal while the step of index `at` is computed."""
    step = loop.Trainer.train_step

    def train_step(self, *batch):
        if self.step == at:
            send(number)
        return step(self, *batch)

    return train_step


@pytest.fixture(scope="module")
def whole(photographs, tmp_path_factory):
    """The last checkpoint of a run that nobody ends."""
    out = tmp_path_factory.mktemp("whole")
    return loop.train(CONFIG, Batches(photographs, CONFIG), photographs[:3], out)


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_the_step_in_hand_is_finished_and_kept(number, whole, photographs, tmp_path, monkeypatch):
    before = {one: signal.getsignal(one) for one in stopping.SIGNALS}
    out = tmp_path / "told"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "train_step", sends(number, at=1))
        with pytest.raises(KeyboardInterrupt):
            loop.train(CONFIG, Batches(photographs, CONFIG), photographs[:3], out)
    assert {one: signal.getsignal(one) for one in stopping.SIGNALS} == before
    assert checkpoint.describe(checkpoint.find(out)).step == 2
    assert not any((out / "samples").glob("*"))  # it was not measured: it was to end
    last = loop.train(CONFIG, Batches(photographs, CONFIG), photographs[:3], out, resume=True)
    assert hashes(last) == hashes(whole)


def test_a_signal_between_two_looks_loses_no_step(photographs, tmp_path, monkeypatch):
    looks = itertools.count(1)
    monkeypatch.setattr(stopping, "told", lambda: contextlib.nullcontext(lambda: next(looks) >= 3))
    monkeypatch.setattr(loop, "_evaluate", lambda trainer, val, written: None)
    steps, step = [], loop.Trainer.train_step
    monkeypatch.setattr(
        loop.Trainer, "train_step", lambda self, *batch: steps.append(1) or step(self, *batch)
    )
    with pytest.raises(KeyboardInterrupt):
        loop.train(CONFIG, Batches(photographs, CONFIG), photographs[:3], tmp_path)
    assert checkpoint.describe(checkpoint.find(tmp_path)).step == len(steps)


def tell_twice():
    with stopping.told() as told:
        send(signal.SIGINT)
        assert told()
        send(signal.SIGINT)
        pytest.fail("the second one was not heard")


@pytest.fixture
def clock(monkeypatch):
    """Moves the time between two signals: `clock(2.0, 2.5)`."""

    def at(*times):
        times = iter(times)
        stand_in = SimpleNamespace(monotonic=lambda: next(times))
        monkeypatch.setattr(stopping, "time", stand_in)

    return at


def test_a_second_signal_ends_at_once(clock):
    clock(7.0, 8.5)
    with pytest.raises(KeyboardInterrupt):
        tell_twice()


def test_a_signal_that_comes_twice_at_once_is_one(clock):
    """`timeout` signals its command, then the group that the command is in."""
    before = signal.getsignal(signal.SIGINT)
    clock(7.0, 7.01, 7.02, 9.0)
    with stopping.told() as told:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            send(number)
        assert told()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before


def test_what_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopping.told():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_without_a_signal_nothing_is_told():
    with stopping.told() as told:
        assert not told()


def test_in_another_thread_signals_are_left_alone():
    found = []

    def run():
        with stopping.told() as told:
            found.append((told(), signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [(False, before)]


def test_a_run_that_ended_before_its_evaluation_is_measured_when_it_goes_on(
    whole, photographs, tmp_path, monkeypatch
):
    def killed(trainer, val, written):
        raise KeyboardInterrupt

    def measured(out):
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        return [line for line in lines if "val_pairwise" in line]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.train(CONFIG, Batches(photographs, CONFIG), photographs[:3], tmp_path)
    assert measured(tmp_path) == []
    for _ in range(2):  # once, however often it is resumed
        loop.train(CONFIG, Batches(photographs, CONFIG), photographs[:3], tmp_path, resume=True)
        assert measured(tmp_path) == measured(whole.parents[1])
    assert len(list((tmp_path / "samples").iterdir())) == 1


def test_a_checkpoint_is_there_before_its_evaluation(photographs, tmp_path, monkeypatch):
    there = []
    monkeypatch.setattr(
        loop, "_evaluate", lambda trainer, val, written: there.append(checkpoint.find(written.out))
    )
    loop.train(CONFIG, Batches(photographs, CONFIG), photographs[:3], tmp_path)
    assert there == [tmp_path / "checkpoints" / "step_00000003"]

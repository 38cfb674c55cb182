"""Turns: at most so many threads inside, oldest first, and nobody waits longer than was said."""

import math
import signal
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from own_process import in_own_process

import picme_rt
from picme_rt import choices
from picme_rt.backends import host
from picme_rt.errors import InputError
from picme_rt.turns import Turns

LONG = 30


def until(condition):
    """Waits, without sleeping, for what another thread is about to do."""
    for _ in range(10**7):
        if condition():
            return
    raise AssertionError("it never came")


@pytest.mark.parametrize("places", [1, 3])
def test_no_more_than_the_places_are_inside_and_everyone_gets_in(places):
    turns, lock, inside, most, times = Turns(places), threading.Lock(), 0, 0, 0

    def work():
        nonlocal inside, most, times
        for _ in range(200):
            with turns:
                with lock:
                    inside, times = inside + 1, times + 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    with ThreadPoolExecutor(8) as pool:
        for job in [pool.submit(work) for _ in range(8)]:
            job.result()
    assert times == 8 * 200
    assert most <= places


def test_all_places_are_taken_before_anyone_waits():
    turns, together = Turns(2), threading.Barrier(2)

    def work():
        with turns:
            together.wait(LONG)  # breaks unless both are inside

    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(work) for _ in range(2)]:
            job.result()


def test_who_came_first_goes_in_first():
    turns, came = Turns(1), []

    def work(number):
        with turns:
            came.append(number)

    with ThreadPoolExecutor(5) as pool, turns:
        for number in range(5):
            pool.submit(work, number)
            until(lambda: len(turns._waiting) == number + 1)  # noqa: B023  # called at once
    assert came == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("longest", [0, 1e-3])
def test_who_has_waited_long_enough_goes_in_and_takes_nobodys_place(longest):
    turns = Turns(1, longest)
    with turns, ThreadPoolExecutor(3) as pool:
        inside = threading.Barrier(4)

        def work():
            with turns:
                inside.wait(LONG)

        jobs = [pool.submit(work) for _ in range(3)]
        inside.wait(LONG)  # all four are inside at once
        for job in jobs:
            job.result()
    assert turns._inside == 0
    assert not turns._waiting


@in_own_process
def test_ctrl_c_while_waiting_gives_the_turn_on():
    turns = Turns(1)

    def interrupt():
        until(lambda: turns._waiting)
        # Python sees a signal that comes just before a lock blocks when the lock is free again
        while turns._waiting and not interrupted.wait(0.3):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    interrupted = threading.Event()
    holds, free = threading.Event(), threading.Event()

    def hold():
        with turns:
            holds.set()
            assert free.wait(LONG)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    holder, helper = threading.Thread(target=hold), threading.Thread(target=interrupt)
    holder.start()
    assert holds.wait(LONG)
    helper.start()
    try:
        with pytest.raises(KeyboardInterrupt), turns:
            pytest.fail("it went in")
    finally:
        interrupted.set()
        signal.signal(signal.SIGINT, before)
        free.set()
        holder.join()
        helper.join()
    assert turns._inside == 0
    assert not turns._waiting


@pytest.mark.parametrize("free", [False, True])
def test_ctrl_c_right_after_joining_leaves_no_turn_behind(monkeypatch, free):
    turns = Turns(1)

    class Interrupted(deque):
        def append(self, turn):
            super().append(turn)
            raise KeyboardInterrupt

    def interrupted(turn, go_in=turns._go_in):
        go_in(turn)
        raise KeyboardInterrupt

    if free:
        monkeypatch.setattr(turns, "_go_in", interrupted)
    else:
        turns.__enter__()
        turns._waiting = Interrupted()
    with pytest.raises(KeyboardInterrupt), turns:
        pytest.fail("it went in")
    assert not turns._waiting
    monkeypatch.undo()
    if not free:
        turns.__exit__()
    assert turns.inside == 0
    with turns:
        assert turns.inside == 1


class Runner:
    """A runner that counts how many run at once."""

    inputs: dict = {}  # noqa: RUF012
    outputs: dict = {}  # noqa: RUF012

    def __init__(self):
        self.lock, self.inside, self.most = threading.Lock(), 0, 0

    def run(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        with self.lock:
            self.inside -= 1


def test_runs_of_both_graphs_take_turns_together():
    turns, runner = Turns(1), Runner()
    pools = [host.Pool(role, Runner, turns) for role in ("encoder", "decoder")]
    with ThreadPoolExecutor(6) as threads:
        jobs = [threads.submit(pools[i % 2].run, runner) for i in range(300)]
        for job in jobs:
            job.result()
    assert runner.most == 1


def test_calls_wait_at_the_door_where_one_more_than_can_compute_is_inside(
    engine, picture, session, monkeypatch
):
    image, mask = (array[80:200, 50:180] for array in picture)
    want = session.complete(image, mask, k=2).images
    monkeypatch.setattr(choices, "cores", lambda: 1)
    with picme_rt.Session(engine) as opened, ThreadPoolExecutor(1) as pool:
        begun, encode = [], opened.encode
        monkeypatch.setattr(opened, "encode", lambda *given: begun.append(1) or encode(*given))
        with opened._calls, opened._calls:  # two callers
            third = pool.submit(opened.complete, image, mask, k=2)
            until(lambda: len(opened._calls._waiting) == 1)
            assert not begun
            assert next(iter(opened.stream(image, mask, k=1))).image.shape == image.shape
        assert (third.result().images == want).all()


@pytest.mark.parametrize("max_wait_ms", [None, 0, 0.5, 1000, np.float32(2)])
def test_how_long_a_run_waits_changes_no_result(engine, picture, session, max_wait_ms):
    image, mask = (array[80:200, 50:180] for array in picture)
    want = session.complete(image, mask, k=2).images
    with (
        picme_rt.Session(engine, max_wait_ms=max_wait_ms) as opened,
        ThreadPoolExecutor(6) as pool,
    ):
        jobs = [pool.submit(opened.complete, image, mask, k=2) for _ in range(6)]
        for job in jobs:
            assert (job.result().images == want).all()


HUGE = pytest.param(10**400, id="huge")


@pytest.mark.parametrize(
    "bad", [-1, -1e-9, math.nan, math.inf, "5", True, [1], 86_400_001, HUGE, 1j]
)
def test_a_wait_that_is_none_is_refused(engine, bad):
    with pytest.raises(InputError, match="max_wait_ms must be a number from 0 to 86400000 or None"):
        picme_rt.Session(engine, max_wait_ms=bad)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_wait_is_for_the_cpu_alone(engine, backend):
    with pytest.raises(InputError, match="max_wait_ms must be None on a GPU, got 5: it takes one"):
        picme_rt.Session(engine, backend=backend, device="cuda", max_wait_ms=5)


@pytest.mark.parametrize("bad", [0, -1, 1.0, "2", True, 4097])
def test_threads_out_of_range_are_refused(engine, bad):
    with pytest.raises(InputError, match="threads must be an integer from 1 to 4096"):
        picme_rt.Session(engine, threads=bad)

"""Results of a call that is alone are made side by side, and are those of one after the other."""

import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
from cpu_backends import LIBRARIES
from twice import CORES, TABLE, Twice

import picme_rt
from picme_rt.backends import meeting
from picme_rt.backends.host import Pool
from picme_rt.backends.side_by_side import SideBySide
from picme_rt.errors import EngineError
from picme_rt.framing import Box
from picme_rt.turns import Turns

CASES = [(*one, "cats") for one in LIBRARIES] + [("openvino", "fp32", "picme")]  # instance norms
LONG = 30
WHOLE = Box(0, 0, 8, 8)
OFTEN = 300  # calls after which a graph of a few milliseconds has been compiled again


class Graph:
    """A graph that gives 2 z, bound once, its runs those of a lone call."""

    def __init__(self, calls, twice, paid=True):
        self.twice = twice
        runners = meeting.runners(TABLE, 1, 4, twice, calls)
        self.meeting = runners.meeting
        pool = Pool("decoder", runners.make, Turns(CORES))
        self.beside = SideBySide(runners.meeting, lambda runner: runner, pool)
        self.runner = pool.take()
        if paid:
            runners.meeting.ran(LONG)

    def runs(self, latents, take):
        return contextlib.closing(self.beside.each(self.runner, WHOLE, latents, take))

    def each(self, count):
        """Pictures of the latents 0, 1, ...: the last that was given of each, in their order."""
        found, order = {}, []

        def take(place, pictures):
            found[place] = pictures.copy()

        latents = [np.full((1, 1), z, np.float32) for z in range(count)]
        with self.runs(latents, take) as runs:
            for _ in runs:
                order.append(len(order) in found)
        assert order == [True] * count, "it yields before a picture is there, or not after each"
        return [found[place] for place in range(count)]

    def check(self, count):
        for z, picture in enumerate(self.each(count)):
            assert (picture == np.float32(2 * z)).all()


def test_results_fill_the_cores_and_the_rest_have_all_threads(calls):
    graph = Graph(calls, Twice())
    with calls:
        graph.check(5)
        assert graph.twice.compiled == [4, 1]
        assert sorted(graph.twice.runs) == [1, 1, 1, 1, 4, 4]  # the first both ways, once a size
        del graph.twice.runs[:]
        graph.check(5)
        assert sorted(graph.twice.runs) == [1, 1, 1, 1, 4]
        assert graph.twice.runs[-1] == 4


def test_they_run_at_the_same_time(calls):
    twice, meet = Twice(), threading.Barrier(CORES)
    graph = Graph(calls, twice)
    with calls:
        graph.check(CORES)  # the size is known now
        twice.met = lambda: meet.wait(LONG)
        graph.check(3 * CORES)


def test_compiling_is_not_paid_for_a_single_call(calls):
    graph = Graph(calls, Twice(), paid=False)
    graph.meeting._cost = LONG
    with calls:
        graph.check(4)
        assert (graph.twice.compiled, graph.twice.runs) == ([4], [4, 4, 4, 4])
        graph.meeting.ran(LONG)
        graph.check(4)
    assert graph.twice.compiled == [4, 1]


def test_runs_of_all_threads_are_counted(calls):
    graph = Graph(calls, Twice(), paid=False)
    with calls:
        before = graph.meeting._spent
        graph.check(1)
        assert graph.meeting._spent > before


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_results_than_cores_have_all_threads(calls, count):
    graph = Graph(calls, Twice())
    with calls:
        graph.check(count)
    assert (graph.twice.compiled, graph.twice.runs) == ([4], [4] * count)


def test_beside_other_calls_they_are_made_one_after_the_other(calls):
    graph = Graph(calls, Twice())
    with calls, calls:
        graph.check(4)
    assert set(graph.twice.runs) == {1, 4}  # as of calls that meet


def test_a_graph_whose_bits_differ_makes_them_again_and_is_freed(calls):
    graph = Graph(calls, Twice(error=1e-6))
    with calls:
        graph.check(6)
        assert graph.meeting.differs
        assert [ref() is None for ref in graph.twice.weak] == [False, True]
        del graph.twice.runs[:]
        graph.check(6)
    assert graph.twice.runs == [4] * 6


def test_an_error_of_one_is_the_calls_and_the_next_call_works(calls):
    twice = Twice()
    graph = Graph(calls, twice)
    with calls:
        graph.check(4)

        def fails():
            raise RuntimeError("no memory")

        twice.met = fails
        with pytest.raises(EngineError, match="the decoder did not run: no memory"):
            graph.each(4)
        twice.met = None
        graph.check(4)


def test_who_closes_early_leaves_nothing_at_work(calls):
    twice = Twice()
    graph = Graph(calls, twice)
    with calls:
        graph.check(4)
        twice.met = lambda: time.sleep(0.005)
        latents, seen = [np.zeros((1, 1), np.float32)] * 50, itertools.count()
        with graph.runs(latents, lambda *_: next(seen)) as runs:
            next(runs)
        assert len(twice.runs) < len(latents)
        assert "picme_rt" not in [thread.name for thread in threading.enumerate()]
        graph.check(4)


@pytest.mark.parametrize(("backend", "precision", "preset"), CASES)
def test_a_sessions_results_are_those_of_a_lone_result(
    exported, picture, compiled, backend, precision, preset
):
    image, mask = (array[80:200, 50:180] for array in picture)
    with picme_rt.Session(exported(preset).path, backend=backend, precision=precision) as session:
        want = [one.image for one in session.stream(image, mask, k=5)]
        for _ in range(OFTEN):
            done = session.complete(image, mask, k=5)
            assert (done.images == np.stack(want)).all()
            if 1 in compiled:
                break
        assert compiled == [CORES, CORES, 1], "it was never compiled again"
        for first in range(3):
            found = session.encode(image, mask).complete(k=4, first=first)
            assert (found.images[: 5 - first] == np.stack(want)[first : first + 4]).all()
            assert (found.indices == np.arange(first, first + 4)).all()
        assert (session.complete(image, mask, k=1).images[0] == want[0]).all()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_threads_that_were_asked_for_stay(engine, picture, compiled, backend):
    image, mask = (array[80:200, 50:180] for array in picture)
    with picme_rt.Session(engine, backend=backend, threads=2) as session:
        for _ in range(20):
            session.complete(image, mask, k=4)
    assert compiled == [2, 2]

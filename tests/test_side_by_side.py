"""Results of a call that is alone are made side by side, and are those of one after the other."""

import contextlib
import functools
import itertools
import threading
import time

import numpy as np
import pytest
from cpu_backends import LIBRARIES
from twice import CORES, TABLE, TWICE, Twice

import picme_rt
from picme_rt import backends
from picme_rt.backends import meeting, side_by_side
from picme_rt.backends.host import Arrays, BoxRunner, Pool
from picme_rt.backends.side_by_side import SideBySide
from picme_rt.choices import Settings
from picme_rt.errors import EngineError
from picme_rt.framing import Box
from picme_rt.tensors import Graph as Table
from picme_rt.tensors import Tensor
from picme_rt.turns import Turns
from picme_rt.windows import Crop, windows

CASES = [(*one, "cats") for one in LIBRARIES] + [("openvino", "fp32", "picme")]  # instance norms
LONG = 30
WHOLE = Box(0, 0, 8, 8)
CROPS = (Crop(side=16, before=0, after=0, halo=0),)
BOXED = Table(
    (Tensor("z", (1,)), Tensor("box", (2, 2), "int64", batched=False)),
    (Tensor("picture", (3, 16, 16), cropped=True),),
)


def run(pool, runner, z):
    runner.inputs["z"][:] = z
    pool.run(runner)
    return runner.outputs["picture"]


class Graph:
    """A graph that gives 2 z, bound once, its runs those of a lone call."""

    def __init__(self, calls, twice, paid=True):
        self.twice = twice
        runners = meeting.runners(TABLE, 1, 4, twice, calls)
        self.meeting = runners.meeting
        self.pool = Pool("decoder", runners.make, Turns(CORES))
        self.beside = SideBySide(runners.meeting, lambda runner: runner, self.pool)
        self.runner = self.pool.take()
        if paid:
            runners.meeting.ran(LONG)

    def run(self, z):
        return run(self.pool, self.runner, z)

    def runs(self, latents, take):
        return contextlib.closing(self.beside.each(self.run, self.runner, WHOLE, latents, take))

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


def test_compiling_is_not_paid_for_a_few_calls(calls):
    graph = Graph(calls, Twice(), paid=False)
    graph.meeting._cost = LONG
    with calls:
        graph.check(4)
        assert (graph.twice.compiled, graph.twice.runs) == ([4], [4, 4, 4, 4])
        graph.meeting.ran(0.9 * meeting._PATIENCE * LONG)
        graph.check(4)
        assert graph.twice.compiled == [4]
        graph.meeting.ran(0.2 * meeting._PATIENCE * LONG)
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


def test_what_calls_that_met_compiled_is_there_at_once(calls):
    graph = Graph(calls, Twice(), paid=False)
    graph.meeting._cost = LONG
    with calls, calls:
        graph.check(1)
    assert graph.twice.compiled == [4, 1]
    with calls:
        del graph.twice.runs[:]
        graph.check(4)
    assert graph.twice.runs == [1, 1, 1, 1]


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


def test_all_that_a_run_makes_is_compared_not_the_box_alone(calls):
    twice = Twice(error=1)
    runners = meeting.runners(BOXED, 1, 4, twice, calls)
    asked = functools.partial(windows, BOXED.outputs[0].shape[-1], CROPS)
    pool = Pool("decoder", lambda: BoxRunner(runners.make(), asked), Turns(CORES))
    beside = SideBySide(runners.meeting, lambda runner: BoxRunner(runner, asked), pool)
    runners.meeting.ran(LONG)
    runner, box, found = pool.take(), Box(2, 2, 3, 3), {}
    runner.aim(box)

    def take(place, picture):
        found[place] = picture.copy()

    latents = [np.full((1, 1), z, np.float32) for z in range(4)]
    on_all = functools.partial(run, pool, runner)
    with calls, contextlib.closing(beside.each(on_all, runner, box, latents, take)) as runs:
        assert len(list(runs)) == 4
    assert runners.meeting.differs
    for z in range(4):
        assert found[z][0, :, 2, 2].tolist() == [2 * z] * 3
        assert found[z].sum() == 6 * z


def test_windows_of_other_lengths_are_another_size():
    box = np.array([[0, 0], [4, 8]])
    inputs, outputs = {"box": box}, {"picture": np.zeros((1, 3, 4, 8))}
    before = meeting.sizes(Arrays(inputs, outputs))
    box += 4
    assert meeting.sizes(Arrays(inputs, outputs)) == before
    box[1] += 4
    assert meeting.sizes(Arrays(inputs, outputs)) != before


def test_a_lane_that_an_interrupt_left_at_work_is_not_used_again(calls, monkeypatch):
    twice, inside, goes_on = Twice(), threading.Event(), threading.Event()
    graph, left = Graph(calls, twice), []

    def waits():
        inside.set()
        assert goes_on.wait(LONG)

    def interrupted(work, items, *, at_once):
        left.append(threading.Thread(target=work, args=(items[0], None)))
        left[0].start()
        assert inside.wait(LONG)
        raise KeyboardInterrupt
        yield

    with calls:
        graph.check(4)
        twice.met = waits
        with monkeypatch.context() as patch:
            patch.setattr(side_by_side, "taking_part", interrupted)
            with pytest.raises(KeyboardInterrupt):
                graph.each(4)
        twice.met = None
        for _ in range(3):
            graph.check(4)
    goes_on.set()
    left[0].join()


def test_results_go_one_after_the_other_where_the_second_compilation_fails(calls):
    twice = Twice()
    graph = Graph(calls, twice)

    def refuses():
        raise EngineError("no memory")

    twice.gate = refuses
    with calls:
        graph.check(4)
        graph.check(4)
    assert set(twice.runs) == {4}


@pytest.fixture
def at_once(monkeypatch):
    """Results of the first call go side by side."""
    monkeypatch.setattr(meeting, "_PATIENCE", 0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("latents", [1, 2])
@pytest.mark.parametrize(("backend", "precision", "preset"), CASES)
def test_a_sessions_results_are_those_of_a_lone_result(
    exported, picture, compiled, monkeypatch, backend, precision, preset, latents
):
    settings = Settings(backend, precision, CORES, latents)
    monkeypatch.setattr(backends, "defaults", lambda *_: settings)
    image, mask = (array[80:200, 50:180] for array in picture)
    with picme_rt.Session(exported(preset).path, backend=backend, precision=precision) as session:
        want = np.stack([one.image for one in session.stream(image, mask, k=9)])
        for first in range(4):
            found = session.encode(image, mask).complete(k=5, first=first)
            assert (found.images == want[first : first + 5]).all()
            assert (found.indices == np.arange(first, first + 5)).all()
        assert compiled == [CORES, CORES, 1]
        assert (session.complete(image, mask, k=1).images[0] == want[0]).all()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("backend", TWICE)
def test_pictures_with_several_regions_too(free_engine, picture, compiled, backend):
    image, _ = picture
    mask = np.zeros(image.shape[:2], bool)
    mask[10:40, 10:40] = mask[-50:-20, -50:-20] = True
    with picme_rt.Session(free_engine, backend=backend) as session:
        assert len(session.encode(image, mask)._parts) == 2
        want = list(session.stream(image, mask, k=6))
        done = session.complete(image, mask, k=6)
    assert 1 in compiled
    assert (done.images == np.stack([one.image for one in want])).all()
    assert done.log_prob.tolist() == [np.float32(one.log_prob) for one in want]
    assert done.primitives.tolist() == [one.primitive for one in want]


@pytest.mark.usefixtures("at_once")
def test_the_last_latents_of_a_seed(engine, picture, compiled):
    image, mask = (array[80:200, 50:180] for array in picture)
    with picme_rt.Session(engine, backend="onnxruntime") as session:
        found = session.encode(image, mask).complete(k=4, first=2**32 - 4)
        last = session.encode(image, mask).complete(k=1, first=2**32 - 1)
    assert (found.images[3] == last.images[0]).all()
    assert found.indices.tolist() == list(range(2**32 - 4, 2**32))
    assert 1 in compiled


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("backend", TWICE)
def test_threads_that_were_asked_for_stay(engine, picture, compiled, backend):
    image, mask = (array[80:200, 50:180] for array in picture)
    with picme_rt.Session(engine, backend=backend, threads=2) as session:
        session.complete(image, mask, k=4)
    assert compiled == [2, 2]

"""Calls that meet take a thread each; a lone call has all; the bits are a lone call's."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cpu_backends import LIBRARIES
from twice import CORES, TABLE, TWICE, Twice

import picme_rt
from picme_rt.backends import meeting
from picme_rt.errors import EngineError

LONG = 30
CASES = [(*one, "cats") for one in LIBRARIES] + [("openvino", "fp32", "picme")]  # instance norms


def run(runner, z):
    runner.inputs["z"][:] = z
    runner.run()
    return runner.outputs["picture"]


def test_a_lone_call_has_all_threads_and_nothing_is_compiled_twice(calls):
    graph = Twice()
    runner = meeting.runners(TABLE, 1, 4, graph, calls).make()
    with calls:
        for z in range(3):
            assert (run(runner, z) == 2 * z).all()
    assert (graph.compiled, graph.runs) == ([4], [4, 4, 4])


def test_calls_that_meet_have_a_thread_each_and_a_lone_one_all_again(calls):
    graph = Twice()
    make = meeting.runners(TABLE, 1, 4, graph, calls).make
    one, other = make(), make()
    with calls, calls:
        assert (run(one, 1) == 2).all()  # both ways, once
        assert (run(other, 2) == 4).all()
        assert (run(one, 3) == 6).all()
    with calls:
        assert (run(one, 4) == 8).all()
    assert graph.compiled == [4, 1]
    assert graph.runs == [4, 1, 1, 1, 4]


def test_who_measures_has_the_second_compilation_at_once(calls):
    graph = Twice()
    shared = meeting.runners(TABLE, 1, 4, graph, calls).meeting
    shared.prepare()
    shared.prepare()
    assert graph.compiled == [4, 1]
    with calls:
        assert shared.for_results(CORES) is not None


def test_calls_go_on_with_all_threads_where_the_second_compilation_fails(calls):
    graph = Twice()

    def compiled(threads):
        if threads == 1:
            raise EngineError("no memory")
        return graph(threads)

    runner = meeting.runners(TABLE, 1, 4, compiled, calls).make()
    with calls, calls:
        for z in range(2):
            assert (run(runner, z) == 2 * z).all()
    assert graph.runs == [4, 4]


def test_each_size_is_compared_once(calls):
    graph = Twice()
    make = meeting.runners(TABLE, 1, 4, graph, calls).make
    runner = make()
    runner.narrow(4, 4)
    with calls, calls:
        for size in ((4, 4), (8, 8), (4, 4), (2, 6)):
            runner.narrow(*size)
            picture = run(runner, size[1])
            assert picture.shape == (1, 3, *size)
            assert (picture == 2 * size[1]).all()
        runner = make()
        runner.narrow(2, 6)
        assert (run(runner, 5) == 10).all()
    assert graph.runs == [4, 1, 4, 1, 1, 4, 1, 1]


def test_a_graph_whose_bits_differ_keeps_all_threads_and_is_freed(calls):
    graph = Twice(error=1e-6)
    make = meeting.runners(TABLE, 1, 4, graph, calls).make
    one, other = make(), make()
    with calls, calls:
        for z in range(1, 4):
            want = np.full((1, 3, 8, 8), 2 * z, np.float32)
            assert run(one, z).tobytes() == want.tobytes()
            assert run(other, z).tobytes() == want.tobytes()
    assert graph.compiled == [4, 1]
    assert graph.runs == [4, 1, 4, 4, 4, 4, 4]
    assert [ref() is None for ref in graph.weak] == [False, True]


def test_who_comes_while_it_compiles_goes_on_with_all_threads(calls):
    graph, comes, goes_on = Twice(), threading.Event(), threading.Event()

    def gate():
        comes.set()
        assert goes_on.wait(LONG)

    graph.gate = gate
    make = meeting.runners(TABLE, 1, 4, graph, calls).make
    with calls, calls, ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, make(), 1)
        assert comes.wait(LONG)
        assert (run(make(), 2) == 4).all()
        assert graph.runs == [4]
        goes_on.set()
        assert (first.result() == 2).all()
    assert graph.compiled == [4, 1]


@pytest.mark.parametrize(("threads", "who"), [(1, "calls"), (4, None)])
def test_one_way_is_enough_where_threads_are_said(calls, threads, who):
    graph = Twice()
    runner = meeting.runners(TABLE, 1, threads, graph, calls if who else None).make()
    with calls, calls:
        assert (run(runner, 1) == 2).all()
    assert (graph.compiled, graph.runs) == ([threads], [threads])


@pytest.mark.parametrize(("backend", "precision", "preset"), CASES)
def test_callers_of_a_session_get_the_bits_of_a_lone_one(
    exported, picture, compiled, backend, precision, preset
):
    image, mask = (array[80:200, 50:180] for array in picture)
    asked = [(image, mask), (image[:60], mask[:60])]
    path = exported(preset).path
    with (
        picme_rt.Session(path, backend=backend, precision=precision) as session,
        ThreadPoolExecutor(4) as pool,
    ):
        want = [session.complete(*one, k=1).images for one in asked]
        assert compiled == [CORES, CORES]
        with session._calls:  # so every call meets another
            jobs = [(i % 2, pool.submit(session.complete, *asked[i % 2], k=1)) for i in range(6)]
            for which, job in jobs:
                assert (job.result().images == want[which]).all()
        assert compiled == [CORES, CORES, 1, 1]
        assert (session.complete(*asked[0], k=1).images == want[0]).all()
        assert session.info.threads == CORES


@pytest.mark.parametrize("backend", TWICE)
def test_pictures_of_a_batch_meet_each_other(engine, picture, compiled, backend):
    image, mask = (array[80:200, 50:180] for array in picture)
    with picme_rt.Session(engine, backend=backend) as session:
        want = session.complete(image, mask, k=1).images
        with session._calls:  # a picture that is quick may meet nobody
            for done in session.complete_batch([image] * 3, [mask] * 3, k=1):
                assert (done.images == want).all()
    assert compiled == [CORES, CORES, 1, 1]


@pytest.mark.parametrize("backend", TWICE)
def test_a_number_of_threads_that_was_asked_for_stays(engine, picture, compiled, backend):
    image, mask = (array[80:200, 50:180] for array in picture)
    with picme_rt.Session(engine, backend=backend, threads=3) as session:
        with session._calls, session._calls:
            assert session.complete(image, mask, k=1).images.shape == (1, *image.shape)
        assert session.info.threads == 3
    assert compiled == [3, 3]

"""Eight threads on one session against a lone caller: results a second, in turns of one run."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from callers import CALLERS, WAYS, measure, opened
from cpu_backends import EVERY
from pytest_benchmark.fixture import BenchmarkFixture

import picme_rt

ENGINE = Path(__file__).parents[2] / "engines" / "cats128"
TURNS = 15


@pytest.mark.benchmark(group="one caller and eight, k = 6, cats128: extra_info has calls a second")
@pytest.mark.parametrize("threads", [None, 1], ids=["default threads", "one thread"])
@pytest.mark.parametrize(("backend", "precision"), EVERY)
def test_eight_callers_and_one(
    benchmark: BenchmarkFixture, backend: str, precision: str, threads: int | None
) -> None:
    calls = 24 if benchmark.enabled else 8
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    hole = np.zeros((256, 256), bool)
    hole[64:192, 64:192] = True
    speed: dict[int, list[float]] = {1: [], 8: []}
    cpu: dict[int, list[float]] = {1: [], 8: []}
    with picme_rt.Session(ENGINE, backend=backend, precision=precision, threads=threads) as session:
        want = session.complete(image, hole, k=6).images
        right: list[bool] = []

        def ask(count: int) -> None:
            for _ in range(count):
                found = session.complete(image, hole, k=6).images
                right.append(np.array_equal(found, want))

        def turn() -> None:
            for callers in speed:
                crew = [
                    threading.Thread(target=ask, args=(calls // callers,)) for _ in range(callers)
                ]
                began, used = time.perf_counter(), time.process_time()
                for caller in crew:
                    caller.start()
                for caller in crew:
                    caller.join()
                speed[callers].append(calls / (time.perf_counter() - began))
                cpu[callers].append(1e3 * (time.process_time() - used) / calls)

        benchmark.pedantic(turn, rounds=TURNS if benchmark.enabled else 1)
    for callers, found in speed.items():
        benchmark.extra_info[f"{callers} callers"] = {
            "calls/s: median, maximum": [round(float(np.median(found)), 1), round(max(found), 1)],
            "CPU ms a call: minimum": round(min(cpu[callers]), 1),
        }
    assert len(right) % (2 * calls) == 0
    assert all(right)


def test_ways_to_share_the_cores_are_measured_in_turns() -> None:
    found = measure("onnxruntime", "fp32", turns=1, calls=1)
    assert tuple(found) == WAYS
    for by in found.values():
        assert tuple(by) == CALLERS
        assert all(value > 0 for both in by.values() for value in both)


def test_one_at_a_time_means_pastes_too() -> None:
    with opened("one at a time", "onnxruntime", "fp32") as session:
        done = session.complete(np.zeros((64, 64, 3), np.uint8), np.eye(64), k=2)
        turns = vars(vars(vars(session)["_model"])["_backend"])["_decoder"]._turns
        places = turns._places
    with opened("as it is", "onnxruntime", "fp32") as session:
        same = session.complete(np.zeros((64, 64, 3), np.uint8), np.eye(64), k=2)
    assert places == 1
    np.testing.assert_array_equal(done.images, same.images)

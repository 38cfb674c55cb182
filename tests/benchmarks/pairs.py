"""Times that compare: before each run something else is timed, and their ratio is what is kept.

Absolute times differ between machines, and on a busy one from minute to minute; a run and what ran
right before it share their machine and their minute. compare_runs.py compares these ratios.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

SECONDS = 8.0  # for the rounds of a case
FEWEST, MOST = 7, 60
Result = TypeVar("Result")


def timed(
    benchmark: BenchmarkFixture,
    call: Callable[[], Result],
    yardstick: Callable[[], object],
    name: str,
) -> Result:
    """Times `call`, each run after one of the yardstick and one of its own that warms up.

    Once, and alone, where nothing is timed. Else `extra_info` gets what compare_runs.py and
    tables.py read: the minimum divided by the yardstick's, the quartiles of the rounds' ratios.

    Args:
        benchmark: The case's fixture.
        call: What is timed.
        yardstick: What it is compared with.
        name: The yardstick's.
    """
    if not benchmark.enabled:
        return benchmark(call)
    taken: list[float] = []

    def before() -> None:
        began = time.perf_counter()
        yardstick()
        taken.append(time.perf_counter() - began)
        call()

    before()  # warms both up
    began = time.perf_counter()
    before()
    call()
    rounds = int(np.clip(SECONDS / (time.perf_counter() - began), FEWEST, MOST))
    cpu: list[float] = []

    def on_the_clock() -> Result:
        used = time.process_time()
        result = call()
        cpu.append(time.process_time() - used)
        return result

    result = benchmark.pedantic(on_the_clock, setup=before, rounds=rounds)
    runs, others = np.array(benchmark.stats.stats.data), np.array(taken[-rounds:])
    benchmark.extra_info.update(
        yardstick=name,
        of_yardstick=float(runs.min() / others.min()),
        of_yardstick_quartiles=np.percentile(runs / others, (25, 50, 75)).tolist(),
        cpu_seconds=float(min(cpu)),
    )
    return result

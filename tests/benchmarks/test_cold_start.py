"""The first result of a fresh process, its memory, and `import picme_rt` beside NumPy."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from contestants import SHIPPED, runnable
from pytest_benchmark.fixture import BenchmarkFixture

from picme_rt import UnavailableError
from picme_rt.speed import cold_start

ROUNDS = 7
IMPORTS = """
import sys, time
began = time.process_time()
import {}
print(time.process_time() - began)
"""


@pytest.mark.benchmark(group="first result of cats128 in a fresh process")
@pytest.mark.parametrize(("backend", "precision"), runnable(SHIPPED))
def test_first_result(
    benchmark: BenchmarkFixture,
    machine: dict[str, Any],
    tmp_path: Path,
    backend: str,
    precision: str,
) -> None:
    found: list[cold_start.ColdStart] = []

    def start() -> None:
        found.append(
            cold_start.measure(
                SHIPPED, backend=backend, precision=precision, size=128, cache=tmp_path
            )
        )

    if benchmark.enabled:
        benchmark.pedantic(start, rounds=ROUNDS, warmup_rounds=1)
    else:
        benchmark(start)
    best = min(found, key=lambda one: one.total)
    benchmark.extra_info.update(
        peaks=machine, case=f"{backend} {precision}", first_result=dataclasses.asdict(best)
    )
    parts = best.python, best.imports, best.load, best.first
    assert min(parts) > 0
    assert best.total == pytest.approx(sum(parts))
    if sys.platform == "linux":
        assert best.peak_bytes is not None
        assert 30e6 < best.peak_bytes < 600e6  # no framework was loaded


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(
        UnavailableError, match=r"a fresh process gave no result: .*is not an engine"
    ):
        cold_start.measure(tmp_path, backend="auto", precision="auto", size=128, cache=tmp_path)


def test_importing_picme_rt_takes_at_most_half_as_long_again_as_numpy(tmp_path: Path) -> None:
    """In turn, CPU time of the fastest of each, with every source compiled."""
    taken: dict[str, list[float]] = {"numpy": [], "picme_rt": []}
    for _ in range(ROUNDS):
        for name, times in taken.items():
            code = IMPORTS.format(name)
            done = subprocess.run(
                [sys.executable, *cold_start.compiled_into(tmp_path), "-c", code],
                capture_output=True, text=True, check=True, env=cold_start.environment(),
            )  # fmt: skip
            times.append(float(done.stdout))
    assert min(taken["picme_rt"]) <= 1.5 * min(taken["numpy"])

"""The stages of a call, six completions each, and how near its decode comes to the machine's peak.

A decode of the whole square is what counts: its multiply-adds are known, whatever follows the hole.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contestants import Network, tiles
from pairs import timed
from pytest_benchmark.fixture import BenchmarkFixture
from test_latency import CASES, NAMES, K, about, side_of

import picme_rt
from picme_rt.speed import peaks
from picme_rt.speed.stages import STAGES, Stage, decoder_macs, prepare, stages

OWN = ("pre", "sample", "composite")  # no backend's work


@pytest.mark.parametrize(
    ("stage", "name", "backend", "precision"),
    [(stage, name, "onnxruntime", "fp32") for stage in OWN for name in NAMES]
    + [(stage, *case) for stage in ("encode", "decode") for case in CASES],
)
def test_stage(
    benchmark: BenchmarkFixture,
    network: Callable[[str], Network],
    opened: Callable[[Path, str, str], picme_rt.Session],
    machine: dict[str, Any],
    product: Callable[[], float],
    stage: Stage,
    name: str,
    backend: str,
    precision: str,
) -> None:
    benchmark.group = f"stage {stage}, {name}"
    found = network(name)
    image, hole = tiles(side_of(found))
    session = opened(found.engine, backend, precision)
    prepare(session)
    about(benchmark, machine, case=f"picme_rt, {backend} {precision}", network=name, k=K)
    every = stages(session, image, hole, k=K)
    assert tuple(every) == STAGES
    timed(benchmark, every[stage], product, "fp32 product")


@pytest.mark.parametrize(("name", "backend", "precision"), CASES)
def test_a_decode_of_the_whole_square(
    benchmark: BenchmarkFixture,
    network: Callable[[str], Network],
    opened: Callable[[Path, str, str], picme_rt.Session],
    machine: dict[str, Any],
    product: Callable[[], float],
    is_timed: bool,
    name: str,
    backend: str,
    precision: str,
) -> None:
    benchmark.group = f"decode of the whole square, {name}"
    found = network(name)
    image, hole = tiles(side_of(found))
    session = opened(found.engine, backend, precision)
    prepare(session)
    about(benchmark, machine, case=f"picme_rt, {backend} {precision}", network=name, k=K)
    decode = stages(session, image, np.ones_like(hole), k=K)["decode"]
    timed(benchmark, decode, product, "fp32 product")
    macs = decoder_macs(found.engine, precision)
    assert macs > 1e6
    if is_timed:
        reached = 2 * K * macs / 1e9 / benchmark.stats.stats.median
        share = reached / machine["operations"][precision]
        benchmark.extra_info.update(gmac=macs / 1e9, gops=reached, share_of_peak=share)
        assert share < 1.1  # nothing computes faster than the machine


def test_the_machine_computes_and_copies(machine: dict[str, Any]) -> None:
    assert set(machine["operations"]) == set(peaks.available())
    assert machine["threads"] >= 1
    assert all(0.1 < rate < 1e6 for rate in machine["operations"].values())
    assert 0.1 < machine["copy"] < 1e5


@pytest.mark.parametrize("precision", peaks.available())
def test_a_product_says_how_many_operations_it_takes(precision: str) -> None:
    """Four convolutions of 3x3 over 256 channels; twice the side is four times the work."""
    small, large = (peaks.product(precision, side, threads=1)() for side in (4, 8))
    assert small == 4 * 2 * 9 * 256 * 256 * 4 * 4
    assert large == 4 * small

"""Whole calls, bytes to bytes: the paper's Table 4, other k, larger pictures, batches.

One picture with a hole in the middle, k completions. Each case runs once as a test, on small
networks; `make bench` times them (pairs.py), tables.py prints what came out.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contestants import SHIPPED, Network, at_once, one_by_one, plain_export, runnable, tiles
from cpu_backends import EVERY
from pairs import timed
from pytest_benchmark.fixture import BenchmarkFixture

import picme_rt

K = 6
NAMES = ("picme", "cats", "cats128")
PRECISIONS = {"picme": EVERY, "cats": EVERY, "cats128": runnable(SHIPPED)}
CASES = [(name, *one) for name in NAMES for one in PRECISIONS[name]]
REFERENCE = "reference loop"

Networks = Callable[[str], Network]
Sessions = Callable[[Path, str, str], picme_rt.Session]


def side_of(network: Network) -> int:
    return network.folded.config.size


def about(benchmark: BenchmarkFixture, machine: dict[str, Any], **what: object) -> None:
    benchmark.extra_info.update(peaks=machine, **what)


def reference(network: Network, k: int) -> Callable[[], torch.Tensor]:
    return functools.partial(one_by_one, network.live, *tiles(side_of(network)), k)


@pytest.mark.parametrize(("name", "backend", "precision"), CASES)
def test_six_completions(
    benchmark: BenchmarkFixture,
    network: Networks,
    opened: Sessions,
    machine: dict[str, Any],
    name: str,
    backend: str,
    precision: str,
) -> None:
    benchmark.group = f"six completions, {name}"
    found = network(name)
    image, hole = tiles(side_of(found))
    session = opened(found.engine, backend, precision)
    about(benchmark, machine, case=f"picme_rt, {backend} {precision}", network=name, k=K)
    call = functools.partial(session.complete, image, hole, k=K)
    done = timed(benchmark, call, reference(found, K), REFERENCE)
    assert (done.images[:, ~hole] == image[~hole]).all()
    if name == "cats128":  # torch has other weights
        return
    raw = at_once(found.folded, image, hole, K).permute(0, 2, 3, 1).numpy()
    inside = np.clip(np.rint((raw + 1) * 127.5), 0, 255)
    centre = slice(side_of(found) * 15 // 32, side_of(found) * 17 // 32)
    # far from the seam's blend the completion is g's own picture, within one level in fp32
    levels = np.abs(inside - done.images.astype(float))[:, centre, centre]
    assert levels.max() <= (1 if precision == "fp32" else 5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", [REFERENCE, "torch, folded", "torch, folded, six at once"])
def test_six_completions_in_torch(
    benchmark: BenchmarkFixture, network: Networks, machine: dict[str, Any], name: str, how: str
) -> None:
    benchmark.group = f"six completions, {name}"
    found = network(name)
    image, hole = tiles(side_of(found))
    model = found.live if how == REFERENCE else found.folded
    decode = at_once if "at once" in how else one_by_one
    about(benchmark, machine, case=how, network=name, k=K)
    call = functools.partial(decode, model, image, hole, K)
    pictures = timed(benchmark, call, reference(found, K), REFERENCE)
    assert pictures.shape == (K, 3, *hole.shape)
    torch.testing.assert_close(pictures, reference(found, K)(), atol=1e-4, rtol=0)


def test_six_completions_by_a_plain_export(
    benchmark: BenchmarkFixture, network: Networks, machine: dict[str, Any], tmp_path: Path
) -> None:
    benchmark.group = "six completions, picme"
    found = network("picme")
    image, hole = tiles(side_of(found))
    about(benchmark, machine, case="plain export, onnxruntime fp32", network="picme", k=K)
    call = functools.partial(plain_export(found.folded, tmp_path), image, hole, K)
    pictures = timed(benchmark, call, reference(found, K), REFERENCE)
    torch.testing.assert_close(pictures, reference(found, K)(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "backend", "precision"), CASES)
@pytest.mark.parametrize("k", [1, 50])
def test_other_k(
    benchmark: BenchmarkFixture,
    network: Networks,
    opened: Sessions,
    machine: dict[str, Any],
    product: Callable[[], float],
    k: int,
    name: str,
    backend: str,
    precision: str,
) -> None:
    benchmark.group = f"k = {k}, {name}"
    found = network(name)
    image, hole = tiles(side_of(found))
    session = opened(found.engine, backend, precision)
    about(benchmark, machine, case=f"picme_rt, {backend} {precision}", network=name, k=k)
    call = functools.partial(session.complete, image, hole, k=k)
    done = timed(benchmark, call, product, "fp32 product")
    assert done.images.shape == (k, *image.shape)
    assert (done.images[:, ~hole] == image[~hole]).all()


@pytest.mark.parametrize(("backend", "precision"), PRECISIONS["cats128"])
@pytest.mark.parametrize("side", [256, 512, 1024])
def test_larger_pictures(
    benchmark: BenchmarkFixture,
    opened: Sessions,
    machine: dict[str, Any],
    product: Callable[[], float],
    side: int,
    backend: str,
    precision: str,
) -> None:
    benchmark.group = f"pictures of {side} x {side}, cats128"
    image, hole = tiles(side)
    session = opened(SHIPPED, backend, precision)
    about(benchmark, machine, case=f"picme_rt, {backend} {precision}", network="cats128", k=K)
    call = functools.partial(session.complete, image, hole, k=K)
    done = timed(benchmark, call, product, "fp32 product")
    assert (done.images[:, ~hole] == image[~hole]).all()


@pytest.mark.parametrize(("name", "backend", "precision"), CASES)
def test_eight_pictures_a_call(
    benchmark: BenchmarkFixture,
    network: Networks,
    opened: Sessions,
    machine: dict[str, Any],
    product: Callable[[], float],
    name: str,
    backend: str,
    precision: str,
) -> None:
    benchmark.group = f"eight pictures a call, {name}"
    found = network(name)
    image, hole = tiles(side_of(found))
    images = [np.roll(image, place, axis=0) for place in range(8)]
    session = opened(found.engine, backend, precision)
    about(benchmark, machine, case=f"picme_rt, {backend} {precision}", network=name, k=8 * K)
    call = functools.partial(session.complete_batch, images, [hole] * 8, k=K)
    done = timed(benchmark, call, product, "fp32 product")
    assert len(done) == 8
    alone = session.complete(images[7], hole, k=K)
    assert (done[7].images == alone.images).all()

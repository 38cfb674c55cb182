"""The composite against a plain copy of as many bytes, against its reference, and in a whole call.

Each case runs once as a test; `make bench` times them. A copy of n bytes reads n / 2 and writes
n / 2, so that it moves what the composite reads (pictures, originals) and writes (results). One
copy precedes each run of the kernel: the quartiles of `time of copy / time of run`, in percent, are
`share` in the file that `--benchmark-json` writes, and stand for themselves on a busy machine.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from skimage import data

import picme_rt
from picme_rt import composite, framing, images, kernels

SIDE, K = 1024, 6
ENGINE = Path(__file__).parents[2] / "engines" / "cats128"
CASES = {"whole": (SIDE, False), "centre": (SIDE, True), "whole from 256": (256, False)}


class Work(NamedTuple):
    pictures: NDArray[np.float32]
    originals: NDArray[np.uint8]
    canvases: list[composite.Canvas]
    out: NDArray[np.uint8]
    hole: NDArray[np.bool_]


@functools.cache
def work(case: str) -> Work:
    size, centre = CASES[case]
    rng = np.random.default_rng(0)
    img = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    hole = np.ones((SIDE, SIDE), bool)
    if centre:
        hole[:] = False
        hole[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = True
    (region,) = framing.regions(hole, size, "aligned")
    canvas = composite.canvas(composite.fit(img, hole, region, size), hole, region)
    pictures = rng.random((1, K, 3, size, size), np.float32) * 2 - 1
    return Work(pictures, img[None], [canvas], np.zeros((1, K, SIDE, SIDE, 3), np.uint8), hole)


@pytest.mark.parametrize("what", ["copy", "native, one thread", "native", "ref"])
@pytest.mark.parametrize("case", CASES)
def test_six_pictures_of_1024(benchmark: BenchmarkFixture, case: str, what: str) -> None:
    benchmark.group = f"6 x 1024 x 1024 x 3, {case}"
    pictures, originals, canvases, out, hole = work(case)
    moved = pictures.nbytes + originals.nbytes + out.nbytes
    benchmark.extra_info["bytes"] = moved
    source, target = np.ones(moved // 2, np.uint8), np.zeros(moved // 2, np.uint8)
    if what == "copy":
        benchmark(np.copyto, target, source)
        assert (source == target).all()
        return
    copies: list[float] = []

    def copy() -> None:
        start = time.perf_counter()
        np.copyto(target, source)
        copies.append(time.perf_counter() - start)

    out[:] = 0
    run = functools.partial(kernels.composite, pictures, originals, canvases, out=out)
    if what == "ref":
        benchmark(run, impl="ref")
    else:
        threads = {"threads": 1 if "one" in what else None}
        benchmark.pedantic(
            run, kwargs={"impl": "native", **threads}, setup=copy, rounds=200, warmup_rounds=5
        )
    if benchmark.enabled and copies:
        runs = benchmark.stats.stats.data
        shares = 100 * np.array(copies[-len(runs) :]) / runs
        benchmark.extra_info["share"] = np.percentile(shares, [25, 50, 75]).round().tolist()
    assert (out[0, :, ~hole] == originals[0, ~hole][:, None]).all()
    if case == "whole":  # nothing is known: the very pictures
        levels = np.clip(np.rint(images.to_levels(pictures[0])), 0, 255)
        assert (out[0] == levels.transpose(0, 2, 3, 1)).all()


@functools.cache
def photograph(size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    img = np.asarray(Image.fromarray(data.chelsea()).resize(size))
    hole = np.zeros(img.shape[:2], bool)
    hole[size[1] // 4 : -size[1] // 4, size[0] // 4 : -size[0] // 4] = True
    return img, hole


@pytest.mark.parametrize("impl", ["native", "ref"])
@pytest.mark.parametrize("size", [(256, 256), (3000, 2000)], ids="{0[0]}x{0[1]}".format)
def test_a_call_of_cats128(
    benchmark: BenchmarkFixture,
    size: tuple[int, int],
    impl: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    benchmark.group = f"session.complete, cats128, {size[0]}x{size[1]}, k = 6"
    img, hole = photograph(size)
    chosen: Callable[..., NDArray[np.uint8]] = functools.partial(kernels.composite, impl=impl)
    monkeypatch.setattr(kernels, "composite", chosen)
    with picme_rt.Session(ENGINE) as session:
        done = benchmark(session.complete, img, hole, k=K)
    assert (done.images[:, ~hole] == img[~hole]).all()

"""The paper's Table 4: one 256x256 picture, centre hole, six completions, preset `picme`.

Random weights: only time is measured here, and that both sides give the same picture. Each case
runs once as a test; `make bench` times them.
"""

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from cpu_backends import EVERY
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

import picme_rt
from picme_export import export
from picme_rt import composite, framing, kernels
from picme_training.config import NetworkConfig
from picme_training.networks import Picme

SIZE, K, TURNS = 256, 6, 25
BACKENDS = pytest.mark.parametrize(("backend", "precision"), EVERY)
CATS128 = Path(__file__).parents[2] / "engines" / "cats128"


@pytest.fixture(scope="module")
def model() -> Picme:
    torch.manual_seed(0)
    return Picme(NetworkConfig("picme", SIZE, 6)).eval()


@pytest.fixture(scope="module")
def engine(model: Picme, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("engines") / "picme256"
    export.write(model, target, name="picme256")  # folds the spectral norm of `model` too
    return target


def tiles(size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """16 x 16 flat tiles, and a hole in the middle half as wide and high."""
    rng = np.random.default_rng(0)
    side = size // 16
    image = np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((side, side, 1))).astype(np.uint8)
    hole = np.zeros((size, size), bool)
    hole[size // 4 : -size // 4, size // 4 : -size // 4] = True
    return image, hole


@pytest.fixture(scope="module")
def picture() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    return tiles(SIZE)


@torch.no_grad()
def torch_eager(model: Picme, image: NDArray[np.uint8], hole: NDArray[np.bool_]) -> torch.Tensor:
    """Bytes to k network pictures: encode, then the k latents decoded as one batch."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    holes = torch.from_numpy(hole).float()[None, None]
    encoding, mixture = model.encode(pixels, holes)
    drawn = kernels.sample_gmm(*(t.numpy() for t in mixture), np.zeros(1, np.uint64), k=K)
    assert encoding.z_m is not None
    features = tuple(f.expand(K, -1, -1, -1) for f in encoding.features)
    z_m, wide = encoding.z_m.mu.expand(K, -1), holes.expand(K, -1, -1, -1)
    return model.decode(torch.from_numpy(drawn.z[0]), z_m, features, wide)[-1]


def peak_gflops() -> float:
    """This machine's float32 matrix product, in GFLOP/s, best of five."""
    a = torch.randn(1024, 1024)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        best = max(best, 2 * 1024**3 / (time.perf_counter() - began) / 1e9)
    return best


def about(benchmark: BenchmarkFixture) -> None:
    benchmark.extra_info.update(
        gmac=20.5,
        peak_gflops=round(peak_gflops()),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        onnxruntime=onnxruntime.__version__,
    )


@pytest.mark.benchmark(group="256x256, k = 6, preset picme")
@BACKENDS
def test_engine_completes_six_times(
    benchmark: BenchmarkFixture,
    engine: Path,
    model: Picme,
    picture: tuple[NDArray[np.uint8], NDArray[np.bool_]],
    backend: str,
    precision: str,
) -> None:
    image, hole = picture
    with picme_rt.Session(engine, backend=backend, precision=precision) as session:
        done = benchmark(session.complete, image, hole, k=K)
    about(benchmark)
    assert (done.images[:, ~hole] == image[~hole]).all()
    raw = torch_eager(model, image, hole).permute(0, 2, 3, 1).numpy()
    inside = np.clip(np.rint((raw + 1) * 127.5), 0, 255)[:, 120:136, 120:136]
    # far from the seam's blend the completion is g's own picture, within one level in fp32
    most = 1 if precision == "fp32" else 3
    assert np.abs(inside - done.images[:, 120:136, 120:136].astype(float)).max() <= most


@pytest.mark.benchmark(group="256x256, k = 6, preset picme")
def test_torch_eager_decodes_six_times(
    benchmark: BenchmarkFixture,
    model: Picme,
    engine: Path,
    picture: tuple[NDArray[np.uint8], NDArray[np.bool_]],
) -> None:
    pictures = benchmark(torch_eager, model, *picture)
    about(benchmark)
    assert pictures.shape == (K, 3, SIZE, SIZE)
    assert torch.isfinite(pictures).all()


@pytest.mark.benchmark(group="k = 6, one call of each in turn: extra_info has each one's times")
@pytest.mark.parametrize("preset", ["picme", "cats"])
def test_every_backend_and_torch_in_turn(
    benchmark: BenchmarkFixture, engine: Path, model: Picme, preset: str
) -> None:
    """Ratios of one run, on a machine that is busy too: wall time, and CPU time of all threads."""
    if preset == "cats":  # the network of cats128; its checkpoint is not in the repository
        torch.manual_seed(0)
        engine, model = CATS128, Picme(NetworkConfig("cats", 128, 6)).eval()
    size = model.config.size
    image, hole = tiles(size)
    calls: dict[str, Callable[[], object]] = {"torch": lambda: torch_eager(model, image, hole)}
    with contextlib.ExitStack() as stack:
        for backend, precision in EVERY:
            session = picme_rt.Session(engine, backend=backend, precision=precision)
            stack.enter_context(session)
            calls[f"{backend} {precision}"] = functools.partial(session.complete, image, hole, k=K)
        wall: dict[str, list[float]] = {name: [] for name in calls}
        cpu: dict[str, list[float]] = {name: [] for name in calls}

        def turn() -> None:
            for name, call in calls.items():
                began, used = time.perf_counter(), time.process_time()
                call()
                wall[name].append(1e3 * (time.perf_counter() - began))
                cpu[name].append(1e3 * (time.process_time() - used))

        turn()  # warms up
        for times in (*wall.values(), *cpu.values()):
            times.clear()
        benchmark.pedantic(turn, rounds=TURNS)
    for name in calls:
        quartiles = np.percentile(wall[name], (0, 25, 50, 75)).round(1).tolist()
        benchmark.extra_info[name] = {
            "wall: minimum, quartiles": quartiles,
            "cpu: minimum, median": np.percentile(cpu[name], (0, 50)).round(1).tolist(),
        }
        assert len(wall[name]) in (1, TURNS)


@pytest.mark.benchmark(group="by stage: the engine")
@pytest.mark.parametrize(
    ("stage", "backend", "precision"),
    [(stage, *EVERY[0]) for stage in ("fit", "sample", "paste")]  # no backend's work
    + [(stage, *one) for stage in ("encode", "decode") for one in EVERY],
)
def test_stage_of_the_engine(
    benchmark: BenchmarkFixture,
    engine: Path,
    stage: str,
    picture: tuple[NDArray[np.uint8], NDArray[np.bool_]],
    backend: str,
    precision: str,
) -> None:
    image, hole = picture
    with picme_rt.Session(engine, backend=backend, precision=precision) as session:
        backend = session._loaded()
        region = framing.regions(hole, SIZE, "aligned")[0]
        fitted = composite.fit(image, hole, region, SIZE)
        values = backend.encode(fitted.image[None], fitted.hole[None])
        values["hole"] = fitted.hole[None]
        mixture = [values[name] for name in ("log_alpha", "mu", "log_sigma")]
        z = kernels.sample_gmm(*mixture, np.zeros(1, np.uint64), k=K).z[0]
        decode = backend.decoding(values)
        raw = decode(z[:1])[0].copy()
        canvas, target = composite.canvas(fitted, hole, region), image.copy()[None, None]

        def paste() -> None:
            for _ in range(K):
                kernels.composite(raw[None, None], image[None], [canvas], out=target)

        stages: dict[str, Callable[[], object]] = {
            "fit": lambda: composite.fit(image, hole, region, SIZE),
            "encode": lambda: backend.encode(fitted.image[None], fitted.hole[None]),
            "sample": lambda: kernels.sample_gmm(*mixture, np.zeros(1, np.uint64), k=K),
            "decode": lambda: [decode(z[i : i + 1]) for i in range(K)],
            "paste": paste,
        }
        benchmark(stages[stage])
        decode.close()
    assert np.isfinite(raw).all()
    assert (target[0, 0, ~hole] == image[~hole]).all()

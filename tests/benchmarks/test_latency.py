"""The paper's Table 4: one 256x256 picture, centre hole, six completions, preset `picme`.

Random weights: only time is measured here, and that both sides give the same picture. Each case
runs once as a test; `make bench` times them.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

import picme_rt
from picme_export import export
from picme_rt import composite, framing, kernels
from picme_training.config import NetworkConfig
from picme_training.networks import Picme

SIZE, K = 256, 6


@pytest.fixture(scope="module")
def model() -> Picme:
    torch.manual_seed(0)
    return Picme(NetworkConfig("picme", SIZE, 6)).eval()


@pytest.fixture(scope="module")
def engine(model: Picme, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("engines") / "picme256"
    export.write(model, target, name="picme256")  # folds the spectral norm of `model` too
    return target


@pytest.fixture(scope="module")
def picture() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    hole = np.zeros((SIZE, SIZE), bool)
    hole[64:192, 64:192] = True
    return image, hole


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


@pytest.mark.benchmark(group="256x256, k = 6, preset picme, fp32")
def test_engine_completes_six_times(
    benchmark: BenchmarkFixture,
    engine: Path,
    model: Picme,
    picture: tuple[NDArray[np.uint8], NDArray[np.bool_]],
) -> None:
    image, hole = picture
    with picme_rt.Session(engine) as session:
        done = benchmark(session.complete, image, hole, k=K)
    about(benchmark)
    assert (done.images[:, ~hole] == image[~hole]).all()
    raw = torch_eager(model, image, hole).permute(0, 2, 3, 1).numpy()
    inside = np.clip(np.rint((raw + 1) * 127.5), 0, 255)[:, 120:136, 120:136]
    # far from the seam's blend the completion is g's own picture, within one level
    assert np.abs(inside - done.images[:, 120:136, 120:136].astype(float)).max() <= 1


@pytest.mark.benchmark(group="256x256, k = 6, preset picme, fp32")
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


@pytest.mark.benchmark(group="by stage: the engine")
@pytest.mark.parametrize("stage", ["fit", "encode", "sample", "decode", "paste"])
def test_stage_of_the_engine(
    benchmark: BenchmarkFixture,
    engine: Path,
    stage: str,
    picture: tuple[NDArray[np.uint8], NDArray[np.bool_]],
) -> None:
    image, hole = picture
    with picme_rt.Session(engine) as session:
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

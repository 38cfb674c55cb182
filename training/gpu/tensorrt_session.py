"""The part `tensorrt`: plans built here, sessions beside the CPU's, calls timed, pycuda's arrays.

Needs what `pip install '.[export,tensorrt]'` or `'.[export,rtx]'` brings, and kernels built with
nvcc; without one of these it says so and checks nothing.
"""

import functools
import importlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import picme_rt
from gpu import timing
from gpu.attempts import attempt
from picme_rt import cuda_launch, cuda_runtime, plans
from picme_rt import engine as engines
from picme_rt.backends import tensorrt_library
from picme_rt.errors import PicmeError

Result = dict[str, Any]
ENGINE = Path(__file__).resolve().parents[2] / "engines" / "cats128"
LIMITS = {"fp32": (0.1, 1), "fp16": (1, 5), "bf16": (3, 16), "int8": (3, 16)}
"""Levels of 255 in the hole that a precision may be from the CPU's fp32: on average, and at the
99.9th percentile."""


def measure(device: torch.device, tiny: bool, engine: Path = ENGINE) -> Result:
    """Every precision that the engine has plans in."""
    checks: list[Result] = []
    rows: list[Result] = []
    if missing := _missing(device):
        return {"checks": checks, "rows": rows, "skipped": [missing]}
    library = tensorrt_library.installed()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine"
        shutil.copytree(engine, path)
        image, mask = picture(engines.load(path).size)
        with picme_rt.Session(path, backend="onnxruntime") as cpu:
            expected = cpu.complete(image, mask, k=6)
        for precision in plans.offered(engines.load(path)):
            with attempt(f"{precision}: a session on its plans", checks):
                _build(path, library.name, precision)
                with picme_rt.Session(path, backend="tensorrt", precision=precision) as session:
                    # what comes before an exception stays in the lists
                    with attempt(f"{precision}: compared with the CPU's", checks):
                        checks.extend(compare(session, image, mask, expected))
                    with attempt(f"{precision}: timed", checks):
                        rows.extend(times(session, image, mask, tiny))
    about = {"library": f"{library.name} {library.version}", "engine": engine.name}
    return {"about": about, "checks": checks, "rows": rows, "skipped": []}


def _missing(device: torch.device) -> str | None:
    """What is not here, in one line."""
    if device.type != "cuda":
        return "TensorRT: no GPU"
    for package in ("onnx", "onnxruntime", "tqdm"):
        if importlib.util.find_spec(package) is None:
            return f"TensorRT: {package} is not installed; pip install '.[export]'"
    try:
        tensorrt_library.installed()
        cuda_runtime.load()
        for kernel in ("sample_gmm_cuda", "composite_cuda"):
            cuda_launch.find(kernel)
    except PicmeError as exc:
        return f"TensorRT: {exc}"
    return None


def _build(path: Path, library: str, precision: str) -> None:
    builder = importlib.import_module("picme_export.plan_builder")
    builder.write(path, library=library, options=plans.Options(precision))


def picture(size: int) -> tuple[Any, Any]:
    """A smooth picture (S, S, 3) with a hole of a quarter in its middle."""
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear")[0]
    mask = np.zeros((size, size), bool)
    mask[size // 4 : -size // 4, size // 4 : -size // 4] = True
    return (smooth.permute(1, 2, 0) * 255).to(torch.uint8).numpy(), mask


def compare(session: picme_rt.Session, image: Any, mask: Any, expected: Any) -> Iterator[Result]:
    """A session beside the CPU's fp32, its graph beside its first run, results left on the GPU."""
    precision = session.info.precision
    first, second, third = (session.complete(image, mask, k=6) for _ in range(3))
    levels = np.abs(first.images.astype(int) - expected.images)[:, mask]
    mean, top = float(levels.mean()), float(np.percentile(levels, 99.9))
    most = LIMITS[precision]
    yield {
        "name": f"{precision}: near the CPU's fp32",
        "pass": mean <= most[0] and top <= most[1],
        "mean": mean,
        "p999": top,
    }
    yield {
        "name": f"{precision}: known pixels",
        "pass": bool((first.images[:, ~mask] == image[~mask]).all()),
    }
    yield {
        "name": f"{precision}: primitives",
        "pass": bool((first.primitives == expected.primitives).all()),
    }
    yield {
        "name": f"{precision}: a graph gives the bits of the first run",
        "pass": all(bool((first.images == one.images).all()) for one in (second, third)),
    }
    left = session.complete(image, mask, k=6, device_output=True).images
    read = torch.utils.dlpack.from_dlpack(left).cpu().numpy()
    yield {
        "name": f"{precision}: results left on the GPU, read by torch",
        "pass": bool((read == first.images).all()),
    }
    if importlib.util.find_spec("pycuda"):
        importlib.import_module("pycuda.autoprimaryctx")
        to_gpu = importlib.import_module("pycuda.gpuarray").to_gpu
        there = session.complete(to_gpu(image), to_gpu(mask.astype(np.uint8)), k=6)
        same = bool((there.images == first.images).all())
        yield {"name": f"{precision}: pycuda's arrays as arguments", "pass": same}


def times(session: picme_rt.Session, image: Any, mask: Any, tiny: bool) -> Iterator[Result]:
    """Whole calls, from bytes to bytes: the call waits by itself, so the clock is right."""
    host, effort = torch.device("cpu"), timing.TINY if tiny else timing.FULL
    calls = {
        (1, k): functools.partial(session.complete, image, mask, k=k)
        for k in ((1,) if tiny else (1, 6, 16))
    }
    many = 2 if tiny else 8
    together: dict[tuple[int, int], Any] = {
        (many, 6): functools.partial(session.complete_batch, [image] * many, [mask] * many, k=6)
    }
    for (batch, k), call in (calls | together).items():
        taken = str(timing.measure(call, host, effort))
        yield {"precision": session.info.precision, "batch": batch, "k": k, "time": taken}


def table(result: Result) -> str:
    """Times, and the distances to the CPU."""
    parts = []
    if result["rows"]:
        head = ("precision", "batch", "k", "ms a call (10th to 90th percentile)")
        names = ("precision", "batch", "k", "time")
        rows = [tuple(row[name] for name in names) for row in result["rows"]]
        near = [check for check in result["checks"] if "mean" in check]
        parts = [
            f"{result['about']['library']}, {result['about']['engine']}",
            timing.markdown(head, rows),
            timing.markdown(
                ("against the CPU's fp32, in the hole", "levels on average", "99.9th percentile"),
                [(one["name"], f"{one['mean']:.3f}", f"{one['p999']:.0f}") for one in near],
            ),
        ]
    return "\n\n".join([*parts, *(f"Skipped: {what}." for what in result["skipped"])])

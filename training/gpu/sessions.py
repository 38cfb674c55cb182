"""Whole calls of a session on a GPU: parity with the CPU, latency, throughput, other backends."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import picme_rt
from gpu.attempts import attempt
from gpu.own_process import Found
from gpu.pipelines import picture
from picme_rt import backends, kernels
from picme_rt import engine as engines
from picme_rt.errors import PicmeError
from picme_rt.session import Session

Result = dict[str, Any]
K = 6
LEVELS = {"fp32": (1.0, 1), "tf32": (1.0, 5), "fp16": (1.0, 5), "bf16": (2.0, 16)}
"""Most levels from the CPU's fp32 in the hole: on average, and at the 99.9th percentile."""


def opened(engine: Path, device: torch.device, backend: str, precision: str) -> Session:
    """A session on the device; the CPU knows no lower precision of torch's."""
    where = "cpu" if device.type == "cpu" else f"cuda:{device.index or 0}"
    return Session(engine, backend=backend, device=where, precision=precision)


def candidates(engine: Path, device: torch.device) -> Iterator[tuple[str, str]]:
    """Every backend and precision that may run there."""
    loaded = engines.load(engine)
    kind: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    for backend in backends.BACKENDS:
        if kind == "cpu" and backend != "torch":
            continue  # the benchmarks of the CPU have them
        for precision in backends.offered(loaded, backend, kind):
            yield backend, precision


def parity(engine: Path, device: torch.device, k: int) -> Iterator[Found]:
    """Each backend and precision against torch's fp32 on the CPU; checks, and what was skipped."""
    size = engines.load(engine).size
    img, hole = picture(size, 1)
    with Session(engine, backend="torch", device="cpu") as session:
        want = session.complete(img, hole, k=k, seed=5)
    for backend, precision in candidates(engine, device):
        name = f"{engine.name}, {backend} {precision}"
        checks: list[Result] = []
        with attempt(name, checks):
            try:
                session = opened(engine, device, backend, precision)
            except PicmeError as exc:
                yield "skipped", f"{name}: {exc}"
                continue
            with session:
                got = session.complete(img, hole, k=k, seed=5)
                again = session.complete(img, hole, k=1, seed=5)
            checks.append({"name": name, **compared(want, got, again, hole, img, precision)})
        for check in checks:
            yield "checks", check


def compared(
    want: picme_rt.Completions,
    got: picme_rt.Completions,
    again: picme_rt.Completions,
    hole: np.ndarray[Any, Any],
    img: np.ndarray[Any, Any],
    precision: str,
) -> Result:
    """Whether results are near enough, known pixels the picture's, and result i whatever k is."""
    mean, high = LEVELS.get(precision, LEVELS["bf16"])
    difference = np.abs(got.images.astype(int) - want.images)[:, hole]
    found = float(difference.mean()), float(np.percentile(difference, 99.9))
    known = bool((got.images[:, ~hole] == img[~hole]).all())
    same = bool((again.images == got.images[:1]).all())
    assert got.primitives is not None  # there is a hole
    assert want.primitives is not None
    drawn = bool((got.primitives == want.primitives).all())
    near = found[0] <= mean and found[1] <= high
    return {
        "pass": near and known and same and (drawn or precision == "tf32"),
        "mean_levels": found[0], "high_levels": found[1],
        "known": known, "same_for_every_k": same, "same_primitives": drawn,
    }  # fmt: skip


def calls(engine: Path, device: torch.device, *, tiny: bool) -> Iterator[Found]:
    """Latency of `complete`, bytes in and bytes out, and 100 pictures by `complete_batch`."""
    for backend, precision in candidates(engine, device):
        broke: list[Result] = []
        with attempt(f"{engine.name}, {backend} {precision}: calls", broke):
            try:
                session = opened(engine, device, backend, precision)
            except PicmeError:
                continue  # parity has said it
            row = {"backend": backend, "precision": precision}
            with session:
                row |= called(session, engines.load(engine).size, tiny=tiny)
            yield "calls", row
        for check in broke:
            yield "checks", check


def called(session: Session, size: int, *, tiny: bool) -> Result:
    """The times of one session."""
    k, many, repeats, first = (1, 2, 2, 1) if tiny else (K, 100, 200, 10)
    pairs = [picture(size, seed) for seed in range(many)]
    imgs, holes = [img for img, _ in pairs], [hole for _, hole in pairs]
    for place in range(first):  # graphs are recorded, memory is taken
        session.complete(imgs[place % many], holes[0], k=k)
    taken = []
    for place in range(repeats):
        began = time.perf_counter()
        session.complete(imgs[place % many], holes[place % many], k=k)
        taken.append(1e3 * (time.perf_counter() - began))
    began = time.perf_counter()
    done = session.complete_batch(imgs, holes, k=k)
    seconds = time.perf_counter() - began
    assert len(done) == many
    middle, high, highest = np.percentile(taken, (50, 90, 99)).tolist()
    row: Result = {"kernels": session.info.sampler, "k": k, "pictures": many, "seconds": seconds}
    return row | {"p50_ms": middle, "p90_ms": high, "p99_ms": highest}


def has_kernels(device: torch.device) -> bool:
    """Whether the pipeline's kernels are there for the device."""
    return device.type == "cpu" or kernels.cuda_is_built()

"""The torch backend's pipeline on W1, of every size and precision, beside the reference loop."""

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from gpu import attempts, counting, decode, precision, timing
from picme_rt import torch_model
from picme_rt.backends import graphs, torch_launches, torch_pipeline
from picme_rt.backends import torch as torch_backend
from picme_rt.backends.torch_pipeline import Pipeline
from picme_rt.backends.torch_recording import OnCpu, OnCuda, Recorder
from picme_rt.choices import Settings
from picme_rt.encoded import Request
from picme_rt.engine import Engine

Result = dict[str, Any]
FAILED = "failed"
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
KS = (1, 6, 16, 50)
SIZES = tuple((pictures, k) for pictures in (1, 8, 32) for k in KS)
LARGE = tuple(size for size in SIZES if size[0] == 32 or size[1] == 50)
"""Batches and k; those that take long, or may not fit into memory."""


def picture(size: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Noise of a network's size, and its centre hole of half a side."""
    img = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    hole = np.zeros((size, size), bool)
    hole[size // 4 : -size // 4, size // 4 : -size // 4] = True
    return img, hole


def recorder_of(device: torch.device, *, graph: bool) -> Recorder:
    """How work gets to a device."""
    return OnCuda(device, graphs=graph) if device.type == "cuda" else OnCpu()


def make(engine: Engine, recorder: Recorder, name: str, *, pictures: int, latents: int) -> Pipeline:
    """A pipeline of one size."""
    checked = graphs.read(engine, "fp32")
    settings = Settings("torch", name, threads=1, device=str(recorder.place))
    launches: torch_launches.Launches = torch_launches.OnHost()
    if isinstance(recorder, OnCuda):
        launches = torch_launches.OnGpu(recorder.stream)
    return torch_pipeline.Pipeline(
        *torch_backend.networks(checked, settings),
        engine.tables,
        rows=torch_backend.whole(checked),
        pictures=pictures,
        latents=latents,
        recorder=recorder,
        launches=launches,
    )


def body(pipeline: Pipeline, engine: Engine) -> tuple[Callable[[], None], torch.Tensor]:
    """What is timed: encode, sample, decode, paste, from and to memory of the device.

    Returns:
        The call, to be queued, and where it leaves its bytes.
    """
    pairs = [picture(engine.size, seed) for seed in range(pipeline.pictures)]
    regions = [torch_model.fitted(img, hole, engine)[0] for img, hole in pairs]
    layer = pipeline.encode([fit for fit, _ in regions], [canvas for _, canvas in regions])
    place = pipeline._recorder.place
    originals = torch.from_numpy(np.stack([img for img, _ in pairs])).to(place)
    seeds = torch.from_numpy(np.arange(pipeline.pictures, dtype=np.uint64)).to(place)
    shape = (pipeline.pictures, pipeline.latents, engine.size, engine.size, 3)
    out = torch.zeros(shape, dtype=torch.uint8, device=place)
    asked = Request(pipeline.latents, 0, 0, "categorical", None, 1.0)

    def queue() -> None:
        pipeline._encode()
        values = {name: pipeline._held[name] for name in layer.values}
        made = pipeline._queue(layer._replace(values=values), asked, seeds, range(pipeline.latents))
        pipeline.launches.paste(made, originals, layer.frames, out)

    return queue, out


def rows(
    engine: Engine,
    device: torch.device,
    effort: timing.Effort,
    sizes: Iterable[tuple[int, int]],
) -> Iterator[Result]:
    """One row a size, precision and way; what did not fit into memory says so."""
    sizes = list(sizes)
    names = PRECISIONS if device.type == "cuda" else ("fp32", "fp16")
    once, each = counting.macs(engine)
    for name in names:
        for pictures, k in sizes:
            label = {"precision": name, "batch": pictures, "k": k}
            macs = pictures * (once + k * each)
            for way in ways(device, pictures, k):
                row = {**label, "way": way, "gmac": macs / 1e9}
                yield row | attempt(engine, device, effort, row)


def rewritten(engine: Engine, device: torch.device, effort: timing.Effort) -> Iterator[Result]:
    """W1 with the decoder that `picme export` rewrites for CPUs, one picture, k = 6."""
    once, each = counting.macs(engine)
    for name in ("fp32", "fp16"):
        row = {
            "precision": name,
            "batch": 1,
            "k": 6,
            "way": "graph",
            "gmac": (once + 6 * each) / 1e9,
        }
        yield row | attempt(engine, device, effort, row) | {"way": "graph, rewritten decoder"}


def ways(device: torch.device, pictures: int, k: int) -> tuple[str, ...]:
    """`one by one` queues each operator, `graph` has a graph a network, `one graph` one for all."""
    if device.type != "cuda":
        return ("one by one",)
    small = pictures == 1 and k <= 6  # where launches are what is seen
    return ("one by one", "graph", "one graph") if small else ("graph",)


def attempt(engine: Engine, device: torch.device, effort: timing.Effort, row: Result) -> Result:
    """The time of one row, and the most memory that it took."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        taken = timed(engine, device, effort, row)
        outcome = {"outcome": "measured", **taken._asdict()}
    except torch.OutOfMemoryError:
        outcome = {"outcome": "out of memory"}
    except Exception as exc:  # the other rows are still worth having
        outcome = {"outcome": FAILED, "said": attempts.said(exc)}
    if device.type == "cuda":
        outcome["memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        gc.collect()
        torch.cuda.empty_cache()
    return outcome


def timed(
    engine: Engine, device: torch.device, effort: timing.Effort, row: Result
) -> timing.Timing:
    """Milliseconds until the bytes lie in the device's memory."""
    recorder = recorder_of(device, graph=row["way"] == "graph")
    pipeline = make(engine, recorder, row["precision"], pictures=row["batch"], latents=row["k"])
    queue, out = body(pipeline, engine)
    call = queue
    if row["way"] == "one graph":
        whole = OnCuda(device)
        assert isinstance(recorder, OnCuda)
        whole.stream = recorder.stream  # where its kernels are queued
        call = whole.record(queue, row["precision"])

    def once() -> None:
        with torch.no_grad(), recorder.queueing():
            call()
        recorder.wait()

    taken = timing.measure(once, device, effort)
    if not out.any():
        raise RuntimeError("no bytes were written")
    return taken


def loops(device: torch.device, effort: timing.Effort, *, tiny: bool) -> Iterator[Result]:
    """The reference in eager torch: encode, then k decodes at batch 1, spectral norm alive."""
    size, ks = (64, (1,)) if tiny else (256, KS)
    model = decode._network(size, device)
    for k in ks:
        request = decode._request(k, model, k, device)
        for name in precision.names(device):

            def call(name: str = name, request: decode.Request = request) -> None:
                decode._run(decode.loop, model, request, name)

            with torch.no_grad():  # not around the yield: it is the thread's
                taken = timing.measure(call, device, effort)
            yield {"k": k, "precision": name, **taken._asdict()}

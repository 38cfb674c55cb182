"""Measures with which settings an engine runs fastest on this machine."""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from picme_rt import backends, choices, work
from picme_rt.backends import Backend
from picme_rt.backends.host_backend import HostBackend
from picme_rt.choices import Measured, Settings
from picme_rt.engine import Engine
from picme_rt.errors import UnavailableError
from picme_rt.framing import Box
from picme_rt.images import Float
from picme_rt.turns import Turns

LATENTS = 6  # a call's default k
_ROUNDS = 5
_WARM = 1.0  # seconds of calls before those that are timed
_MICRO_BATCHES = (2, 3)


def tune(
    engine: Engine,
    *,
    lower: bool = False,
    progress: Callable[[Sequence[tuple[str, str]]], Iterable[tuple[str, str]]] = iter,
) -> list[Measured]:
    """The best settings of every installed backend in every precision, measured in turn.

    The defaults' threads and micro-batch stay unless others are `choices.fastest`.

    Args:
        engine: The engine.
        lower: Whether `precision="auto"` may be another than fp32 on this machine, if the engine
            says that its pictures are `near` those of fp32.
        progress: Wraps the pairs of backend and precision, such as a progress bar.
    """
    best = []
    pairs = [(b, p) for b in backends.installed() for p in backends.offered(engine, b)]
    for backend, precision in progress(pairs):
        found = backends.defaults(backend, precision)
        others = sorted({found.threads // 2, _logical()} - {0, found.threads})
        with contextlib.suppress(UnavailableError):  # a precision that this CPU lacks
            manned = [replace(found, threads=n) for n in others]
            found = choices.fastest(measure(engine, [found, *manned]))
            wider = [replace(found, micro_batch=n) for n in _MICRO_BATCHES]
            found = choices.fastest(measure(engine, [found, *wider]))
            best.append(found)
    return [one._replace(lower=lower) for one in measure(engine, best)]


def measure(engine: Engine, settings: Sequence[Settings]) -> list[Measured]:
    """Times one encode and `LATENTS` decodes with each of some settings, in turn.

    As a session does them whose caller is alone: side by side where that changes no bit.

    Returns:
        The medians, in the order of `settings`.

    Raises:
        UnavailableError: This machine does not compute in a precision.
    """
    calls = Turns(choices.cores() + 1)  # nobody else's: a session whose caller is alone
    loaded = [backends.load(engine, one, calls=calls) for one in settings]
    times: list[list[float]] = [[] for _ in loaded]
    image, hole = _picture(engine.size)
    box = work.box_of(hole[0, 0] > 0)
    for backend in loaded:
        if isinstance(backend, HostBackend):
            backend.prepare()
        warm = time.perf_counter() + _WARM
        while time.perf_counter() < warm:
            _work(backend, image, hole, box)
    for _ in range(_ROUNDS):
        for backend, found in zip(loaded, times, strict=True):
            began = time.perf_counter()
            _work(backend, image, hole, box)
            found.append(1e3 * (time.perf_counter() - began))
    return [
        Measured(one, statistics.median(found)) for one, found in zip(settings, times, strict=True)
    ]


def _picture(size: int) -> tuple[Float, Float]:
    """Noise with a hole in the middle, as `Backend.encode` takes it."""
    hole = np.zeros((1, 1, size, size), np.float32)
    hole[..., size // 4 : size - size // 4, size // 4 : size - size // 4] = 1
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 3, size, size))
    return (noise * (1 - hole)).astype(np.float32), hole


def _work(backend: Backend, image: Float, hole: Float, box: Box) -> None:
    """What a call asks of a backend; the latents are the primitives' means."""
    values = backend.encode(image, hole)
    decode = backend.decoding({**values, "hole": hole}, box)
    latents = np.resize(values["mu"][0], (LATENTS, values["mu"].shape[-1]))
    size = backend.micro_batch
    runs = [
        np.resize(latents[first : first + size], (size, latents.shape[1]))
        for first in range(0, LATENTS, size)
    ]
    with contextlib.closing(decode.each(runs, lambda *_: None)) as made:
        for _ in made:
            pass
    decode.close()


def _logical() -> int:
    """Logical CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else choices.cores()

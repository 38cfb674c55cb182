"""Time of a call: warmed up, repeated, by CUDA events on a GPU and by the clock on a CPU."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

MOST = 200  # repeats of one measurement


class Effort(NamedTuple):
    """How long to measure.

    Attributes:
        seconds: Go on until so much time has passed.
        least: But for so many repeats.
        warm_up: Calls before the first that is timed: kernels are loaded and chosen there.
    """

    seconds: float
    least: int
    warm_up: int


FULL = Effort(seconds=0.5, least=10, warm_up=5)
TINY = Effort(seconds=0.0, least=2, warm_up=1)


class Timing(NamedTuple):
    """Milliseconds of a call: the median, and the 10th and 90th percentile as its spread."""

    median_ms: float
    low_ms: float
    high_ms: float
    repeats: int

    def __str__(self) -> str:
        return f"{self.median_ms:.3g} ({self.low_ms:.3g} to {self.high_ms:.3g})"


def measure(
    call: Callable[[], object], device: torch.device, effort: Effort, *, calls: int = 1
) -> Timing:
    """Time of `call`, which itself does the work `calls` times.

    The device is idle before each repeat, so the launches count: this is latency as a caller sees
    it. Work that runs ahead of the device (training) is measured with `calls` in one repeat.
    """
    for _ in range(effort.warm_up):
        call()
    synchronize(device)
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < MOST:
        if len(found) >= effort.least and time.perf_counter() - began >= effort.seconds:
            break
        found.append(_once(call, device) / calls)
    low, median, high = np.percentile(found, (10, 50, 90))
    return Timing(float(median), float(low), float(high), len(found))


def synchronize(device: torch.device) -> None:
    """Waits for the device; a CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; None is shown as a dash."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [["-" if cell is None else str(cell) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def _once(call: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - began)
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))

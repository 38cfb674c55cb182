"""What this machine reaches at best: arithmetic in each precision, and a plain copy.

Arithmetic is a chain of 3x3 convolutions of 256 channels in OpenVINO, whose kernels come nearest to
what the cores can do (its matrix products reach a few percent less); the best of many runs counts.
"""

import dataclasses
import time
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from picme_rt import choices

if TYPE_CHECKING:
    import openvino

PRECISIONS = ("fp32", "bf16", "int8")
_CHANNELS, _LAYERS, _LEVELS = 256, 4, 256
_SIDES = (16, 32)  # one of them suits the number of cores better
_COPY_BYTES = 1 << 26  # more than caches hold


@dataclasses.dataclass(frozen=True)
class Peaks:
    """What the machine reaches.

    Attributes:
        threads: Threads that computed.
        operations: Precision -> 1e9 operations a second, a multiply-add counting as two; only what
            the CPU computes in.
        copy: 1e9 bytes a second that one thread reads and writes, both counted.
    """

    threads: int
    operations: dict[str, float]
    copy: float


def measure(*, seconds: float = 1.0) -> Peaks:
    """Measures the machine, with a thread for each physical core.

    Args:
        seconds: How long each of the four measurements goes on at least, for each size.

    Raises:
        MissingPackageError: OpenVINO is not installed.
    """
    threads = choices.cores()
    operations = {
        precision: max(best(product(precision, side, threads), seconds) for side in _SIDES)
        for precision in available()
    }
    source, target = np.ones((2, _COPY_BYTES), np.uint8)
    copied = 2 * _COPY_BYTES / 1e9 / fastest(lambda: np.copyto(target, source), seconds)
    return Peaks(threads, operations, copied)


def available() -> tuple[str, ...]:
    """The precisions that this CPU computes in by itself; int8 it can always multiply."""
    can = _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(p for p in PRECISIONS if p != "bf16" or "BF16" in can)


def best(call: Callable[[], float], seconds: float) -> float:
    """1e9 operations a second of a `product`, at its best."""
    return call() / 1e9 / fastest(call, seconds)


def fastest(call: Callable[[], object], seconds: float) -> float:
    """The least time that a call takes, in seconds, of as many as fit, at least three."""
    ends, times = time.perf_counter() + seconds, list[float]()
    while len(times) < 3 or time.perf_counter() < ends:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def product(precision: str, side: int, threads: int) -> Callable[[], float]:
    """Convolutions to be run again and again; a run gives the number of its operations.

    Args:
        precision: One of `PRECISIONS`.
        side: Of the square map that is convolved.
        threads: Threads that compute.
    """
    openvino = _openvino()
    compiled = openvino.Core().compile_model(
        _convolutions(precision, side),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "CACHE_DIR": "",
        },
    )
    request = compiled.create_infer_request()
    noise = np.random.default_rng(0).standard_normal((1, _CHANNELS, side, side), np.float32)
    request.set_input_tensor(openvino.Tensor(noise))
    operations = 2.0 * _LAYERS * _CHANNELS**2 * 9 * side**2

    def run() -> float:
        request.infer(share_outputs=True)
        return operations

    return run


def _convolutions(precision: str, side: int) -> "openvino.Model":
    """The chain; in int8 every layer quantises what it reads, which OpenVINO fuses."""
    openvino = _openvino()
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    value = first = ops.parameter([1, _CHANNELS, side, side], np.float32)
    for _ in range(_LAYERS):
        shape = (_CHANNELS, _CHANNELS, 3, 3)
        weight = rng.standard_normal(shape, np.float32) / np.float32(3 * _CHANNELS**0.5)
        kernel = ops.constant(weight)
        if precision == "int8":
            most, limit = np.abs(weight).max(), np.float32(4)
            kernel = ops.fake_quantize(kernel, -most, most, -most, most, _LEVELS - 1)
            value = ops.fake_quantize(value, -limit, limit, -limit, limit, _LEVELS)
        value = ops.relu(ops.convolution(value, kernel, [1, 1], [1, 1], [1, 1], [1, 1]))
    return openvino.Model([value], [first], "peak")


def _openvino() -> ModuleType:
    from picme_rt.backends import openvino

    return openvino._import()

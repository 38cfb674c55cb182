"""The machine and its peaks: what every other figure is a share of."""

import platform
import shutil
import subprocess
from typing import Any

import torch

from gpu import precision, timing

Result = dict[str, Any]


def measure(device: torch.device, tiny: bool) -> Result:
    """Names and versions, and the fastest matrix products and copy that torch reaches here."""
    effort = timing.TINY if tiny else timing.FULL
    side, words = (128, 2**16) if tiny else (8192, 2**28)
    return {
        **_machine(device),
        "peaks": {
            "matmul_side": side,
            "tflops": {
                name: _matmul_tflops(name, side, device, effort)
                for name in (*precision.names(device), "fp16")
            },
            "copy_gb_s": _copy_gb_s(words, device, effort),
        },
        "checks": [],
    }


def _machine(device: torch.device) -> Result:
    found: Result = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch's own
        "device": platform.machine(),
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "device": card.name,
            "capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "memory_gib": round(card.total_memory / 2**30, 1),
            "driver": _driver(),
        }
    return found


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    return said.split()[0]


def _matmul_tflops(
    name: str, side: int, device: torch.device, effort: timing.Effort
) -> dict[str, float]:
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name, torch.float32)
    # random numbers: a product of zeros can run faster than one of data
    a, b = torch.randn(2, side, side, device=device).to(kind)
    with precision.arithmetic(name):
        taken = timing.measure(lambda: torch.mm(a, b), device, effort)
    work = 2 * side**3 / 1e9  # TFLOP a product, times 1000: the times are in ms
    return {
        "median": work / taken.median_ms,
        "low": work / taken.high_ms,
        "high": work / taken.low_ms,
    }


def _copy_gb_s(words: int, device: torch.device, effort: timing.Effort) -> dict[str, float]:
    source = torch.randn(words, device=device)
    target = torch.empty_like(source)
    taken = timing.measure(lambda: target.copy_(source), device, effort)
    work = 2 * source.nbytes / 1e6  # read and written
    return {
        "median": work / taken.median_ms,
        "low": work / taken.high_ms,
        "high": work / taken.low_ms,
    }


def table(result: Result) -> str:
    """What the machine is, then its peaks."""
    machine = ("device", "capability", "multiprocessors", "memory_gib", "driver", "cuda", "cudnn")
    rows = [(name, result.get(name)) for name in (*machine, "torch", "python")]
    peaks = result["peaks"]
    side = peaks["matmul_side"]
    rows += [
        (f"{name} matmul, {side}^3, TFLOP/s", _range(found))
        for name, found in peaks["tflops"].items()
    ]
    rows.append(("copy, read + written, GB/s", _range(peaks["copy_gb_s"])))
    return timing.markdown(("machine", "median (10th to 90th percentile)"), rows)


def _range(found: dict[str, float]) -> str:
    return f"{found['median']:.4g} ({found['low']:.4g} to {found['high']:.4g})"

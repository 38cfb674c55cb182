"""The part `kernels`: the sampler's functions, its kernel as a program, the module on a GPU."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from gpu import bits, launches, module

Result = dict[str, Any]


def measure(device: torch.device, tiny: bool) -> Result:
    """Everything that can be checked here; what cannot is named under `skipped`."""
    found = bits.measure(device, tiny)
    compiler = bits.compiler(device)
    skipped = []
    if compiler is None:
        skipped.append("the kernel: no compiler")
    else:
        with tempfile.TemporaryDirectory() as folder:
            found["checks"] += launched(compiler, Path(folder) / "launch", device)
        if device.type == "cuda" and not launches.sanitizer():
            skipped.append("compute-sanitizer: not on PATH")
    if compiler is None or device.type != "cuda":
        skipped.append("the module, its graph and its time: no GPU with nvcc")
        return {**found, "rows": [], "skipped": skipped}
    used = module.measure(device, compiler[0], tiny)
    checks = [*found["checks"], *used["checks"]]
    return {**found, "checks": checks, "rows": used["rows"], "skipped": skipped}


def launched(compiler: list[str], program: Path, device: torch.device) -> list[Result]:
    """The kernel launched by a program: golden hashes, odd shapes, and under the sanitizer."""
    built = launches.build(compiler, program)
    checks: list[Result] = [
        {"name": "the launching program compiles", "pass": not built.returncode}
    ]
    if built.returncode:
        return [{**checks[0], "said": built.stderr[-500:]}]
    for name, (case, golden) in launches.golden().items():
        checked = launches.compare([str(program)], case)
        if checked["pass"]:
            drawn = launches.launch([str(program)], case).z
            checked["pass"] = launches.hash_of(drawn) == golden
        checks.append({**checked, "name": f"the kernel's golden hash, {name}"})
    cases = {case.name: case for case in launches.cases()}
    for case in cases.values():
        checked = launches.compare([str(program)], case)
        checks.append({**checked, "name": f"the kernel: {case.name}"})
    if device.type == "cuda":
        checks += launches.sanitized(program, cases["P 70, D 131"])
    return checks


def table(result: Result) -> str:
    """Every comparison, the times, and what was skipped."""
    parts = [bits.table(result)]
    if result["rows"]:
        parts.append(module.table(result["rows"]))
    parts += [f"Skipped: {what}." for what in result["skipped"]]
    return "\n\n".join(parts)

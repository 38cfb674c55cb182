"""The part `kernels`: the sampler's functions, the kernels as programs, the module on a GPU."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from gpu import bits, composite_module, composites, launches, module
from gpu.attempts import attempt

Result = dict[str, Any]


def measure(device: torch.device, tiny: bool) -> Result:
    """Everything that can be checked here; what cannot is named under `skipped`."""
    found = bits.measure(device, tiny)
    found["checks"].append(composite_golden())
    compiler = bits.compiler(device)
    skipped = []
    if compiler is None:
        skipped.append("the kernels as programs: no compiler")
    else:
        with tempfile.TemporaryDirectory() as folder:
            with attempt("the sampler by a program", found["checks"]):
                found["checks"] += launched(compiler, Path(folder) / "launch", device)
            with attempt("the composite by a program", found["checks"]):
                found["checks"] += composited(compiler, Path(folder) / "composite", device, tiny)
        if device.type == "cuda" and not launches.sanitizer():
            skipped.append("compute-sanitizer: not on PATH")
    if compiler is None or device.type != "cuda":
        skipped.append("the module, its graph and its time: no GPU with nvcc")
        return {**found, "rows": [], "composite_rows": [], "skipped": skipped}
    used = module.measure(device, compiler[0], tiny)
    checks = [*found["checks"], *used["checks"]]
    return {**found, **used, "checks": checks, "skipped": skipped}


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


def composite_golden() -> Result:
    """The golden case of docs/compositing.md, by the NumPy reference."""
    case, hashes = composites.golden()
    same = composites.hashes_of(composites.truth(case)) == hashes
    return {"name": "the composite's golden hashes, by the reference", "pass": same}


def composited(
    compiler: list[str], program: Path, device: torch.device, tiny: bool
) -> list[Result]:
    """The composite's kernels called by a program, likewise; every third case where `tiny`."""
    built = composites.build(compiler, program)
    compiles: Result = {"name": "the compositing program compiles", "pass": not built.returncode}
    if built.returncode:
        return [{**compiles, "said": built.stderr[-500:]}]
    golden, hashes = composites.golden()
    checked = composites.compare([str(program)], golden)
    if checked["pass"]:
        written = composites.launch([str(program)], golden)
        checked["pass"] = composites.hashes_of(written) == hashes
    checks = [compiles, {**checked, "name": "the composite's golden hashes, by its kernels"}]
    cases = {case.name: case for case in composites.cases()}
    for case in list(cases.values())[:: 3 if tiny else 1]:
        checked = composites.compare([str(program)], case)
        checks.append({**checked, "name": f"the composite: {case.name}"})
    sanitizer = launches.sanitizer() if device.type == "cuda" else None
    for tool in launches.SANITIZERS if sanitizer else ():
        options = ["--tool", tool, "--error-exitcode", "9"]
        for name in ("not resized", "enlarged, no originals, odd addresses"):
            checked = composites.compare([str(sanitizer), *options, str(program)], cases[name])
            checks.append({**checked, "name": f"the composite, compute-sanitizer {tool}: {name}"})
    return checks


def table(result: Result) -> str:
    """Every comparison, the times, and what was skipped."""
    parts = [bits.table(result)]
    if result["rows"]:
        parts.append(module.table(result["rows"]))
    if result["composite_rows"]:
        parts.append(composite_module.table(result["composite_rows"]))
    parts += [f"Skipped: {what}." for what in result["skipped"]]
    return "\n\n".join(parts)

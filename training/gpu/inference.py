"""The part `inference`: W1 by the torch backend, by the reference loop, by what else is there.

The pipeline needs our kernels built for CUDA. Where nvcc is, they are built in a temporary folder
and used by a process of their own; else the networks alone are measured, by sessions.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from gpu import bits, module, pipelines, sessions, timing, w1
from picme_rt import engine as engines

Result = dict[str, Any]
CATS = Path(__file__).parents[2] / "engines" / "cats128"
CALL = (
    "import json, sys, torch; from gpu import inference; "
    "print(json.dumps(inference.use(torch.device(sys.argv[1]), sys.argv[2] == 'True')))"
)


def measure(device: torch.device, tiny: bool) -> Result:
    """Everything, with the kernels where they can be had."""
    compiler = bits.compiler(device) if device.type == "cuda" else None
    if compiler is None:
        return use(device, tiny)
    major, minor = torch.cuda.get_device_capability(device)
    with tempfile.TemporaryDirectory() as folder:
        built = module.build(Path(folder), compiler[0], f"{major}{minor}-real")
        if not built["pass"]:
            found = use(device, tiny)
            return {**found, "checks": [built, *found["checks"]]}
        paths = os.pathsep.join((folder, str(module.TRAINING)))
        # a process of its own, for the repository's picme_rt is already imported in this one
        done = subprocess.run(
            [sys.executable, "-c", CALL, str(device), str(tiny)],
            env={**os.environ, "PYTHONPATH": paths},
            cwd=folder,
            stdout=subprocess.PIPE,
            timeout=540,
            check=False,
        )
    ran: Result = {"name": "the pipelines run", "pass": done.returncode == 0}
    if not ran["pass"]:
        return {"rows": [], "loops": [], "calls": [], "skipped": [], "checks": [built, ran]}
    found = json.loads(done.stdout)
    return {**found, "checks": [built, ran, *found["checks"]]}


def use(device: torch.device, tiny: bool) -> Result:
    """Measures with the picme_rt that is imported."""
    effort = timing.TINY if tiny else timing.Effort(seconds=0.3, least=10, warm_up=3)
    found: Result = {"rows": [], "skipped": []}
    with tempfile.TemporaryDirectory() as folder:
        paths = [CATS] if tiny else [w1.write(Path(folder) / "w1"), CATS]
        if sessions.has_kernels(device):
            engine = engines.load(paths[0])
            found["rows"] = list(pipelines.rows(engine, device, effort, tiny=tiny))
            if not tiny:
                other = engines.load(w1.write(Path(folder) / "rewritten", "rewritten"))
                found["rows"] += pipelines.rewritten(other, device, effort)
        else:
            found["skipped"].append("the pipeline: our kernels are not built for CUDA, no nvcc")
        found["loops"] = pipelines.loops(device, effort, tiny=tiny)
        found["checks"] = []
        for path in paths:
            checks, skipped = sessions.parity(path, device, 2 if tiny else sessions.K)
            found["checks"] += checks
            found["skipped"] += skipped
        found["calls"] = sessions.calls(paths[0], device, tiny=tiny)
    add_speedups(found)
    if device.type == "cuda":
        found["checks"] += targets(found)
    return found


def add_speedups(found: Result) -> None:
    """How many times faster a row of batch 1 is than the loop, in the loop's fastest precision."""
    for row in found["rows"]:
        loops = [one["median_ms"] for one in found["loops"] if one["k"] == row["k"]]
        if row["outcome"] == "measured":
            row["ms_per_picture"] = row["median_ms"] / row["batch"]
            if loops and row["batch"] == 1:
                row["speedup"] = min(loops) / row["median_ms"]


def targets(found: Result) -> list[Result]:
    """What was aimed at for an H200: k = 6, fp16, one picture, by the best way."""
    wanted = {"precision": "fp16", "batch": 1, "k": 6, "outcome": "measured"}
    good = [
        row for row in found["rows"] if wanted.items() <= row.items() and row["way"] != "one by one"
    ]
    if not good:
        return []
    row = min(good, key=lambda one: float(one["median_ms"]))
    checks = [
        {"name": "W1, k = 6, fp16: at most 1.5 ms", "pass": row["median_ms"] <= 1.5},
        {"name": "and 10 times faster than the loop", "pass": row["speedup"] >= 10},
    ]
    for call in found["calls"]:
        if (call["backend"], call["precision"], call["pictures"]) == ("torch", "fp16", 100):
            name = "100 pictures x 6 by complete_batch: under 0.15 s"
            checks.append({"name": name, "pass": call["seconds"] < 0.15})
    return checks


def add_shares(result: Result, tflops: dict[str, dict[str, float]]) -> None:
    """Puts the share of the measured matmul peak of its precision into each row."""
    for row in result["rows"]:
        if row["outcome"] == "measured" and row["precision"] in tflops:
            reached = 2 * row["gmac"] / row["median_ms"]  # GFLOP a millisecond are TFLOP/s
            row["share_of_peak"] = reached / tflops[row["precision"]]["median"]


def table(result: Result) -> str:
    """Pipelines, the reference loop, parity, whole calls, and what was skipped."""
    head = ("precision", "batch", "k", "way", "ms (10th to 90th percentile)", "ms a picture")
    parts = [
        timing.markdown(
            (*head, "times the loop's speed", "share of peak", "GiB"),
            [_row(row) for row in result["rows"]],
        ),
        timing.markdown(
            ("reference loop, k", "precision", "ms (10th to 90th percentile)"),
            [(row["k"], row["precision"], _timing(row)) for row in result["loops"]],
        ),
        timing.markdown(
            ("against fp32 on the CPU", "levels, mean", "99.9th percentile"),
            [
                (one["name"], f"{one['mean_levels']:.3f}", f"{one['high_levels']:.0f}")
                for one in result["checks"]
                if "mean_levels" in one
            ],
        ),
        timing.markdown(
            (
                *("session.complete", "precision", "kernels", "k", "p50, p90, p99 in ms"),
                *("pictures", "s of complete_batch"),
            ),
            [
                (
                    *(one[name] for name in ("backend", "precision", "kernels", "k")),
                    ", ".join(f"{one[f'p{p}_ms']:.3g}" for p in (50, 90, 99)),
                    *(one["pictures"], f"{one['seconds']:.3g}"),
                )
                for one in result["calls"]
            ],
        ),
    ]
    return "\n\n".join((*parts, *(f"Skipped: {what}." for what in result["skipped"])))


def _timing(row: Result) -> timing.Timing:
    return timing.Timing(*(row[name] for name in timing.Timing._fields))


def _row(row: Result) -> tuple[Any, ...]:
    label = tuple(row[name] for name in ("precision", "batch", "k", "way"))
    memory = row.get("memory_gib")
    memory = None if memory is None else f"{memory:.1f}"
    if row["outcome"] != "measured":
        return (*label, row["outcome"], None, None, None, memory)
    speedup, share = row.get("speedup"), row.get("share_of_peak")
    return (
        *label,
        _timing(row),
        f"{row['ms_per_picture']:.3g}",
        None if speedup is None else f"{speedup:.1f}",
        None if share is None else f"{100 * share:.1f} %",
        memory,
    )

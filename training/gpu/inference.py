"""The part `inference`: W1 by the torch backend, by the reference loop, by what else is there.

The pipeline needs our kernels built for CUDA. Where nvcc is, they are built in a temporary folder
and used by a process of their own; else the networks alone are measured, by sessions.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from gpu import bits, module, own_process, pipelines, sessions, timing, w1
from gpu.attempts import attempt
from gpu.own_process import Found
from picme_rt import engine as engines

Result = dict[str, Any]
CATS = Path(__file__).parents[2] / "engines" / "cats128"
KINDS = ("rows", "loops", "calls", "skipped", "checks")


def measure(device: torch.device, tiny: bool) -> Result:
    """Everything, with the kernels where they can be had."""
    compiler = bits.compiler(device) if device.type == "cuda" else None
    checks: list[Result] = []
    found: list[Found] = []
    if compiler is not None:
        major, minor = torch.cuda.get_device_capability(device)
        with tempfile.TemporaryDirectory() as folder:
            checks.append(module.build(Path(folder), compiler[0], f"{major}{minor}-real"))
            if checks[0]["pass"]:
                ran, found = own_process.run(
                    "inference", device, tiny, Path(folder), check="the pipelines run"
                )
                checks.append(ran)
    if len(checks) < 2:  # by this process, with the picme_rt that it has
        with attempt("what there is without the kernels", checks):
            found.extend(use(device, tiny))  # what comes before an exception stays
    result: Result = own_process.sorted_out(found, KINDS)
    result["checks"] = [*checks, *result["checks"]]
    add_speedups(result)
    if device.type == "cuda" and "H200" in torch.cuda.get_device_name(device):
        result["targets"] = targets(result)
    return result


def use(device: torch.device, tiny: bool) -> Iterator[Found]:
    """Measures with the picme_rt that is imported; what takes long, or may not fit, comes last."""
    effort = timing.TINY if tiny else timing.Effort(seconds=0.3, least=10, warm_up=3)
    small = [(1, 1), (1, 2)] if tiny else [s for s in pipelines.SIZES if s not in pipelines.LARGE]
    with tempfile.TemporaryDirectory() as folder:
        paths = [CATS] if tiny else [w1.write(Path(folder) / "w1"), CATS]
        engine = engines.load(paths[0])
        has_kernels = sessions.has_kernels(device)
        if has_kernels:
            yield from attempted("rows", lambda: pipelines.rows(engine, device, effort, small))
        else:
            yield "skipped", "the pipeline: our kernels are not built for CUDA, no nvcc"
        if has_kernels and not tiny:
            other = engines.load(w1.write(Path(folder) / "rewritten", "rewritten"))
            yield from attempted("rows", lambda: pipelines.rewritten(other, device, effort))
        yield from attempted("loops", lambda: pipelines.loops(device, effort, tiny=tiny))
        for path in paths:
            yield from sessions.parity(path, device, 2 if tiny else sessions.K)
        yield from sessions.calls(paths[0], device, tiny=tiny)
        if has_kernels and not tiny:
            large = pipelines.LARGE
            yield from attempted("rows", lambda: pipelines.rows(engine, device, effort, large))


def attempted(kind: str, run: Callable[[], Iterator[Result]]) -> Iterator[Found]:
    """The rows of `run`; one that failed is a failed check too, and so is an exception."""
    checks: list[Result] = []
    with attempt(f"{kind} are measured", checks):
        for row in run():
            yield kind, row
            if row.get("outcome") == pipelines.FAILED:
                name = "W1 {precision}, batch {batch}, k = {k}, {way}".format(**row)
                checks.append({"name": name, "pass": False, "said": row["said"]})
    for check in checks:
        yield "checks", check


def add_speedups(found: Result) -> None:
    """How many times faster a row of batch 1 is than the loop, in the loop's fastest precision."""
    for row in found["rows"]:
        loops = [one["median_ms"] for one in found["loops"] if one["k"] == row["k"]]
        if row["outcome"] == "measured":
            row["ms_per_picture"] = row["median_ms"] / row["batch"]
            if loops and row["batch"] == 1:
                row["speedup"] = min(loops) / row["median_ms"]


def targets(found: Result) -> list[Result]:
    """What was aimed at for an H200: k = 6, fp16, one picture, by the best way. No checks."""
    wanted = {"precision": "fp16", "batch": 1, "k": 6, "outcome": "measured"}
    good = [
        row for row in found["rows"] if wanted.items() <= row.items() and row["way"] != "one by one"
    ]
    reached = []
    if good:
        row = min(good, key=lambda one: float(one["median_ms"]))
        reached.append(("W1, k = 6, fp16: at most 1.5 ms", row["median_ms"] <= 1.5))
        if "speedup" in row:
            reached.append(("and 10 times faster than the loop", row["speedup"] >= 10))
    for call in found["calls"]:
        if (call["backend"], call["precision"], call["pictures"]) == ("torch", "fp16", 100):
            name = "100 pictures x 6 by complete_batch: under 0.15 s"
            reached.append((name, call["seconds"] < 0.15))
    return [{"name": name, "reached": bool(there)} for name, there in reached]


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
    if result.get("targets"):
        aims = [(one["name"], "yes" if one["reached"] else "no") for one in result["targets"]]
        parts.append(timing.markdown(("target of an H200", "reached"), aims))
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

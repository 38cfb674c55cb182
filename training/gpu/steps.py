"""Training steps a second: the shipped loop's own step, on pictures of noise."""

import dataclasses
import gc
import math
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gpu import timing
from gpu.attempts import attempt
from picme_training import config as configuration
from picme_training.config import MaskConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.data import Batches
from picme_training.device import emulates_bf16
from picme_training.loop import Trainer
from picme_training.perceptual import Lpips

Result = dict[str, Any]
Precision = Literal["fp32", "bf16"]
CONFIGS = Path(__file__).parents[1] / "configs"
SHIPPED = {"cats": "cats128", "cats256_turn": "cats256_turn"}
"""Configurations of their own; `picme` has none."""
PICTURES = 256  # of noise, to draw batches from
BLOCK = 5  # steps in one timed block: a run never waits for the device after one


class Case(NamedTuple):
    """What is measured in one row; see `run_config` and `loop.train`."""

    preset: str
    size: int
    batch: int
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.preset} {self.size}{', compiled' * self.compiled}"


FULL = (
    *(
        Case(preset, size, batch)
        for preset, size in (("cats", 64), ("cats", 256), ("picme", 256))
        for batch in (16, 64)
    ),
    Case("cats256_turn", 256, 128),
    Case("cats256_turn", 256, 128, compiled=True),
)
TINY = (Case("cats", 64, 2), Case("picme", 64, 1))


def measure(device: torch.device, tiny: bool) -> Result:
    """Pictures a second by preset, size and batch."""
    effort = timing.TINY if tiny else timing.Effort(seconds=4.0, least=3, warm_up=1)
    rows: list[Result] = []
    checks: list[Result] = []
    precision: Precision = "fp32" if emulates_bf16(device) else "bf16"
    chosen = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # as a run on a GPU has it
    try:
        for case in TINY if tiny else FULL:
            with attempt(f"{case}, batch {case.batch}: steps", checks):
                rows.append(_measure_case(case, precision, device, effort))
    finally:
        torch.backends.cudnn.benchmark = chosen
    _count_compiled(rows)
    for row in rows:
        if row["outcome"] == "measured":
            name = f"{_name(row)}, batch {row['batch']}: losses are finite"
            checks.append({"name": name, "pass": row.pop("finite")})
    return {"precision": precision, "rows": rows, "checks": checks}


def _count_compiled(rows: list[Result]) -> None:
    """Gives compiled steps the multiply-adds of the same ones eager: theirs are not seen."""
    counted = {_name(row): row.get("gmac") for row in rows if not row["compiled"]}
    for row in rows:
        if row["compiled"]:
            row["gmac"] = counted.get(_name(row | {"compiled": False}))


def _name(row: Result) -> str:
    return str(Case(row["preset"], row["size"], row["batch"], row["compiled"]))


def run_config(preset: str, size: int, batch: int, precision: Precision) -> RunConfig:
    """Configurations as they are shipped, `cats` at any size; `picme` with the paper's losses.

    No brush strokes: a step takes as long with any hole.
    """
    if preset in SHIPPED:
        run = configuration.load(CONFIGS / f"{SHIPPED[preset]}.toml")
        network = dataclasses.replace(run.network, size=size)
    else:
        network = NetworkConfig(preset="picme", size=size)
        run = RunConfig(network, ScheduleConfig(steps=1))
    schedule = dataclasses.replace(run.schedule, steps=10**6, batch=batch, precision=precision)
    return dataclasses.replace(
        run, network=network, schedule=schedule, masks=MaskConfig(strokes=0.0)
    )


def _measure_case(
    case: Case, precision: Precision, device: torch.device, effort: timing.Effort
) -> Result:
    config = run_config(case.preset, case.size, case.batch, precision)
    row: Result = {**case._asdict(), "perceptual": config.loss.perceptual}
    try:
        measured = _measure_steps(config, device, effort, compiled=case.compiled)
        return row | {"outcome": "measured"} | measured
    except torch.OutOfMemoryError:
        return row | {"outcome": "out of memory"}
    finally:  # the next case starts with an empty card
        gc.collect()
        torch.cuda.empty_cache()  # does nothing without CUDA


def _measure_steps(
    config: RunConfig, device: torch.device, effort: timing.Effort, *, compiled: bool
) -> Result:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    lpips = Lpips().eval().requires_grad_(False) if config.loss.perceptual > 0 else None
    trainer = Trainer(config, device, lpips, compiled=compiled)
    drawn, prepared = _batches(config, device)
    gmac = None
    if compiled:
        trainer.train_step(*drawn[0])
    else:
        with FlopCounterMode(display=False) as counter:
            trainer.train_step(*drawn[0])
        gmac = counter.get_total_flops() / 2e9
    last: dict[str, Tensor] = {}
    calls = 1 if effort is timing.TINY else BLOCK

    def block() -> None:
        for _ in range(calls):
            last.update(trainer.train_step(*drawn[trainer.step % len(drawn)]))

    taken = timing.measure(block, device, effort, calls=calls)
    batch = config.schedule.batch
    return {
        **taken._asdict(),
        "pictures_per_second": 1e3 * batch / taken.median_ms,
        "seconds_per_million": 1e3 * taken.median_ms / batch,
        # the loop makes a batch between two steps; it hides behind the device's work at best
        "seconds_per_million_at_most": 1e3 * (taken.median_ms + min(prepared)) / batch,
        "batch_prepared_ms": min(prepared),
        "gmac": gmac,
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
        "finite": all(math.isfinite(float(value)) for value in last.values()),
    }


def _batches(
    config: RunConfig, device: torch.device
) -> tuple[list[tuple[Tensor, Tensor]], list[float]]:
    """Batches of noise where a run has them, pinned for a GPU; milliseconds to make each."""
    side = round(config.network.size / config.augment.zoom)
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (PICTURES, 3, side, side), dtype=torch.uint8, generator=random)
    batches, drawn, prepared = Batches(noise, config), [], []
    for step in range(4):
        began = time.perf_counter()
        image, hole = batches.batch(step)
        prepared.append(1e3 * (time.perf_counter() - began))
        pinned = device.type == "cuda"
        drawn.append((image.pin_memory(), hole.pin_memory()) if pinned else (image, hole))
    return drawn, prepared


def add_shares(result: Result, tflops: dict[str, dict[str, float]]) -> None:
    """Puts the share of the measured matmul peak into each row that was measured."""
    for row in result["rows"]:
        if row["outcome"] == "measured" and row["gmac"] is not None:
            reached = 2 * row["gmac"] / row["median_ms"]  # GFLOP a millisecond are TFLOP/s
            row["share_of_peak"] = reached / tflops[result["precision"]]["median"]


def table(result: Result) -> str:
    """One row a preset, size and batch."""
    rows = []
    for row in result["rows"]:
        name = (_name(row), row["batch"])
        if row["outcome"] != "measured":
            rows.append((*name, row["outcome"], *[None] * 6))
            continue
        taken = timing.Timing(*(row[field] for field in timing.Timing._fields))
        share, memory = row.get("share_of_peak"), row["memory_gib"]
        rows.append(
            (
                *name,
                taken,
                f"{row['pictures_per_second']:.4g}",
                f"{row['seconds_per_million']:.4g} to {row['seconds_per_million_at_most']:.4g}",
                f"{row['batch_prepared_ms']:.3g}",
                None if row["gmac"] is None else f"{row['gmac']:.4g}",
                None if share is None else f"{100 * share:.1f} %",
                None if memory is None else f"{memory:.1f}",
            )
        )
    head = ("network", "batch", "ms a step (10th to 90th percentile)", "pictures/s")
    more = ("s for 1e6 pictures", "ms to make the batch, on the CPU", "GMAC a step")
    return timing.markdown((*head, *more, "share of peak", "GiB"), rows)

"""Training steps a second: the shipped loop's own step, on pictures of noise."""

import dataclasses
import gc
import math
import time
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gpu import timing
from picme_training import config as configuration
from picme_training.config import MaskConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.data import Batches
from picme_training.device import emulates_bf16
from picme_training.loop import Trainer
from picme_training.perceptual import Lpips

Result = dict[str, Any]
Precision = Literal["fp32", "bf16"]
CATS = Path(__file__).parents[1] / "configs" / "cats128.toml"
PICTURES = 256  # of noise, to draw batches from
BLOCK = 5  # steps in one timed block: a run never waits for the device after one


def measure(device: torch.device, tiny: bool) -> Result:
    """Pictures a second by preset, size and batch."""
    effort = timing.TINY if tiny else timing.Effort(seconds=4.0, least=3, warm_up=1)
    cases = [("cats", 64, 2), ("picme", 64, 1)]
    if not tiny:
        cases = [
            (preset, size, batch)
            for preset, size in (("cats", 64), ("cats", 256), ("picme", 256))
            for batch in (16, 32, 64)
        ]
    rows, checks = [], []
    precision: Precision = "fp32" if emulates_bf16(device) else "bf16"
    for preset, size, batch in cases:
        row = _measure_case(run_config(preset, size, batch, precision), device, effort)
        rows.append(row)
        name = f"{preset} {size}, batch {batch}: losses are finite"
        if row["outcome"] == "measured":
            checks.append({"name": name, "pass": row.pop("finite")})
    return {"precision": precision, "rows": rows, "checks": checks}


def run_config(preset: str, size: int, batch: int, precision: Precision) -> RunConfig:
    """`cats` as its shipped configuration trains it, `picme` with the paper's losses.

    No brush strokes: a step takes as long with any hole.
    """
    if preset == "cats":
        run = configuration.load(CATS)
        network = dataclasses.replace(run.network, size=size)
    else:
        network = NetworkConfig(preset="picme", size=size)
        run = RunConfig(network, ScheduleConfig(steps=1))
    schedule = dataclasses.replace(run.schedule, steps=10**6, batch=batch, precision=precision)
    return dataclasses.replace(
        run, network=network, schedule=schedule, masks=MaskConfig(strokes=0.0)
    )


def _measure_case(config: RunConfig, device: torch.device, effort: timing.Effort) -> Result:
    network, batch = config.network, config.schedule.batch
    row: Result = {"preset": network.preset, "size": network.size, "batch": batch}
    row["perceptual"] = config.loss.perceptual
    try:
        return row | {"outcome": "measured"} | _measure_steps(config, device, effort)
    except torch.OutOfMemoryError:
        return row | {"outcome": "out of memory"}
    finally:  # the next case starts with an empty card
        gc.collect()
        torch.cuda.empty_cache()  # does nothing without CUDA


def _measure_steps(config: RunConfig, device: torch.device, effort: timing.Effort) -> Result:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    lpips = Lpips().eval().requires_grad_(False) if config.loss.perceptual > 0 else None
    trainer = Trainer(config, device, lpips)
    side = round(config.network.size / config.augment.zoom)
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (PICTURES, 3, side, side), dtype=torch.uint8, generator=random)
    batches, drawn, prepared = Batches(noise, config), [], []
    for step in range(4):
        began = time.perf_counter()
        drawn.append(batches.batch(step))
        prepared.append(1e3 * (time.perf_counter() - began))
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(*drawn[0])
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
        "gmac": counter.get_total_flops() / 2e9,
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
        "finite": all(math.isfinite(float(value)) for value in last.values()),
    }


def add_shares(result: Result, tflops: dict[str, dict[str, float]]) -> None:
    """Puts the share of the measured matmul peak into each row that was measured."""
    for row in result["rows"]:
        if row["outcome"] == "measured":
            reached = 2 * row["gmac"] / row["median_ms"]  # GFLOP a millisecond are TFLOP/s
            row["share_of_peak"] = reached / tflops[result["precision"]]["median"]


def table(result: Result) -> str:
    """One row a preset, size and batch."""
    rows = []
    for row in result["rows"]:
        name = (f"{row['preset']} {row['size']}", row["batch"])
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
                f"{row['gmac']:.4g}",
                None if share is None else f"{100 * share:.1f} %",
                None if memory is None else f"{memory:.1f}",
            )
        )
    head = ("network", "batch", "ms a step (10th to 90th percentile)", "pictures/s")
    more = ("s for 1e6 pictures", "ms to make the batch, on the CPU", "GMAC a step")
    return timing.markdown((*head, *more, "share of peak", "GiB"), rows)

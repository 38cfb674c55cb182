"""The part `training` measures what a run on a GPU does."""

import importlib
import pathlib

import pytest
import torch

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def steps(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "training")
    return importlib.import_module("gpu.steps")


def test_the_configuration_of_the_next_run_is_measured_eager_and_compiled(steps):
    turn = [case for case in steps.FULL if case.preset == "cats256_turn"]
    assert [(case.size, case.batch, case.compiled) for case in turn] == [
        (256, 128, False),
        (256, 128, True),
    ]
    config = steps.run_config(*turn[0][:3], "bf16")
    assert (config.network.size, config.schedule.batch) == (256, 128)
    assert config.network.detail
    assert config.network.push_pull
    assert config.schedule.clip > 0
    assert config.augment.turn > 0


def test_cudnn_searches_as_in_a_run_and_a_case_that_breaks_is_a_failed_check(steps, monkeypatch):
    seen = []

    def measured(case, precision, device, effort):
        seen.append(torch.backends.cudnn.benchmark)
        if case.preset == "picme":
            raise RuntimeError("no such kernel")
        row = {**case._asdict(), "outcome": "measured", "finite": True}
        return row | {"gmac": None if case.compiled else 3.0}

    monkeypatch.setattr(steps, "_measure_case", measured)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    found = steps.measure(CPU, False)
    assert seen == [True] * len(steps.FULL)
    assert torch.backends.cudnn.benchmark is False
    assert [check["pass"] for check in found["checks"]] == [False] * 2 + [True] * 6
    assert found["checks"][0]["said"] == "RuntimeError: no such kernel"
    eager, compiled = found["rows"][-2:]
    assert (eager["compiled"], compiled["compiled"]) == (False, True)
    assert eager["gmac"] == compiled["gmac"] == 3.0  # the compiled one's are not seen


def test_batches_for_a_gpu_are_pinned_as_the_loop_s_are(steps, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    config = steps.run_config("cats", 64, 2, "fp32")
    steps._batches(config, CPU)
    assert pinned == []
    drawn, prepared = steps._batches(config, CUDA)
    assert len(pinned) == 2 * len(drawn) == 2 * len(prepared) == 8


def test_a_compiled_row_is_named_so_and_may_have_no_count(steps):
    taken = {"median_ms": 2.0, "low_ms": 1.0, "high_ms": 3.0, "repeats": 10}
    speeds = ("pictures_per_second", "seconds_per_million", "seconds_per_million_at_most")
    row = steps.Case("cats256_turn", 256, 128, compiled=True)._asdict()
    row |= {"outcome": "measured", **taken, **dict.fromkeys(speeds, 1.0), "gmac": None}
    result = {"precision": "bf16", "rows": [{**row, "batch_prepared_ms": 1.0, "memory_gib": 2.0}]}
    steps.add_shares(result, {"bf16": {"median": 1.0}})
    drawn = steps.table(result).splitlines()[-1]
    assert drawn.startswith("| cats256_turn 256, compiled | 128 | 2 (1 to 3) |")
    assert drawn.endswith("| - | - | 2.0 |")

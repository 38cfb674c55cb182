"""One step of training against the straightforward loop: the same losses, written as they are read.

The straightforward one runs in float32 and torch's plain memory layout, encodes I_m and I_c apart,
decodes each z_c by its own call, and shows D each batch of pictures by its own. The other one runs
in bf16 where the CPU computes in it. The losses of both are compared; `make bench` times them.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from training_steps import batch, precision, stepping, straightforward, trainer_of

RUNS = ["picme64", "cats64", "cats128"]
BATCH, FEW = 16, 3  # pictures that are timed; as a test a few do


@pytest.mark.parametrize("run", RUNS)
def test_both_compute_the_same_losses(run: str) -> None:
    ours, plain = trainer_of(run, "fp32"), trainer_of(run, "fp32")
    for trainer in (ours, plain):  # power iteration runs once a call: take norms as they are
        for module in (*trainer.model.modules(), *trainer.judge.modules()):
            if hasattr(module, "n_power_iterations"):
                module.n_power_iterations = 0
    image, hole = batch(3, ours.config.network.size)
    found, expected = ours.train_step(image, hole), straightforward(plain, image, hole)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.benchmark(group="training step")
def test_a_step_as_it_is_trained(benchmark: BenchmarkFixture, run: str) -> None:
    benchmark.extra_info["precision"] = precision()
    time_steps(benchmark, "ours", run)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.benchmark(group="training step")
def test_a_step_of_the_straightforward_loop(benchmark: BenchmarkFixture, run: str) -> None:
    time_steps(benchmark, "straightforward", run)


def time_steps(benchmark: BenchmarkFixture, which: str, run: str) -> None:
    count = BATCH if benchmark.enabled else FEW
    benchmark.extra_info["pictures"] = count
    with stepping(which, run, count) as step:
        benchmark.pedantic(step, rounds=7, warmup_rounds=1)

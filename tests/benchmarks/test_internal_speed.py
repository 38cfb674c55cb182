"""An iteration of a fine scale against its convolutions alone, in turn, in one run.

The convolutions are those that the iteration itself runs: forward, backward and once more for the
penalty, of the same shapes. `make bench` times 64 x 96 with 32 channels; as a test it is tiny.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.nn import functional as F

from picme_training.internal import pages, presets
from picme_training.internal.plan import Plan
from picme_training.internal.pyramid import Level
from picme_training.internal.scale import Scale
from picme_training.internal.stack import REACH, Stack, weight_gradient


def scale_of(timed: bool) -> Scale:
    if timed:  # as the verb does it; a test leaves the process as it is
        pages.keep()
    height, width = (64, 96) if timed else (30, 40)
    hole = np.zeros((height, width), bool)
    hole[height // 3 : height // 2, width // 3 : width // 2] = True
    random = torch.Generator().manual_seed(0)
    known = torch.rand(3, height, width, generator=random) * torch.from_numpy(~hole)
    preset = dataclasses.replace(presets.find("paper"), width=32 if timed else 4, steps=1)
    plan = Plan(0, 1, True, Level(known.numpy(), hole), None, known[None])
    return Scale(plan, [], None, preset, 1, torch.device("cpu"))


def convolutions(scale: Scale) -> Callable[[], int]:
    """Runs all of an iteration's convolutions and nothing else; gives their number."""
    height, width = scale.plan.level.hole.shape
    large = height + 2 * REACH, width + 2 * REACH

    def maps(stack: Stack, batch: int, size: tuple[int, int]) -> list[torch.Tensor]:
        channels = [3, *[stack.width] * 4, stack.outputs]
        return [
            torch.randn(batch, c, size[0] - 2 * i, size[1] - 2 * i).contiguous(
                memory_format=torch.channels_last
            )
            for i, c in enumerate(channels)
        ]

    of_d = [maps(scale.discriminator, batch, (height, width)) for batch in (3, 1)]
    of_g = maps(scale.generator, 2, large)

    def forward(x: list[torch.Tensor], stack: Stack, last: int = 5) -> int:
        pairs = zip(x[:last], stack.weights, strict=False)
        return len([F.conv2d(a, w) for a, w in pairs])

    def data(x: list[torch.Tensor], stack: Stack, first: int, last: int = 5) -> int:
        pairs = list(zip(x[1:], stack.weights, strict=True))[first:last]
        return len([F.conv_transpose2d(a, w) for a, w in pairs])

    def weights(x: list[torch.Tensor], stack: Stack) -> int:
        pairs = zip(x, x[1:], stack.weights, strict=False)
        return len([weight_gradient(a, w, b) for a, b, w in pairs])

    def all_of_them() -> int:
        d, g = scale.discriminator, scale.generator
        count = (
            forward(of_g, g) + forward(of_d[0], d) + data(of_d[0], d, 1) + data(of_d[1], d, 0, 4)
        )
        count += weights(of_d[0], d) + weights(of_d[1], d) + forward(of_d[1], d, 4)
        count += forward(of_d[1], d) + data(of_d[1], d, 0)  # the score of the fake, for G
        return count + data(of_g, g, 1) + weights(of_g, g)

    return all_of_them


@pytest.mark.benchmark(group="internal iteration")
def test_an_iteration(benchmark: BenchmarkFixture, is_timed: bool) -> None:
    with torch.no_grad():
        scale = scale_of(is_timed)
        terms = benchmark.pedantic(scale.iterate, (0,), rounds=30, warmup_rounds=2)
    assert torch.isfinite(terms).all()


@pytest.mark.benchmark(group="internal iteration")
def test_its_convolutions_alone(benchmark: BenchmarkFixture, is_timed: bool) -> None:
    with torch.no_grad():
        run = convolutions(scale_of(is_timed))
        assert benchmark.pedantic(run, rounds=30, warmup_rounds=2) == 51

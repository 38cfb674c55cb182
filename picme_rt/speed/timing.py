"""Calls timed in turn: on a machine that is never quite idle, only times of one turn compare."""

import dataclasses
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Times:
    """Milliseconds that a call took.

    Attributes:
        minimum: The least.
        low: Of a hundred calls five took less.
        median: Half of them took less.
        high: Of a hundred calls five took more.
    """

    minimum: float
    low: float
    median: float
    high: float


def in_turn(
    calls: Mapping[Name, Callable[[], object]],
    rounds: int,
    *,
    progress: Callable[[range], Iterable[int]] = iter,
) -> dict[Name, Times]:
    """Runs every call once, which warms up, then all of them in turn.

    Args:
        calls: By name.
        rounds: Turns, at least 1.
        progress: Wraps the turns, such as a progress bar.
    """
    for call in calls.values():
        call()
    taken = np.zeros((rounds, len(calls)))
    for turn in progress(range(rounds)):
        for place, call in enumerate(calls.values()):
            began = time.perf_counter()
            call()
            taken[turn, place] = 1e3 * (time.perf_counter() - began)
    found = np.percentile(taken, (0, 5, 50, 95), axis=0).T.tolist()
    return {name: Times(*row) for name, row in zip(calls, found, strict=True)}

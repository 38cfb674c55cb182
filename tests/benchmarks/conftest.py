"""The networks of the latency suite and the machine's peaks; tiny ones where nothing is timed."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from contestants import SHIPPED, Network, random_network

import picme_rt
from picme_rt import choices
from picme_rt.speed import peaks
from picme_training.networks import fold

Name = Literal["picme", "cats", "cats128"]


@pytest.fixture(scope="session")
def is_timed(request: pytest.FixtureRequest) -> bool:
    """Whether this run times: `make bench`. Else each case runs once, as a test."""
    return bool(request.config.getoption("benchmark_enable"))


@pytest.fixture(scope="module", autouse=True)
def one_thread_where_nothing_is_timed(is_timed: bool) -> Iterator[None]:
    """torch's threads wait for each other by spinning, for seconds on a machine that is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if is_timed else 1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def machine(is_timed: bool) -> dict[str, Any]:
    """This machine's peaks, measured in this run, as `extra_info` has them."""
    return dataclasses.asdict(peaks.measure(seconds=2.0 if is_timed else 0.0))


@pytest.fixture(scope="session")
def product(is_timed: bool) -> Callable[[], float]:
    """The yardstick of what has no other: 1.2 or 4.8 GFLOP of float32 convolutions."""
    return peaks.product("fp32", 32 if is_timed else 16, choices.cores())


@pytest.fixture(scope="session")
def network(
    is_timed: bool, exported: Any, tiny_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Network]:
    """Give a name, get a network: presets `picme` and `cats` at 256 with random weights, `cats128`.

    cats128 is the shipped engine; its checkpoint is not here, so torch has random weights. Where
    nothing is timed the presets are of 64x64.
    """

    @functools.cache
    def make(name: Name) -> Network:
        if name == "cats128":
            return Network(SHIPPED, fold(random_network("cats", 128)), random_network("cats", 128))
        if not is_timed:
            done = exported(name)
            return Network(done.path, done.model, tiny_model(name))
        from picme_export import export

        model, path = random_network(name, 256), tmp_path_factory.mktemp("engines") / name
        export.write(model, path, name=f"{name}256")  # folds it
        return Network(path, model, random_network(name, 256))

    return make


@pytest.fixture(scope="session")
def opened() -> Iterator[Callable[[Path, str, str], picme_rt.Session]]:
    """Give an engine, a backend and a precision, get a session; each is opened once."""
    sessions: dict[tuple[Path, str, str], picme_rt.Session] = {}

    def open_once(engine: Path, backend: str, precision: str) -> picme_rt.Session:
        key = engine, backend, precision
        if key not in sessions:
            sessions[key] = picme_rt.Session(engine, backend=backend, precision=precision)
        return sessions[key]

    yield open_once
    for session in sessions.values():
        session.close()

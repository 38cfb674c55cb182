"""`picme bench ENGINE`: how long each backend takes on this machine; --tune lets `auto` know."""

import argparse
import collections
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from picme_rt import backends, choices, engine, tuning
from picme_rt.errors import InputError, UnavailableError
from picme_rt.session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("engine", type=Path, metavar="ENGINE", help="the engine's directory")
    parser.add_argument(
        "--tune", action="store_true",
        help="first measure backends, threads and micro-batches, and keep what is fastest for "
        "`auto` on this machine",
    )  # fmt: skip
    parser.add_argument(
        "--lower", action="store_true",
        help="with --tune: `auto` may be bf16 or int8 on this machine, where the engine says that "
        "its pictures cannot be told from those of fp32 (default: fp32 alone)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, default=10, help="calls of each kind, at least 1 (default: 10)"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Prints medians in milliseconds: a row for `auto` and one for each backend and precision."""
    from tqdm import tqdm

    if arguments.rounds < 1:
        raise InputError(f"--rounds must be at least 1, got {arguments.rounds}")
    if arguments.lower and not arguments.tune:
        raise InputError("--lower must go with --tune, got it alone")
    loaded = engine.load(arguments.engine)
    report: dict[str, Any] = {}
    if arguments.tune:
        measured = tuning.tune(
            loaded, lower=arguments.lower, progress=lambda pairs: tqdm(pairs, disable=None)
        )
        report["choices"] = str(choices.write(loaded, backends.BACKENDS, measured))
    asked = [("auto", "auto")]
    asked += [(b, p) for b in backends.installed() for p in backends.offered(loaded, b)]
    rows = report["rows"] = _measure(arguments.engine, asked, arguments.rounds)
    if arguments.json:
        print(json.dumps(report, indent=1))
        return
    print(f"{loaded.name}, {loaded.size} x {loaded.size}, hole in the middle; medians in ms")
    for cells in (tuple(rows[0]), *(tuple(row.values()) for row in rows)):
        texts = [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells]
        print("  ".join(f"{text:>11}" for text in texts))
    if arguments.tune:
        print(f"choices of auto: {report['choices']}")


def _measure(path: Path, asked: list[tuple[str, str]], rounds: int) -> list[dict[str, Any]]:
    """A row for each backend and precision; all are timed in turn."""
    sessions = []
    for backend, precision in asked:
        with contextlib.suppress(UnavailableError):  # a precision that this CPU lacks has no row
            sessions.append(Session(path, backend=backend, precision=precision))
    size = sessions[0].info.size
    img = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    hole = np.zeros((size, size), bool)
    hole[size // 4 : size - size // 4, size // 4 : size - size // 4] = True
    stages: dict[str, Callable[[Session], object]] = {
        "encode": lambda session: session.encode(img, hole),
        "k = 1": lambda session: session.complete(img, hole, k=1),
        "k = 6": lambda session: session.complete(img, hole, k=6),
    }
    times: dict[tuple[int, str], list[float]] = collections.defaultdict(list)
    for turn in range(1 + rounds):
        for place, session in enumerate(sessions):
            for name, call in stages.items():
                began = time.perf_counter()
                call(session)
                if turn > 0:  # the first one warms up
                    times[place, name].append(1e3 * (time.perf_counter() - began))
    rows = []
    for place, session in enumerate(sessions):
        info = session.info
        row = {
            "chosen by": info.chosen_by,
            "backend": info.backend,
            "precision": info.precision,
            "threads": info.threads,
            "micro-batch": info.micro_batch,
        }
        rows.append(row | {name: statistics.median(times[place, name]) for name in stages})
        session.close()
    return rows

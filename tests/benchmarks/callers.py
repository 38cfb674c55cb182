"""Why eight callers may be slower than one: five ways to share the cores, in turns of one run.

    python tests/benchmarks/callers.py [--backend openvino] [--precision fp32] [--turns 15]

For an idle machine. `as it is`: all threads for a lone call, one each for calls that meet. `all
threads`: a thread for each core, whoever else runs. `no door`: that, and all calls at once in the
session, as before it had a door. `one at a time`: that, and no paste beside another caller's run,
whose threads would wait for the core that it is on. `one thread`: `Session(threads=1)`.
Calls of six completions a second by one caller and by eight, medians, and CPU milliseconds a call,
the least: what threads burn while they wait, and what is in no cache, counts there.
"""

import argparse
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

import picme_rt
from picme_rt import backends, choices
from picme_rt.backends import Backend
from picme_rt.choices import Settings
from picme_rt.encoded import Encoded
from picme_rt.engine import Engine
from picme_rt.turns import Turns

ENGINE = Path(__file__).parents[2] / "engines" / "cats128"
WAYS = ("as it is", "all threads", "no door", "one at a time", "one thread")
CALLERS = (1, 8)


@contextlib.contextmanager
def opened(way: str, backend: str, precision: str) -> Iterator[picme_rt.Session]:
    """A session that shares the cores in one of `WAYS`."""
    one, paste, real = Turns(1), Encoded._paste_part, backends.load

    def load(engine: Engine, settings: Settings, turns: Turns, calls: Turns | None) -> Backend:
        return real(engine, settings, one, calls)

    def in_turn(*given: object) -> None:
        with one:
            paste(*given)  # type: ignore[arg-type]  # as they come

    threads = {"as it is": None, "one thread": 1}.get(way, choices.cores())
    with contextlib.ExitStack() as stack:
        if way == "one at a time":
            stack.enter_context(mock.patch("picme_rt.models.backends.load", load))
            stack.enter_context(mock.patch.object(Encoded, "_paste_part", in_turn))
        session = picme_rt.Session(ENGINE, backend=backend, precision=precision, threads=threads)
        if way == "no door":
            session._calls = Turns(max(CALLERS))
        yield stack.enter_context(session)


def measure(
    backend: str, precision: str, *, turns: int, calls: int = 24
) -> dict[str, dict[int, tuple[float, float]]]:
    """For each way and number of callers: calls a second, CPU milliseconds a call."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    hole = np.zeros((256, 256), bool)
    hole[64:192, 64:192] = True

    def ask(session: picme_rt.Session, each: int, callers: int, k: int) -> None:
        def work() -> None:
            for _ in range(each):
                session.complete(image, hole, k=k)

        crew = [threading.Thread(target=work) for _ in range(callers)]
        for caller in crew:
            caller.start()
        for caller in crew:
            caller.join()

    taken: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(turns):
        for way in WAYS:
            with opened(way, backend, precision) as session:
                for callers in CALLERS:
                    ask(session, 1, callers, 1)  # warms up: the first calls that meet compile
                    each = max(1, calls // callers)
                    began, used = time.perf_counter(), time.process_time()
                    ask(session, each, callers, 6)
                    wall, cpu = time.perf_counter() - began, time.process_time() - used
                    done = callers * each
                    taken.setdefault((way, callers), []).append((done / wall, 1e3 * cpu / done))
    found: dict[str, dict[int, tuple[float, float]]] = {way: {} for way in WAYS}
    for (way, callers), each in taken.items():
        rates, cpus = zip(*each, strict=True)
        found[way][callers] = float(np.median(rates)), min(cpus)
    return found


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    found = measure(arguments.backend, arguments.precision, turns=arguments.turns)
    print("| way | 1 caller: calls/s, CPU ms a call | 8 callers |\n|---|---|---|")
    for way, by in found.items():
        cells = (f"{by[callers][0]:.1f}, {by[callers][1]:.1f}" for callers in CALLERS)
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

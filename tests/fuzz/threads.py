"""Threads that share one session: every result is the one that a lone caller gets.

    python tests/fuzz/threads.py engines/cats128 --seconds 60 --threads 8

Each thread asks at random: whole calls, streams that are left half way, batches, and wrong calls.
"""

import argparse
import itertools
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import picme_rt

REQUESTS = 12


def requests(count: int = REQUESTS) -> list[tuple[np.ndarray, np.ndarray, dict[str, int]]]:
    """Pictures of several sizes with holes, and options."""
    rng = np.random.default_rng(5)
    found = []
    for i in range(count):
        height, width = rng.integers(20, 120, 2)
        hole = np.zeros((height, width), bool)
        hole[height // 4 : height // 2 + 1, width // 4 : width // 2 + 1] = True
        img = rng.integers(0, 256, (height, width, 3), np.uint8)
        found.append((img, hole, {"k": 1 + i % 3, "seed": i}))
    return found


def load(
    session: picme_rt.Session, threads: int, more: Callable[[int], bool]
) -> tuple[Counter[str], list[str]]:
    """Asks from several threads until `more(calls so far of this thread)` is false.

    Returns:
        Calls by kind, and the findings: wrong, lost or mixed results, and unexpected errors.
    """
    asked = requests()
    alone = [session.complete(img, hole, **options) for img, hole, options in asked]
    counts: list[Counter[str]] = [Counter() for _ in range(threads)]
    findings: list[str] = []

    def work(number: int) -> None:
        rng = np.random.default_rng([number])
        try:
            for call in itertools.count():
                if not more(call):
                    return
                kind = str(rng.choice(["complete", "stream", "left", "batch", "wrong"]))
                one(kind, [int(i) for i in rng.integers(len(asked), size=2)])
                counts[number][kind] += 1
        except BaseException as exc:  # a thread's error would be lost
            findings.append(f"thread {number}: {exc!r}")

    def one(kind: str, which: list[int]) -> None:
        img, hole, options = asked[which[0]]
        expected = alone[which[0]]
        if kind == "complete":
            same(session.complete(img, hole, **options), expected)
        elif kind == "stream":
            found = list(session.stream(img, hole, **options))
            assert [f.index for f in found] == expected.indices.tolist()
            assert (np.stack([f.image for f in found]) == expected.images).all()
        elif kind == "left":
            first = next(session.stream(img, hole, **options))
            assert (first.image == expected.images[0]).all()
        elif kind == "batch":
            pictures, holes, each = zip(*(asked[i] for i in which), strict=True)
            seeds = [o["seed"] for o in each]
            batch = session.complete_batch(pictures, holes, k=1, seed=seeds)
            for i, done in zip(which, batch, strict=True):
                assert (done.images[0] == alone[i].images[0]).all()
        else:
            try:
                session.complete(img, hole[1:], **options)
            except picme_rt.InputError:
                return
            raise AssertionError("a wrong mask passed")

    def same(found: picme_rt.Completions, expected: picme_rt.Completions) -> None:
        for got, wanted in zip(found, expected, strict=True):
            assert got is not None
            assert np.array_equal(got, wanted)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts, Counter()), findings


def main() -> int:
    """Loads one engine for a while and prints what was seen; 1 on any finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--threads", type=int, default=8, help="(default: 8)")
    parser.add_argument("--seconds", type=float, default=60, help="(default: 60)")
    parser.add_argument("--backend", default="auto", help="(default: auto)")
    arguments = parser.parse_args()
    with picme_rt.Session(arguments.engine, backend=arguments.backend) as session:
        end = time.monotonic() + arguments.seconds
        counts, findings = load(session, arguments.threads, lambda _: time.monotonic() < end)
    print(json.dumps({"threads": arguments.threads, "calls": counts, "findings": findings}))
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())

"""Compares two runs of the latency suite: `make bench-compare BASE=a.json NEW=b.json`.

Machines differ and are seldom idle, so times are not compared: each case's ratio to what ran right
before it is (pairs.py). A case without one is compared by its time and the machine's fp32 peak of
the same run. It has become slower if both its minimum and its median say so by more than 15 %: what
disturbs a run moves the median or, far less often, the minimum; a slower program moves both.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

LIMIT = 1.15


class Case(NamedTuple):
    """How long a case took, in units of its own run.

    Attributes:
        yardstick: The unit.
        minimum: Of the runs.
        median: Of the runs.
    """

    yardstick: str
    minimum: float
    median: float


class Change(NamedTuple):
    """How much longer a case takes than it did: 1 is as long."""

    name: str
    minimum: float
    median: float

    @property
    def factor(self) -> float:
        """What both say at least."""
        return min(self.minimum, self.median)


def read(path: Path) -> dict[str, Case]:
    """The cases of a file that `--benchmark-json` wrote, by name.

    Raises:
        SystemExit: It is no such file, or the suite did not measure the machine's peak.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
        peaks = [e["extra_info"]["peaks"] for e in entries if "peaks" in e["extra_info"]]
        peak = peaks[0]["operations"]["fp32"]
        return {entry["fullname"]: _case(entry, peak) for entry in entries}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as exc:
        sys.exit(
            f"{path} is no run of the latency suite ({type(exc).__name__}: {exc}); "
            "`make bench` writes one"
        )


def _case(entry: dict[str, Any], peak: float) -> Case:
    about, stats = entry["extra_info"], entry["stats"]
    if "yardstick" in about:
        return Case(about["yardstick"], about["of_yardstick"], about["of_yardstick_quartiles"][1])
    return Case("fp32 peak", stats["min"] * peak, stats["median"] * peak)


def changes(base: dict[str, Case], new: dict[str, Case]) -> list[Change]:
    """What is in both runs, the slowest change first.

    Raises:
        SystemExit: A case of the base is missing in the new run, or has another yardstick there.
    """
    for name, case in base.items():
        if name not in new:
            sys.exit(f"{name} is not in the new run: whether it became slower cannot be said")
        if new[name].yardstick != case.yardstick:
            sys.exit(
                f"{name} must be compared with {case.yardstick}, got {new[name].yardstick}; "
                "measure both runs with one version of the suite"
            )
    found = [
        Change(name, new[name].minimum / case.minimum, new[name].median / case.median)
        for name, case in base.items()
    ]
    return sorted(found, key=lambda change: -change.factor)


def main(argv: list[str] | None = None) -> int:
    """Prints every case that changed by more than 15 %; gives 1 if one became slower."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("base", type=Path, help="JSON of the run that was")
    parser.add_argument("new", type=Path, help="JSON of the run that is")
    arguments = parser.parse_args(argv)
    base, new = read(arguments.base), read(arguments.new)
    found = changes(base, new)
    slower = [change for change in found if change.factor > LIMIT]
    faster = [change for change in found if max(change.minimum, change.median) < 1 / LIMIT]
    for what, some in (("slower", slower), ("faster", faster)):
        for change in some:
            print(f"{what}: {change.name}: x {change.median:.2f} (minimum x {change.minimum:.2f})")
    for name in sorted(set(new) - set(base)):
        print(f"new: {name}")
    print(
        f"{len(found)} cases compared: {len(slower)} slower and {len(faster)} faster by more than "
        f"{100 * LIMIT - 100:.0f} %"
    )
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())

"""Prints a run of the latency suite as the Markdown tables of docs/benchmarks.md."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
STAGES = ("pre", "encode", "sample", "decode", "composite")


def main(argv: list[str]) -> int:
    """Prints the tables of the file that is named."""
    (name,) = argv
    print("\n".join(markdown(json.loads(Path(name).read_text(encoding="utf-8")))))
    return 0


def markdown(run: dict[str, Any]) -> Iterator[str]:
    """Lines of Markdown.

    Args:
        run: What `--benchmark-json` wrote of the latency suite.
    """
    entries = [entry for entry in run["benchmarks"] if "case" in entry["extra_info"]]
    yield from _machine(run, entries[0]["extra_info"]["peaks"])
    yield from _six(entries)
    yield from _calls(entries)
    yield from _stages(entries)
    yield from _peak(entries)
    yield from _first(entries)


def _machine(run: dict[str, Any], peaks: dict[str, Any]) -> Iterator[str]:
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in peaks["operations"].items())
    cpu = run["machine_info"]["cpu"]
    yield (
        f"{cpu.get('brand_raw', 'a CPU')}, {peaks['threads']} cores; at its best {rates} GOP/s, "
        f"a copy {peaks['copy']:.1f} GB/s."
    )


def _six(entries: list[Entry]) -> Iterator[str]:
    yield from ("", "### Six completions", "")
    yield "| network | case | ms: median (quartiles), minimum | reference loop / case |"
    yield "|---|---|---|---|"
    for entry in entries:
        what, network = _group(entry)
        if what == "six completions":
            about = entry["extra_info"]
            low, median, high = (1 / ratio for ratio in about["of_yardstick_quartiles"][::-1])
            times = f"{median:.2f} ({low:.2f} to {high:.2f})"
            yield f"| {network} | {about['case']} | {_spread(entry)} | {times} |"


def _calls(entries: list[Entry]) -> Iterator[str]:
    columns = [
        *("k = 1", "six completions", "k = 50", "eight pictures a call"),
        *(f"pictures of {side} x {side}" for side in (256, 512, 1024)),
    ]
    yield from ("", "### Whole calls, ms (median)", "")
    yield from _pivot(entries, columns, only="picme_rt")


def _stages(entries: list[Entry]) -> Iterator[str]:
    yield from ("", "### Stages of six completions, ms (median)", "")
    yield from _pivot(entries, [f"stage {stage}" for stage in STAGES], only="picme_rt")


def _peak(entries: list[Entry]) -> Iterator[str]:
    yield from ("", "### A decode of the whole square", "")
    yield "| network | case | GMAC | GOP/s | of the precision's peak |"
    yield "|---|---|---|---|---|"
    for entry in entries:
        about = entry["extra_info"]
        if "share_of_peak" in about:
            yield (
                f"| {about['network']} | {about['case']} | {about['gmac']:.3g} "
                f"| {about['gops']:.0f} | {100 * about['share_of_peak']:.0f} % |"
            )


def _first(entries: list[Entry]) -> Iterator[str]:
    yield from ("", "### First result of cats128 in a fresh process, ms, and most memory", "")
    yield "| case | python | import | load | first | total | memory, MB |"
    yield "|---|---|---|---|---|---|---|"
    for entry in entries:
        found = entry["extra_info"].get("first_result")
        if found is not None:
            names = ("python", "imports", "load", "first", "total")
            times = " | ".join(f"{found[name]:.0f}" for name in names)
            memory = f"{found['peak_bytes'] / 1e6:.0f}" if found["peak_bytes"] else "not known"
            yield f"| {entry['extra_info']['case']} | {times} | {memory} |"


def _pivot(entries: list[Entry], columns: list[str], *, only: str) -> Iterator[str]:
    """A row for each network and case, a column for each group; medians in milliseconds."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for entry in entries:
        what, network = _group(entry)
        case = entry["extra_info"]["case"]
        if what in columns and case.startswith(only):
            cells = rows.setdefault((network, case), {})
            cells[what] = f"{1e3 * entry['stats']['median']:.3g}"
    yield f"| network | case | {' | '.join(columns)} |"
    yield "|---" * (2 + len(columns)) + "|"
    for (network, case), cells in rows.items():
        yield f"| {network} | {case} | {' | '.join(cells.get(c, '') for c in columns)} |"


def _group(entry: Entry) -> tuple[str, str]:
    """What a case measures, and of which network."""
    what, _, network = (entry["group"] or "").rpartition(", ")
    return what, network


def _spread(entry: Entry) -> str:
    stats = entry["stats"]
    median, low, high, least = (1e3 * stats[name] for name in ("median", "q1", "q3", "min"))
    return f"{median:.3g} ({low:.3g} to {high:.3g}), {least:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

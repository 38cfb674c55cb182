"""A report as text: what ran, the calls, their stages, the first result, the machine."""

from collections.abc import Sequence

from picme_rt.speed.report import KS, STAGE_K, Report, Row
from picme_rt.speed.stages import STAGES


def text(report: Report) -> str:
    """A report as tables in plain text; milliseconds unless a column says otherwise."""
    rows = report.rows
    names = [_name(row) for row in rows]
    most = f"k = {KS[-1]}"
    parts = [
        f"{report.name}, {report.size} x {report.size}, hole in the middle; {report.cpu}, "
        f"{report.cores} cores; {report.rounds} rounds in turn",
        "",
        f"a call, ms: median (5 % to 95 %); results a second with {most}",
        *aligned(
            ["", "threads", "micro-batch", *(f"k = {k}" for k in KS), "results/s"],
            [[name, str(row.threads), str(row.micro_batch), *_calls(row)]
             for name, row in zip(names, rows, strict=True)],
        ),
        "",
        f"its stages with k = {STAGE_K}, ms: median; a decode of the whole square beside the peak",
        *aligned(
            ["", *STAGES, "GMAC", "GOP/s", "of peak"],
            [[name, *(f"{row.stages[stage].median:.3g}" for stage in STAGES), *_share(row)]
             for name, row in zip(names, rows, strict=True)],
        ),
        "",
        "the first result of a fresh process, ms: the fastest of three; most memory",
        *aligned(
            ["", "python", "import", "load", "first", "total", "memory"],
            [[name, *_cold(row)] for name, row in zip(names, rows, strict=True)],
        ),
        "",
        _machine(report),
    ]  # fmt: skip
    return "\n".join(parts)


def _name(row: Row) -> str:
    chosen = "" if row.chosen_by == "asked" else f" (auto, {row.chosen_by})"
    return f"{row.backend} {row.precision}{chosen}"


def _calls(row: Row) -> list[str]:
    found = [f"{t.median:.1f} ({t.low:.1f} to {t.high:.1f})" for t in row.calls.values()]
    return [*found, f"{1e3 * KS[-1] / row.calls[KS[-1]].median:.1f}"]


def _share(row: Row) -> list[str]:
    share = "not known" if row.share is None else f"{100 * row.share:.0f} %"
    return [f"{row.gmac:.3g}", f"{row.gops:.0f}", share]


def _cold(row: Row) -> list[str]:
    cold, peak = row.cold, row.cold.peak_bytes
    times = (cold.python, cold.imports, cold.load, cold.first, cold.total)
    memory = "not known" if peak is None else f"{peak / 1e6:.0f} MB"
    return [*(f"{milliseconds:.0f}" for milliseconds in times), memory]


def _machine(report: Report) -> str:
    if report.peaks is None:
        return "the machine's peak is measured with OpenVINO: pip install 'picme_rt[openvino]'"
    reached = ", ".join(f"{name} {rate:.0f}" for name, rate in report.peaks.operations.items())
    return (
        f"this machine at its best, {report.peaks.threads} threads: {reached} GOP/s; "
        f"a copy {report.peaks.copy:.1f} GB/s"
    )


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, the first to the left and the others to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for cells in zip(*columns, strict=True):
        first, *others = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return lines

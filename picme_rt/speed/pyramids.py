"""What `picme bench` measures of an engine of kind `idc`: calls and their stages, and the table.

The picture is noise with the engine's own hole: the engine knows its picture, the bench does not.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from picme_rt import backends, choices, graph_shapes, pyramid, pyramid_frame
from picme_rt.backends import pyramids
from picme_rt.encoded import Request
from picme_rt.errors import MissingPackageError
from picme_rt.pyramid import Pyramid
from picme_rt.pyramid_encoded import PyramidEncoded
from picme_rt.speed import peaks, timing
from picme_rt.speed.report import asked_for, opened
from picme_rt.speed.table import aligned
from picme_rt.speed.timing import Times
from picme_rt.turns import Turns

STAGES = ("encode", "noise", "graph", "paste")
KS = (1, 6)
Progress = Callable[[Sequence[int]], Iterable[int]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One backend in one precision.

    Attributes:
        backend: What runs the graph.
        precision: What it is computed in.
        threads: Threads that it computes with.
        calls: k -> encoding the picture and k results, in milliseconds.
        stages: Stage -> milliseconds; all but `encode` of one result.
        gops: 1e9 operations a second that the graph reaches, two a multiply-add.
        share: `gops` of the machine's peak in this precision; None where that is not known.
    """

    backend: str
    precision: str
    threads: int
    calls: dict[int, Times]
    stages: dict[str, Times]
    gops: float
    share: float | None


@dataclasses.dataclass(frozen=True)
class Report:
    """What was measured in one run.

    Attributes:
        name: The engine's.
        picture: (H, W) of its picture.
        trained: (h, w) of its finest scale.
        hole: Pixels of its hole.
        gmac: 1e9 multiply-adds of the graph.
        rounds: Turns that every time was taken in.
        rows: A backend and precision each.
    """

    name: str
    picture: tuple[int, int]
    trained: tuple[int, int]
    hole: int
    gmac: float
    rounds: int
    rows: list[Row]


def measure(
    path: Path,
    *,
    rounds: int,
    backend: str | None = None,
    precision: str | None = None,
    progress: Progress = iter,
) -> Report:
    """Times every backend and precision that an engine is offered in here, all in turn.

    Args and errors are those of `picme_rt.speed.report.measure`.
    """
    engine, loaded = pyramid.load(path), list[pyramids.PyramidBackend]()
    calls: dict[tuple[int, object], Callable[[], object]] = {}
    able = [name for name in backends.installed() if name in pyramids.BACKENDS]
    offered = [(name, one) for name in able for one in backends.offered(engine, name)]
    pairs = asked_for(offered, backend, precision)

    def load(name: str, precision: str) -> pyramids.PyramidBackend:
        return pyramids.load(engine, backends.defaults(name, precision), Turns(choices.cores()))

    for made in opened(pairs, load):
        for what, call in _calls(engine, made).items():
            calls[len(loaded), what] = call
        loaded.append(made)
    times = timing.in_turn(calls, rounds, progress=progress)
    reached = None
    with contextlib.suppress(MissingPackageError):
        reached = peaks.measure()
    content = engine.read(next(iter(engine.variants.values()))["pyramid"])
    pixels = engine.sizes[-1][0] * engine.sizes[-1][1]
    macs = graph_shapes.check_fixed(content, engine.table, pixels).macs
    rows = []
    for place, one in enumerate(loaded):
        gops = 2 * macs / 1e6 / times[place, "graph"].median
        peak = reached.operations.get(one.precision) if reached else None
        rows.append(
            Row(
                backend=one.name,
                precision=one.precision,
                threads=one.threads,
                calls={k: times[place, k] for k in KS},
                stages={stage: times[place, stage] for stage in STAGES},
                gops=gops,
                share=gops / peak if peak else None,
            )
        )
    hole = int(engine.hole().sum())
    return Report(engine.name, engine.picture, engine.sizes[-1], hole, macs / 1e9, rounds, rows)


def _calls(engine: Pyramid, backend: pyramids.PyramidBackend) -> dict[object, Callable[[], object]]:
    """Everything that is timed, by a call's k or a stage's name."""
    hole = engine.hole()
    img = np.random.default_rng(0).integers(0, 256, (*hole.shape, 3), np.uint8)

    def encode() -> PyramidEncoded:
        return PyramidEncoded(lambda: backend, engine, img, hole)

    request, target = Request(1, 0, 0, "categorical", None, 1.0), img.copy()
    encoded, frame = encode(), pyramid_frame.frame(engine, img, hole)
    noises = encoded.noises(request, 0)
    made = backend(noises, 0.0)

    def call(k: int) -> Callable[[], object]:
        return lambda: encode().complete(k=k, diversity="high")

    return {
        **{k: call(k) for k in KS},
        "encode": encode,
        "noise": lambda: encoded.noises(request, 0),
        "graph": lambda: backend(noises, 0.0),
        "paste": lambda: pyramid_frame.paste(frame, made, target),
    }


def text(report: Report) -> str:
    """A report as a table in plain text; milliseconds unless a column says otherwise."""
    (height, width), (h, w) = report.picture, report.trained
    share = report.hole / (height * width)
    head = (
        f"{report.name}, {height} x {width}, trained at {h} x {w}, hole {share:.0%}; "
        f"{report.gmac:.3g} GMAC a result; {report.rounds} rounds in turn, ms: median (5 % to 95 %)"
    )
    rows = []
    for row in report.rows:
        calls = [f"{t.median:.1f} ({t.low:.1f} to {t.high:.1f})" for t in row.calls.values()]
        stages = [f"{row.stages[stage].median:.3g}" for stage in STAGES]
        reached = "not known" if row.share is None else f"{100 * row.share:.0f} %"
        name = f"{row.backend} {row.precision}"
        rows.append([name, str(row.threads), *calls, *stages, f"{row.gops:.0f}", reached])
    columns = ["", "threads", *(f"k = {k}" for k in KS), *STAGES, "GOP/s", "of peak"]
    return "\n".join([head, "", *aligned(columns, rows)])

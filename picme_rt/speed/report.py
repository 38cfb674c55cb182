"""Everything that `picme bench` measures of an engine, as numbers; table.py prints them."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from picme_rt import backends, choices
from picme_rt import engine as engines
from picme_rt.errors import InputError, MissingPackageError, UnavailableError
from picme_rt.images import Hole, Image
from picme_rt.models import Info
from picme_rt.session import Session
from picme_rt.speed import cold_start, peaks, timing
from picme_rt.speed.cold_start import ColdStart
from picme_rt.speed.peaks import Peaks
from picme_rt.speed.stages import STAGES, decoder_macs, prepare, stages
from picme_rt.speed.timing import Times

KS = (1, 6, 50)
STAGE_K = 6  # results that the stages are timed for
_STARTS = 3
_WHOLE = "decode of the whole square"
Progress = Callable[[Sequence[int]], Iterable[int]]
Opened = TypeVar("Opened")


@dataclasses.dataclass(frozen=True)
class Row:
    """One backend in one precision.

    Attributes:
        chosen_by: As in `picme_rt.Info`, and so are the next four.
        backend: What runs the graphs.
        precision: What they are computed in.
        threads: Threads that the backend computes with.
        micro_batch: Latents a decoder call.
        calls: k -> `session.complete` with it, in milliseconds.
        stages: Stage -> its share of a call with k = `STAGE_K`, in milliseconds.
        gmac: 1e9 multiply-adds of one decode of the whole square.
        gops: 1e9 operations a second that such a decode reaches, two a multiply-add.
        share: `gops` of the machine's peak in this precision; None where that is not known.
        cold: From the start of a process to its first result: the fastest of three.
    """

    chosen_by: str
    backend: str
    precision: str
    threads: int
    micro_batch: int
    calls: dict[int, Times]
    stages: dict[str, Times]
    gmac: float
    gops: float
    share: float | None
    cold: ColdStart


@dataclasses.dataclass(frozen=True)
class Report:
    """What was measured in one run.

    Attributes:
        name: The engine's.
        size: Side of its picture, and of the one that was completed.
        cpu: The machine's processor.
        cores: Physical cores that were there.
        rounds: Turns that every time was taken in.
        peaks: The machine's; None where OpenVINO, which measures them, is not installed.
        rows: `auto` first, where all were asked for, then each backend and precision.
    """

    name: str
    size: int
    cpu: str
    cores: int
    rounds: int
    peaks: Peaks | None
    rows: list[Row]


def measure(
    engine: Path,
    *,
    rounds: int,
    backend: str | None = None,
    precision: str | None = None,
    progress: Progress = iter,
) -> Report:
    """Times every backend and precision that an engine is offered in here, all in turn.

    Args:
        engine: The engine's directory.
        rounds: Calls of each kind, at least 1.
        backend: This one alone; None times all, and `auto`.
        precision: Likewise.
        progress: Wraps the turns, such as a progress bar.

    Raises:
        InputError: What is asked for is not there.
        UnavailableError: This CPU does not compute in the one precision that is left.
    """
    loaded = engines.load(engine)
    pairs = asked_for(_offered(loaded), backend, precision)
    if backend is None and precision is None:
        pairs.insert(0, ("auto", "auto"))
    reached = None
    with contextlib.suppress(MissingPackageError):  # then the table says what would measure it
        reached = peaks.measure()
    with contextlib.ExitStack() as stack:
        sessions = []
        for session in opened(pairs, lambda b, p: Session(engine, backend=b, precision=p)):
            sessions.append(stack.enter_context(session))
            prepare(session)
        times = timing.in_turn(_calls(sessions, loaded.size), rounds, progress=progress)
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = [
            _row(session, _of(place, times), reached, cache)
            for place, session in enumerate(sessions)
        ]
    return Report(loaded.name, loaded.size, _cpu(), choices.cores(), rounds, reached, rows)


def asked_for(
    pairs: list[tuple[str, str]], backend: str | None, precision: str | None
) -> list[tuple[str, str]]:
    """Those of some backends and precisions that are asked for.

    Raises:
        InputError: None is.
    """
    found = [pair for pair in pairs if backend in (None, pair[0]) and precision in (None, pair[1])]
    if not found:
        asked = {"--backend": backend, "--precision": precision}
        wanted = " ".join(f"{flag} {value}" for flag, value in asked.items() if value is not None)
        there = ", ".join(" ".join(pair) for pair in pairs)
        raise InputError(f"{wanted} must be among what this engine has here: {there}")
    return found


def opened(pairs: list[tuple[str, str]], opener: Callable[[str, str], Opened]) -> Iterator[Opened]:
    """What opens, one after the other; only a pair that is alone must."""
    for pair in pairs:
        try:
            made = opener(*pair)
        except UnavailableError:  # a precision that this CPU lacks
            if len(pairs) == 1:
                raise
        else:
            yield made


def picture(size: int) -> tuple[Image, Hole]:
    """Noise (size, size, 3), and a hole in the middle half as wide and high."""
    img = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    hole = np.zeros((size, size), bool)
    hole[size // 4 : size - size // 4, size // 4 : size - size // 4] = True
    return img, hole


def _offered(engine: engines.Engine) -> list[tuple[str, str]]:
    return [(b, p) for b in backends.installed() for p in backends.offered(engine, b)]


def _calls(sessions: list[Session], size: int) -> dict[tuple[int, str], Callable[[], object]]:
    """Everything that is timed, by the session's place and a name."""
    img, hole = picture(size)
    found: dict[tuple[int, str], Callable[[], object]] = {}
    for place, session in enumerate(sessions):
        for k in KS:
            found[place, f"k = {k}"] = _completing(session, img, hole, k)
        for name, stage in stages(session, img, hole, k=STAGE_K).items():
            found[place, name] = stage
        whole = stages(session, img, np.ones_like(hole), k=STAGE_K)
        found[place, _WHOLE] = whole["decode"]
    return found


def _completing(session: Session, img: Image, hole: Hole, k: int) -> Callable[[], object]:
    return lambda: session.complete(img, hole, k=k)


def _of(place: int, times: dict[tuple[int, str], Times]) -> dict[str, Times]:
    """The times of one session, by name."""
    return {name: found for (where, name), found in times.items() if where == place}


def _row(session: Session, times: dict[str, Times], reached: Peaks | None, cache: Path) -> Row:
    info = session.info
    macs = decoder_macs(Path(info.engine), info.precision)
    gops = 2 * STAGE_K * macs / 1e6 / times[_WHOLE].median
    peak = reached.operations.get(info.precision) if reached else None
    return Row(
        chosen_by=info.chosen_by,
        backend=info.backend,
        precision=info.precision,
        threads=info.threads,
        micro_batch=info.micro_batch,
        calls={k: times[f"k = {k}"] for k in KS},
        stages={stage: times[stage] for stage in STAGES},
        gmac=macs / 1e9,
        gops=gops,
        share=gops / peak if peak else None,
        cold=_cold_start(info, cache),
    )


def _cold_start(info: Info, cache: Path) -> ColdStart:
    """The fastest of some starts, after one that compiles the sources."""
    starts = [
        cold_start.measure(
            Path(info.engine),
            backend=info.backend,
            precision=info.precision,
            size=info.size,
            cache=cache,
        )
        for _ in range(1 + _STARTS)
    ]
    return min(starts[1:], key=lambda one: one.total)


def _cpu() -> str:
    """The processor's name, as the system tells it."""
    with contextlib.suppress(OSError):  # only Linux has it
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    import platform

    return platform.processor() or platform.machine()

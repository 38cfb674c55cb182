"""What runs an engine on this machine: settings, and the file that keeps what was measured.

$XDG_CACHE_HOME/picme_rt/choices/KEY.json, ~/.cache where that is not set; KEY is a digest of the
engine's files, the versions of picme_rt and of the backends, the CPU and its cores: what has
changed is not found, and nothing has to expire. Written whole or not at all.
"""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from picme_rt.engine import Bundle
from picme_rt.errors import one_line

_FORMAT = 3
_FILE_BYTES = 1 << 16
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
_MICRO_BATCH = 64
MOST_THREADS = 4096
_GAIN = 0.9


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an engine is opened. Results are equal to the bit for equal settings.

    Attributes:
        backend: One of `backends.BACKENDS`.
        precision: One of the engine's variants, or one that the backend makes of its fp32.
        threads: Threads that the backend computes with, at least 1.
        micro_batch: Latents a decoder call, at least 1.
        device: As `devices.parse` names it; what was measured, was measured on the CPU.
    """

    backend: str
    precision: str
    threads: int
    micro_batch: int = 1
    device: str = "cpu"


class Measured(NamedTuple):
    """Settings and the milliseconds of one encode and six decodes with them.

    Attributes:
        settings: What was measured.
        milliseconds: What it took.
        lower: Whether `precision="auto"` may be these settings though they are not fp32.
    """

    settings: Settings
    milliseconds: float
    lower: bool = False


def fastest(measured: Sequence[Measured]) -> Settings:
    """The first of some settings, unless others take less than `_GAIN` of its time.

    Results are equal to the bit for equal settings alone: nothing is changed for a trifle.
    """
    good = [one for one in measured if one.milliseconds < _GAIN * measured[0].milliseconds]
    return min(good or measured[:1], key=lambda one: one.milliseconds).settings


def cores() -> int:
    """Physical cores that this process may run on; the threads of one core count once.

    In a container, at most so many as its share of the processors' time is worth.
    """
    if sys.platform != "linux":
        return os.cpu_count() or 1
    found = set()
    for cpu in os.sched_getaffinity(0):
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            found.add(path.read_text(encoding="ascii"))
        except OSError:  # not every container shows it
            found.add(str(cpu))
    return min(len(found), _quota())


def _quota() -> int:
    """Processors that a container's limit is worth, rounded up (cgroup v2's `cpu.max`)."""
    try:
        most, period = _CPU_MAX.read_text(encoding="ascii").split()
        return max(1, math.ceil(int(most) / int(period)))
    except (OSError, ValueError):  # no container, or `max`: no limit
        return MOST_THREADS


def read(engine: Bundle, packages: Sequence[str]) -> list[Measured]:
    """What was measured for this engine on this machine; empty where nothing was.

    A file that is damaged or of another place is as if it were not there, said in one warning of
    the logger `picme_rt`.

    Args:
        engine: The engine.
        packages: The backends' packages, whose versions count.
    """
    about = _about(engine, packages)
    place = _place(about)
    if place is None:
        return []
    try:
        with place.open("rb") as file:
            text = file.read(_FILE_BYTES + 1)
        if len(text) > _FILE_BYTES:
            raise ValueError(f"it has more than {_FILE_BYTES} bytes")
        content = json.loads(text)
        if {name: content[name] for name in about} != about:
            raise ValueError("it was measured elsewhere")
        return [_measured(entry, packages) for entry in content["measured"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        import logging  # here and below: what `import picme_rt` would wait for

        logging.getLogger("picme_rt").warning(
            "%s is ignored: %s: %s; `picme bench %s --tune` writes it anew",
            *(place, type(exc).__name__, one_line(exc), engine.path),
        )
        return []


def check(engine: Bundle, packages: Sequence[str]) -> None:
    """Makes the folder that `write` writes to.

    Raises:
        OSError: Nothing can be written there.
    """
    import tempfile

    with tempfile.TemporaryFile(dir=_prepared(_about(engine, packages)).parent):
        pass


def write(engine: Bundle, packages: Sequence[str], measured: Sequence[Measured]) -> Path:
    """Keeps what was measured, in place of what was there; gives the file.

    Raises:
        OSError: It cannot be written.
    """
    from picme_rt import atomic

    about = _about(engine, packages)
    place = _prepared(about)
    entries = [
        {**dataclasses.asdict(one.settings), "milliseconds": one.milliseconds, "lower": one.lower}
        for one in measured
    ]
    atomic.sweep(place.parent)
    with atomic.file(place) as fresh:
        fresh.write_text(json.dumps({**about, "measured": entries}, indent=1), encoding="utf-8")
    return place


def _measured(entry: dict[str, Any], packages: Sequence[str]) -> Measured:
    settings = Settings(*(entry[field.name] for field in dataclasses.fields(Settings)))
    right = (
        settings.backend in packages
        and isinstance(settings.precision, str)
        and type(settings.threads) is int
        and 1 <= settings.threads <= MOST_THREADS
        and type(settings.micro_batch) is int
        and 1 <= settings.micro_batch <= _MICRO_BATCH
        and settings.device == "cpu"
        and type(entry["milliseconds"]) is float
        and 0 < entry["milliseconds"] < 1e9
        and type(entry["lower"]) is bool
    )
    if not right:
        raise ValueError(f"no backend has the settings {settings}")
    return Measured(settings, entry["milliseconds"], entry["lower"])


def _about(engine: Bundle, packages: Sequence[str]) -> dict[str, Any]:
    """All that a measurement holds for."""
    versions = {name: _version(name) for name in ("picme_rt", *packages)}
    return {
        "format": _FORMAT,
        "engine": {name: file.sha256 for name, file in sorted(engine.files.items())},
        "versions": versions,
        "system": sys.platform,
        "cpu": _cpu(),
        "cores": cores(),
    }


def _prepared(about: dict[str, Any]) -> Path:
    """The file for it, in a folder that is there."""
    place = _place(about)
    if place is None:
        raise OSError("there is no home directory to keep choices in; set XDG_CACHE_HOME")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _place(about: dict[str, Any]) -> Path | None:
    """The file for it; None where this user has no home."""
    import hashlib  # 2 ms of `import picme_rt` otherwise; likewise below

    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not root.is_absolute():  # such are to be ignored, says the XDG specification
        root = Path(os.path.expanduser("~")) / ".cache"
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    return root / "picme_rt" / "choices" / f"{key}.json" if root.is_absolute() else None


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    """The CPU's name and, where the system tells, a digest of what it can do."""
    import hashlib
    import platform

    name = platform.processor() or platform.machine()
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:  # only Linux has it
        return name
    told = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    entries = {key.strip(): value.strip() for key, value in told.items()}
    can = hashlib.sha256(entries.get("flags", entries.get("Features", "")).encode()).hexdigest()
    return f"{entries.get('model name', name)}, {can[:16]}"

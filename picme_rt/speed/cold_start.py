"""A session's first result in a process of its own, and how much memory the process took."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from picme_rt.errors import UnavailableError, one_line

# A user's first lines, and when each was done. The clock is one for all processes of a machine.
_FIRST_LINES = """
import sys, time
times = [time.monotonic()]
import picme_rt
times.append(time.monotonic())
path, backend, precision, size = sys.argv[1:]
session = picme_rt.Session(path, backend=backend, precision=precision)
times.append(time.monotonic())
import numpy as np
size = int(size)
img = np.arange(3 * size * size, dtype=np.uint32).astype(np.uint8).reshape(size, size, 3)
hole = np.zeros((size, size), bool)
hole[size // 4 : -size // 4, size // 4 : -size // 4] = True
next(session.stream(img, hole))
times.append(time.monotonic())
session.complete(img, hole, k=6)
import json
status = open("/proc/self/status").read() if sys.platform == "linux" else ""
peak = [1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
print(json.dumps([times, *peak]))
"""


@dataclasses.dataclass(frozen=True)
class ColdStart:
    """From the start of a process to its first result, in milliseconds.

    Attributes:
        python: Until Python runs the first line.
        imports: `import picme_rt`.
        load: `Session(...)`: the backend's import, the engine's checks, its graphs.
        first: The first result, of a picture of the engine's size.
        total: All four.
        peak_bytes: Most memory that the process held until six results were there (its resident
            set); None where the system does not say.
    """

    python: float
    imports: float
    load: float
    first: float
    total: float
    peak_bytes: int | None


def measure(engine: Path, *, backend: str, precision: str, size: int, cache: Path) -> ColdStart:
    """Starts a process that makes a result, as the command `python` would.

    The first call with a fresh `cache` also compiles every source: leave it out.

    Args:
        engine: The engine's directory.
        backend: As `Session` takes it.
        precision: As `Session` takes it.
        size: Side of the picture in pixels, as large as the engine's.
        cache: A directory for compiled sources (`compiled_into`).

    Raises:
        UnavailableError: The process failed; the message has its last line.
    """
    arguments = [str(engine), backend, precision, str(size)]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *compiled_into(cache), "-c", _FIRST_LINES, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
    )
    if done.returncode != 0:
        said = one_line(Exception(done.stderr.strip().rpartition("\n")[2]))
        raise UnavailableError(f"a fresh process gave no result: {said}")
    times, *peak = json.loads(done.stdout)
    started, imported, loaded, first = times
    return ColdStart(
        python=1e3 * (started - began),
        imports=1e3 * (imported - started),
        load=1e3 * (loaded - imported),
        first=1e3 * (first - loaded),
        total=1e3 * (first - began),
        peak_bytes=peak[0] if peak else None,
    )


def compiled_into(cache: Path) -> list[str]:
    """Flags of Python that keep compiled sources in a directory, whatever the installation does."""
    return ["-X", f"pycache_prefix={cache}"]


def environment() -> dict[str, str]:
    """This process's environment, but compiled sources are kept: a second start needs them."""
    return {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

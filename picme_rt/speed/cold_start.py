"""A session's first result in a process of its own, and how much memory the process took."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from picme_rt.errors import UnavailableError, one_line

# What a user's first lines do. The clock is one for all processes of a machine.
_FIRST_LINES = """
import json, sys, time
times = [time.monotonic()]
import picme_rt
times.append(time.monotonic())
path, backend, precision, size = sys.argv[1:5]
session = picme_rt.Session(path, backend=backend, precision=precision)
times.append(time.monotonic())
import numpy as np
size = int(size)
img = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
hole = np.zeros((size, size), bool)
hole[size // 4 : -size // 4, size // 4 : -size // 4] = True
next(session.stream(img, hole))
times.append(time.monotonic())
session.complete(img, hole, k=6)
status = open("/proc/self/status").read() if sys.platform == "linux" else ""
peak = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
print(json.dumps([times, 1024 * int(peak[0]) if peak else None]))
"""


class ColdStart(NamedTuple):
    """From the start of a process to its first result, in milliseconds.

    Attributes:
        python: Until Python runs the first line.
        imports: `import picme_rt`.
        load: `Session(...)`: the backend's import, the engine's checks, its graphs.
        first: The first result of a picture of the engine's size.
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


def measure(engine: Path, *, backend: str, precision: str, size: int) -> ColdStart:
    """Starts a process that makes the first result, as the command `python` would.

    Args:
        engine: The engine's directory.
        backend: As `Session` takes it.
        precision: As `Session` takes it.
        size: Side of the picture in pixels.

    Raises:
        UnavailableError: The process failed; the message has its last line.
    """
    import time

    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_LINES, str(engine), backend, precision, str(size)],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        said = one_line(Exception(done.stderr.strip().rpartition("\n")[2]))
        raise UnavailableError(f"a fresh process did not give a result: {said}")
    times, peak = json.loads(done.stdout)
    parts = [1e3 * (end - start) for start, end in zip([began, *times], times, strict=False)]
    return ColdStart(*parts, sum(parts), peak)

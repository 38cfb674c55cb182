"""Processes that are told to end when this one is: a SIGTERM for one process orphans no other."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

_running: set[subprocess.Popen[str]] = set()
_ending = threading.Event()


@contextmanager
def told() -> Iterator[None]:
    """Sends a SIGTERM inside of the block, which the main thread enters, to all that `run` began.

    This process goes on, to tell what came of them; from then on `run` ends what it begins.
    """

    def send(number: int, frame: FrameType | None) -> None:
        _ending.set()
        for child in tuple(_running):
            child.terminate()

    before = signal.signal(signal.SIGTERM, send)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _ending.clear()


def run(command: list[str], log: TextIO) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; its stderr goes to `log`. Threads may do so side by side."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as child:
        _running.add(child)
        try:
            if _ending.is_set():
                child.terminate()
            said, _ = child.communicate()
        finally:
            _running.discard(child)
    return subprocess.CompletedProcess(command, child.returncode, said)

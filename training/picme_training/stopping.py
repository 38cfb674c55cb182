"""Ends a run between two steps when it is told to, so that no step that was computed is lost."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from picme_training import distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what `kill`, `timeout`, a container's stop and a queue's time limit send."""
TOGETHER = 1.0
"""Seconds in which further signals are the first one again: `timeout` signals a process, then all
of its group, and a process is in both."""


@contextlib.contextmanager
def told() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether one of `SIGNALS` has come inside of the block.

    A second one, `TOGETHER` later, acts as it would have without the block. So does the first where
    the step in hand cannot be waited for: outside of the main thread, which alone hears signals,
    and where several processes compute the run, of which each would end at a step of its own.
    """
    heard: list[float] = []
    if threading.current_thread() is not threading.main_thread() or distributed.count() > 1:
        yield lambda: False
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    # what is ignored, as SIGINT in a shell's background, stays so
    before = {number: was for number, was in handlers.items() if was is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(time.monotonic())
        if heard[-1] - heard[0] > TOGETHER:
            restore()
            handler = signal.getsignal(number)
            if callable(handler):
                handler(number, frame)
            else:
                signal.raise_signal(number)

    for number in before:
        signal.signal(number, hear)
    try:
        yield lambda: bool(heard)
    finally:
        restore()

"""Who runs now: where more calls compute than there are cores, they take turns, oldest first."""

import threading
from collections import deque
from typing import Self


class Turns:
    """A context manager that lets at most so many threads in, first come, first served.

    Left to the system's scheduler, calls that began together end far apart, and each holds its
    memory meanwhile.

    Args:
        places: Threads that are in at once, at least 1.
        longest: Seconds after which a thread goes in although all places are taken; None is never.
    """

    def __init__(self, places: int, longest: float | None = None):
        self._places, self._longest = places, longest
        self._inside = 0
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    @property
    def inside(self) -> int:
        """Threads that are in now."""
        return self._inside

    def __enter__(self) -> Self:
        with self._lock:
            if self._inside < self._places or self._longest == 0:
                self._inside += 1
                return self
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire(timeout=-1 if self._longest is None else self._longest)
        except BaseException:  # Ctrl-C
            if self._called(turn):
                self._leave()
            raise
        if not self._called(turn):
            with self._lock:
                self._inside += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._leave()

    def _called(self, turn: threading.Lock) -> bool:
        """Whether a place was given to it; else it stops waiting."""
        with self._lock:
            if turn not in self._waiting:
                return True
            self._waiting.remove(turn)
            return False

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._waiting and self._inside < self._places:
                self._inside += 1
                self._waiting.popleft().release()

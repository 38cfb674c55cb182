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
        self._waiting: deque[_Turn] = deque()
        self._lock = threading.Lock()

    @property
    def inside(self) -> int:
        """Threads that are in now."""
        return self._inside

    def __enter__(self) -> Self:
        turn = _Turn()
        try:
            with self._lock:
                if self._inside < self._places or self._longest == 0:
                    self._go_in(turn)
                    return self
                self._waiting.append(turn)
            turn.called.acquire(timeout=-1 if self._longest is None else self._longest)
            with self._lock:
                if not turn.inside:  # waited long enough
                    self._waiting.remove(turn)
                    self._go_in(turn)
        except BaseException:  # Ctrl-C, at whatever moment
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
            if turn.inside:
                self._leave()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._leave()

    def _go_in(self, turn: "_Turn") -> None:
        self._inside += 1
        turn.inside = True

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._waiting and self._inside < self._places:
                turn = self._waiting.popleft()
                self._go_in(turn)
                turn.called.release()


class _Turn:
    """One thread's.

    Attributes:
        called: Released once a place is given to it.
        inside: Whether it has a place.
    """

    def __init__(self) -> None:
        self.called = threading.Lock()
        self.called.acquire()
        self.inside = False

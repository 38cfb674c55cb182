"""Work on several items at once that looks like a loop from outside: its order, errors, end.

While one item waits for the disk or holds the interpreter's lock, others compute.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
GoOn = Callable[[], None]
"""To be called where work may end early: it raises once the item is not wanted any more."""


class _NotWantedError(BaseException):
    """Ends the work on an item whose outcome nobody will see; no `except Exception` stops it."""


def in_order(
    work: Callable[[Item, GoOn], Outcome], items: Sequence[Item], *, at_once: int
) -> Generator[Outcome, None, None]:
    """The outcomes of `work(item, go_on)`, in the order of the items, as soon as they are known.

    Where work raises, the outcomes of all items before that one come first and then its error, as
    in a loop; later items that have begun end at their next `go_on()`. So do all where the iterator
    is closed: use `contextlib.closing`. It ends, either way, when no work runs any more.

    Args:
        work: Called from `at_once` threads; in the caller's own where `at_once` is 1.
        items: Taken one by one, in order.
        at_once: Most items in work, at least 1; outcomes that wait for their turn do not count.
    """
    if at_once == 1 or len(items) < 2:
        for item in items:
            yield work(item, _nothing)
        return
    crew = _Crew(work, items)
    try:
        crew.begin(min(at_once, len(items)))
        for place in range(len(items)):
            yield crew.outcome(place)
    finally:
        crew.end()


def taking_part(
    work: Callable[[Item, GoOn], Outcome], items: Sequence[Item], *, at_once: int
) -> Generator[Outcome, None, None]:
    """`in_order`, but one of the `at_once` threads is the caller's own.

    For items that fill the cores: a thread that only waits for outcomes takes a core from them, and
    may hold the interpreter's lock until it gets one. An outcome comes when the caller's thread is
    between two items, so later than it is known.
    """
    crew = _Crew(work, items)
    try:
        crew.begin(min(at_once, len(items)) - 1)
        for place in range(len(items)):
            while not crew.has(place) and crew.take_item():
                pass
            yield crew.outcome(place)
    finally:
        crew.end()


_NOTICED = 0.2
"""Seconds after which a waiting thread looks for a Ctrl-C: CPython sees one that comes right before
a wait without a limit only once that wait is over."""


def _nothing() -> None:
    pass


class _Error(NamedTuple):
    """What work raised instead of an outcome."""

    error: BaseException


class _Crew(Generic[Item, Outcome]):
    """Threads that take the items in turn, and what they found."""

    def __init__(self, work: Callable[[Item, GoOn], Outcome], items: Sequence[Item]):
        self._work, self._items = work, items
        self._next, self._last = 0, len(items) - 1  # the last place whose outcome is wanted
        self._found: dict[int, Outcome | _Error] = {}
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    def begin(self, threads: int) -> None:
        for _ in range(threads):
            self._threads.append(threading.Thread(target=self._take_items, name="picme_rt"))
            self._threads[-1].start()

    def has(self, place: int) -> bool:
        """Whether the outcome of an item is known."""
        return place in self._found

    def outcome(self, place: int) -> Outcome:
        """Waits for the outcome of an item, then returns or raises it."""
        with self._changed:
            while place not in self._found:
                self._changed.wait(_NOTICED)
            found = self._found.pop(place)
        if isinstance(found, _Error):
            raise found.error
        return found

    def end(self) -> None:
        with self._changed:
            self._last = -1
        for thread in self._threads:
            # one that an interrupt caught in start() finds nothing to do when it comes
            with contextlib.suppress(RuntimeError):
                thread.join()

    def take_item(self) -> bool:
        """Works on the next item in this thread; False if there is none that is wanted."""
        with self._changed:
            place = self._next
            if place > self._last:
                return False
            self._next += 1
        found: Outcome | _Error
        try:
            found = self._work(self._items[place], functools.partial(self._check, place))
        except _NotWantedError:
            return False
        except BaseException as exc:  # raised where the outcomes are taken
            found = _Error(exc)
        with self._changed:
            if isinstance(found, _Error):
                self._last = min(self._last, place)
            self._found[place] = found
            self._changed.notify()
        return True

    def _take_items(self) -> None:
        while self.take_item():
            pass

    def _check(self, place: int) -> None:
        if place > self._last:
            raise _NotWantedError

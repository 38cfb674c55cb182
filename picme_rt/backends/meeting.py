"""Calls that meet: once as many are in work as there are cores, each run takes one thread.

On all cores a run waits after every operation for the slowest of them, which another call's paste
or run holds up; on a core each, calls wait for nobody. A call that is alone has all cores. So a
graph is compiled twice, the second time when calls first meet; whoever comes meanwhile goes on with
all threads. The bits are a lone call's: the first result of each size is computed both ways, and a
graph of which one differs stays as it was (OpenVINO's instance norm sums up thread by thread).
"""

import threading
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from picme_rt import choices
from picme_rt.backends.host import Arrays, Runner, arrays
from picme_rt.tensors import Graph
from picme_rt.turns import Turns

Maker = Callable[[Arrays], Runner]
"""Makes one more runner of a compiled graph, over buffers."""


def runners(
    table: Graph, batch: int, threads: int, compiled: Callable[[int], Maker], calls: Turns | None
) -> Callable[[], Runner]:
    """Makes runners of one graph.

    Args:
        table: The graph's inputs and outputs.
        batch: Latents a run.
        threads: Threads of a run that is alone.
        compiled: Compiles the graph for a number of threads.
        calls: Who is in work; None where every run shall have `threads`.
    """
    alone = compiled(threads)
    if calls is None or threads == 1:
        return lambda: alone(arrays(table, batch))
    meeting = _Meeting(calls, lambda: compiled(1))
    return lambda: _MeetingRunner(alone, arrays(table, batch), meeting)


class _Meeting:
    """What the runners of one graph share: the second compilation, and what is known of its bits.

    Args:
        calls: Who is in work.
        compiled: Compiles the graph for one thread a run.
    """

    def __init__(self, calls: Turns, compiled: Callable[[], Maker]):
        self._calls, self._cores = calls, choices.cores()
        self._compiled: Callable[[], Maker] | None = compiled
        self._maker: Maker | None = None
        self._compiling = threading.Lock()
        self.equal: set[tuple[tuple[int, ...], ...]] = set()  # sizes of outputs
        self.differs = False

    def maker(self) -> Maker | None:
        """Makes runners of one thread; None where a run shall have all threads."""
        if self._calls.inside < self._cores or self.differs:
            return None
        if self._compiled is not None and self._compiling.acquire(blocking=False):
            try:
                if self._compiled is not None:
                    self._maker = self._compiled()
                    self._compiled = None  # and with it the graph's bytes
            finally:
                self._compiling.release()
        return self._maker

    def stop(self) -> None:
        """Leaves all threads to every run from now on."""
        self.differs, self._maker = True, None


class _MeetingRunner:
    """See `Runner`: one set of buffers, and two ways to fill it."""

    def __init__(self, alone: Maker, given: Arrays, meeting: _Meeting):
        self._given, self._meeting = given, meeting
        self._alone = alone(Arrays(given.inputs, given.outputs.copy()))
        self._beside: Runner | None = None
        self._narrowed: tuple[int, int] | None = None
        self.inputs, self.outputs = self._alone.inputs, self._alone.outputs

    def narrow(self, height: int, width: int) -> None:
        self._narrowed = height, width
        for runner in filter(None, (self._alone, self._beside)):
            runner.narrow(height, width)

    def run(self) -> None:
        maker = self._meeting.maker()
        if maker is None:
            if self._meeting.differs:
                self._beside = None
            self._alone.run()
            return
        if self._beside is None:
            self._beside = maker(Arrays(self._given.inputs, self._given.outputs.copy()))
            if self._narrowed is not None:
                self._beside.narrow(*self._narrowed)
        sizes = tuple(array.shape for array in self.outputs.values())
        if sizes in self._meeting.equal:
            self._beside.run()
        else:
            self._compare(self._beside, sizes)

    def _compare(self, beside: Runner, sizes: tuple[tuple[int, ...], ...]) -> None:
        """Runs both ways and leaves the outputs of all threads."""
        self._alone.run()
        want: dict[str, NDArray[Any]] = {name: a.copy() for name, a in self.outputs.items()}
        beside.run()
        if all(want[name].tobytes() == a.tobytes() for name, a in self.outputs.items()):
            self._meeting.equal.add(sizes)
            return
        self._meeting.stop()
        for name, array in self.outputs.items():
            array[:] = want[name]

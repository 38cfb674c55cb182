"""Calls that meet: once as many are in work as there are cores, each run takes one thread.

On all cores a run waits after every operation for the slowest of them, which another call's paste
or run holds up; on a core each, calls wait for nobody. A call that is alone has all cores, or makes
its results side by side (side_by_side.py). So a graph is compiled twice, the second time when calls
first meet, or when those that were alone have run long enough to make good for it; whoever comes
meanwhile goes on with all threads. The bits are a lone call's: the first result of each size is
computed both ways, and a graph of which one differs stays as it was (OpenVINO's MVN sums up thread
by thread, which is why openvino_norms.py takes its place).
"""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt import choices
from picme_rt.backends.host import Arrays, Runner, arrays, buffers
from picme_rt.errors import PicmeError
from picme_rt.tensors import Graph
from picme_rt.turns import Turns

Maker = Callable[[Arrays], Runner]
"""Makes one more runner of a compiled graph, over buffers."""
Sizes = tuple[tuple[int, ...], ...]
_PATIENCE = 10
"""Results that go side by side save a tenth of their runs' time on OpenVINO, a third on ONNX
Runtime: compiling is made good for when they have taken so many times as long."""


def sizes(runner: Runner) -> Sizes:
    """All that decides the shapes of a run: those of its outputs, and its windows' lengths."""
    box = runner.inputs.get("box")
    windows = () if box is None else tuple((box[1::2] - box[::2]).ravel().tolist())
    return windows, *(array.shape for array in runner.outputs.values())


class Runners(NamedTuple):
    """Makes runners of one graph.

    Attributes:
        make: Makes one more.
        meeting: What they share; None where every run has the threads that were asked for.
    """

    make: Callable[[], Runner]
    meeting: "Meeting | None"


def runners(
    table: Graph, batch: int, threads: int, compiled: Callable[[int], Maker], calls: Turns | None
) -> Runners:
    """Compiles a graph, to make runners of it.

    Args:
        table: The graph's inputs and outputs.
        batch: Latents a run.
        threads: Threads of a run that is alone.
        compiled: Compiles the graph for a number of threads.
        calls: Who is in work; None where every run shall have `threads`.
    """
    began = time.perf_counter()
    alone = compiled(threads)
    cost = time.perf_counter() - began
    if calls is None or threads == 1:
        return Runners(lambda: alone(arrays(table, batch)), None)
    meeting = Meeting(table, batch, calls=calls, compiled=lambda: compiled(1), cost=cost)
    return Runners(lambda: _MeetingRunner(alone, arrays(table, batch), meeting), meeting)


class Meeting:
    """What the runners of one graph share: the second compilation, and what is known of its bits.

    Args:
        table: The graph's inputs and outputs.
        batch: Latents a run.
        calls: Who is in work.
        compiled: Compiles the graph for one thread a run.
        cost: Seconds that compiling takes.

    Attributes:
        cores: Of this machine.
        equal: `sizes` of runs whose bits were found to be the same both ways.
        differs: Whether the bits of one were not: all runs have all threads from then on.
    """

    def __init__(
        self,
        table: Graph,
        batch: int,
        *,
        calls: Turns,
        compiled: Callable[[], Maker],
        cost: float,
    ):
        self._table, self._batch = table, batch
        self._calls, self.cores = calls, choices.cores()
        self._compiled: Callable[[], Maker] | None = compiled
        self._maker: Maker | None = None
        self._compiling = threading.Lock()
        self._cost, self._spent = cost, 0.0
        self.equal: set[Sizes] = set()
        self.differs = False

    def maker(self) -> Maker | None:
        """Makes runners of one thread; None where a run shall have all threads."""
        if self._calls.inside < self.cores or self.differs:
            return None
        return self._second()

    def for_results(self, results: int) -> Maker | None:
        """Makes runners of one thread for the results of a call that is alone, `cores` at a time.

        None where they go one after the other. Few calls would not make good for compiling: first,
        runs must have taken `_PATIENCE` times as long.
        """
        alone = self._calls.inside <= 1 and self.cores > 1
        if not alone or results < self.cores or self.differs:
            return None
        return self._second() if self._spent >= _PATIENCE * self._cost else self._maker

    def prepare(self) -> None:
        """Compiles the second time now, if that is ever done: who measures comes to it at once."""
        if self.cores > 1 and not self.differs:
            self._second()

    def beside(self, maker: Maker, inputs: dict[str, NDArray[Any]]) -> Runner:
        """A runner of one thread with another's inputs, but for a z and outputs of its own."""
        z = {"z": np.zeros_like(inputs["z"])}
        return maker(Arrays(inputs | z, buffers(self._table.outputs, self._batch)))

    def ran(self, seconds: float) -> None:
        """Counts a run on all threads."""
        self._spent += seconds  # of two at once one may be lost: it is no exact limit

    def stop(self) -> None:
        """Leaves all threads to every run from now on."""
        self.differs, self._maker = True, None

    def _second(self) -> Maker | None:
        """The second compilation, which who comes first makes; None while it is made."""
        if self._compiled is not None and self._compiling.acquire(blocking=False):
            try:
                if self._compiled is not None:
                    self._maker = self._compiled()
                    self._compiled = None  # and with it the graph's bytes
            except PicmeError:  # no memory is left, say: the first compilation does all there is
                self.stop()
            finally:
                self._compiling.release()
        return self._maker


class _MeetingRunner:
    """See `Runner`: one set of buffers, and two ways to fill it."""

    def __init__(self, alone: Maker, given: Arrays, meeting: Meeting):
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
            began = time.perf_counter()
            self._alone.run()
            self._meeting.ran(time.perf_counter() - began)
            return
        if self._beside is None:
            self._beside = maker(Arrays(self._given.inputs, self._given.outputs.copy()))
            if self._narrowed is not None:
                self._beside.narrow(*self._narrowed)
        if (found := sizes(self)) in self._meeting.equal:
            self._beside.run()
        else:
            self._compare(self._beside, found)

    def _compare(self, beside: Runner, sizes: Sizes) -> None:
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

"""Graphs behind NumPy buffers that are bound once, reused, and never shared by two calls."""

import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from picme_rt.errors import EngineError, PicmeError, one_line
from picme_rt.framing import Box
from picme_rt.tensors import Graph, Tensor
from picme_rt.turns import Turns
from picme_rt.windows import Windows

_KEPT = 16  # free runners of a graph: as many calls take turns at buffers that are there


class Arrays(NamedTuple):
    """The buffers of one graph, of its largest shapes."""

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


class Runner(Protocol):
    """A graph and its buffers: one call at a time fills `inputs`, runs, and reads `outputs`."""

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]

    def narrow(self, height: int, width: int) -> None:
        """Makes `outputs["picture"]` one of these sides, in memory that it has already."""
        ...

    def run(self) -> None:
        """Runs the graph; may raise whatever its library raises."""
        ...


def arrays(table: Graph, batch: int) -> Arrays:
    """Buffers for a graph."""
    return Arrays(buffers(table.inputs, batch), buffers(table.outputs, batch))


def buffers(tensors: tuple[Tensor, ...], batch: int) -> dict[str, NDArray[Any]]:
    """A buffer for each tensor, of its largest shape, with the batch in front if it has one."""
    return {t.name: np.zeros((batch, *t.shape) if t.batched else t.shape, t.kind) for t in tensors}


def narrowed(buffer: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """(batch, C, height, width) at the beginning of a larger buffer."""
    shape = (*buffer.shape[:2], height, width)
    return buffer.reshape(-1)[: math.prod(shape)].reshape(shape)


class BoxRunner:
    """A decoder's runner that makes a box of the picture; its `outputs` are 0 elsewhere.

    Args:
        runner: Of a decoder with the input `box`.
        windows: Those that this decoder makes a box from (`graphs.Graphs.windows`).

    Attributes:
        graph: The runner.
    """

    def __init__(self, runner: Runner, windows: Callable[[Box], Windows]):
        self.graph, self._windows, self.inputs = runner, windows, runner.inputs
        self.outputs = {"picture": np.zeros_like(runner.outputs["picture"])}
        self._asked: Windows | None = None

    def narrow(self, height: int, width: int) -> None:
        """See `Runner`."""
        self.graph.narrow(height, width)

    def aim(self, box: Box) -> None:
        """Makes this box from the next run on.

        Raises:
            EngineError: The decoder's shapes do not follow for this box.
        """
        picture = self.outputs["picture"]
        if self._asked is None or box != self._asked.box:
            self._asked = self._windows(box)
            made = self._asked.made
            self.narrow(made.bottom - made.top, made.right - made.left)
            picture[:] = 0
        self.inputs["box"][:] = self._asked.rows

    def run(self) -> None:
        """See `Runner`."""
        assert self._asked is not None  # `aim` comes first
        self.graph.run()
        made, box = self._asked.made, self._asked.box
        part = self.graph.outputs["picture"][:, :, box.top - made.top :, box.left - made.left :]
        height, width = box.bottom - box.top, box.right - box.left
        whole = self.outputs["picture"]
        whole[:, :, box.top : box.bottom, box.left : box.right] = part[:, :, :height, :width]


class Pool:
    """The runners of one graph that are free; each call in flight has its own.

    At most `_KEPT` are kept: so many calls at once are rare, and their buffers are memory.

    Args:
        role: What the graph is called in errors.
        make: Makes one more runner.
        turns: Who may run.
    """

    def __init__(self, role: str, make: Callable[[], Runner], turns: Turns):
        self._role, self._make, self._turns = role, make, turns
        self._free: list[Runner] = []
        # Python may collect a stream that was given up while one is made here, in this thread: its
        # end gives a runner back
        self._lock = threading.RLock()

    def take(self) -> Runner:
        """A runner that is the caller's until it is given back.

        Raises:
            EngineError: There is none, and no other can be made.
        """
        with self._lock:
            if self._free:
                return self._free.pop()
            try:
                return self._make()
            except PicmeError:
                raise
            except Exception as exc:  # as in `run`; a GPU may be full
                raise EngineError(f"the {self._role} has no buffers: {one_line(exc)}") from exc

    def give(self, runner: Runner) -> None:
        """Takes a runner back."""
        with self._lock:
            if len(self._free) < _KEPT:
                self._free.append(runner)

    def run(self, runner: Runner) -> None:
        """Runs a runner when it is its turn.

        Raises:
            EngineError: The graph did not run.
        """
        try:
            with self._turns:
                runner.run()
        except Exception as exc:  # the libraries' errors share no base but Exception
            raise EngineError(f"the {self._role} did not run: {one_line(exc)}") from exc

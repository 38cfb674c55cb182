"""Graphs behind NumPy buffers that are bound once, reused, and never shared by two calls."""

import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from picme_rt.choices import Settings
from picme_rt.errors import ClosedError, EngineError, one_line
from picme_rt.framing import Box
from picme_rt.images import Float
from picme_rt.tensors import Graph, Tensor
from picme_rt.turns import Turns
from picme_rt.windows import Crop, Windows, windows


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
        crops: Of this decoder.
    """

    def __init__(self, runner: Runner, crops: tuple[Crop, ...]):
        self._runner, self._crops, self.inputs = runner, crops, runner.inputs
        self.outputs = {"picture": np.zeros_like(runner.outputs["picture"])}
        self._asked: Windows | None = None

    def narrow(self, height: int, width: int) -> None:
        """See `Runner`."""
        self._runner.narrow(height, width)

    def aim(self, box: Box) -> None:
        """Makes this box from the next run on."""
        picture = self.outputs["picture"]
        if self._asked is None or box != self._asked.box:
            self._asked = windows(picture.shape[-1], self._crops, box)
            made = self._asked.made
            self.narrow(made.bottom - made.top, made.right - made.left)
            picture[:] = 0
        self.inputs["box"][:] = self._asked.rows

    def run(self) -> None:
        """See `Runner`."""
        assert self._asked is not None  # `aim` comes first
        self._runner.run()
        made, box = self._asked.made, self._asked.box
        part = self._runner.outputs["picture"][:, :, box.top - made.top :, box.left - made.left :]
        height, width = box.bottom - box.top, box.right - box.left
        whole = self.outputs["picture"]
        whole[:, :, box.top : box.bottom, box.left : box.right] = part[:, :, :height, :width]


class Pool:
    """The runners of one graph that are free; each call in flight has its own.

    Args:
        role: What the graph is called in errors.
        make: Makes one more runner.
        turns: Who may run.
    """

    def __init__(self, role: str, make: Callable[[], Runner], turns: Turns):
        self._role, self._make, self._turns = role, make, turns
        self._free: list[Runner] = []
        self._lock = threading.Lock()

    def take(self) -> Runner:
        """A runner that is the caller's until it is given back."""
        with self._lock:
            return self._free.pop() if self._free else self._make()

    def give(self, runner: Runner) -> None:
        """Takes a runner back."""
        with self._lock:
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


class HostBackend:
    """`Backend` over two graphs, which take and give arrays of the host.

    Args:
        settings: How they were opened.
        variant: The engine's variant whose files they are.
        turns: Who may run; both graphs share them.
        encoder: Runners of batch 1.
        decoder: Runners of `settings.micro_batch` latents.
        crops: Of the decoder.
    """

    def __init__(
        self,
        settings: Settings,
        variant: str,
        turns: Turns,
        *,
        encoder: Callable[[], Runner],
        decoder: Callable[[], Runner],
        crops: tuple[Crop, ...],
    ):
        self.name, self.precision, self.variant = settings.backend, settings.precision, variant
        self.threads, self.micro_batch = settings.threads, settings.micro_batch
        self.device = settings.device
        boxed = (lambda: BoxRunner(decoder(), crops)) if crops else decoder
        self._encoder = Pool("encoder", encoder, turns)
        self._decoder = Pool("decoder", boxed, turns)

    def encode(self, image: Float, hole: Float) -> dict[str, Float]:
        """See `Backend.encode`; the arrays are the caller's."""
        runner = self._encoder.take()
        try:
            runner.inputs["image"][:] = image
            runner.inputs["hole"][:] = hole
            self._encoder.run(runner)
            return {name: values.copy() for name, values in runner.outputs.items()}
        finally:
            self._encoder.give(runner)

    def decoding(self, encoded: dict[str, Float], box: Box | None = None) -> "_Decoding":
        """See `Backend.decoding`: in buffers that an earlier call gave back, if any."""
        runner = self._decoder.take()
        for name, buffer in runner.inputs.items():
            if name in encoded:
                buffer[:] = encoded[name]  # into every place of the micro-batch
        size = runner.outputs["picture"].shape[-1]
        whole = Box(0, 0, size, size)
        if not isinstance(runner, BoxRunner):
            return _Decoding(self._decoder, runner, whole)
        asked = whole if box is None else box
        runner.aim(asked)
        return _Decoding(self._decoder, runner, asked)


class _Decoding:
    """See `Decoding`."""

    def __init__(self, pool: Pool, runner: Runner, box: Box):
        self._pool, self._runner, self.box = pool, runner, box
        self._open = True

    def __call__(self, z: Float) -> Float:
        if not self._open:
            raise ClosedError("this decoding was closed; encode the picture again")
        self._runner.inputs["z"][:] = z
        self._pool.run(self._runner)
        picture: Float = self._runner.outputs["picture"]
        return picture

    def close(self) -> None:
        if self._open:
            self._open = False
            self._pool.give(self._runner)
            del self._runner

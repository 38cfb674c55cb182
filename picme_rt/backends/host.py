"""Graphs on the CPU: NumPy buffers that are bound once, reused, and never shared by two calls."""

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np

from picme_rt.choices import Settings
from picme_rt.errors import ClosedError, EngineError, one_line
from picme_rt.images import Float
from picme_rt.tensors import Tensor
from picme_rt.turns import Turns


class Runner(Protocol):
    """A graph and its buffers: one call at a time fills `inputs`, runs, and reads `outputs`."""

    inputs: dict[str, Float]
    outputs: dict[str, Float]

    def run(self) -> None:
        """Runs the graph; may raise whatever its library raises."""
        ...


def buffers(tensors: tuple[Tensor, ...], batch: int) -> dict[str, Float]:
    """A buffer for each tensor, (batch, ...) float32."""
    return {t.name: np.zeros((batch, *t.shape), np.float32) for t in tensors}


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
    """`Backend` over two graphs on the CPU.

    Args:
        settings: How they were opened.
        variant: The engine's variant whose files they are.
        turns: Who may run; both graphs share them.
        encoder: Runners of batch 1.
        decoder: Runners of `settings.micro_batch` latents.
    """

    device = "cpu"

    def __init__(
        self,
        settings: Settings,
        variant: str,
        turns: Turns,
        *,
        encoder: Callable[[], Runner],
        decoder: Callable[[], Runner],
    ):
        self.name, self.precision, self.variant = settings.backend, settings.precision, variant
        self.threads, self.micro_batch = settings.threads, settings.micro_batch
        self._encoder = Pool("encoder", encoder, turns)
        self._decoder = Pool("decoder", decoder, turns)

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

    def decoding(self, encoded: dict[str, Float]) -> "_Decoding":
        """See `Backend.decoding`: in buffers that an earlier call gave back, if any."""
        runner = self._decoder.take()
        for name, buffer in runner.inputs.items():
            if name in encoded:
                buffer[:] = encoded[name]  # into every place of the micro-batch
        return _Decoding(self._decoder, runner)


class _Decoding:
    """See `Decoding`."""

    def __init__(self, pool: Pool, runner: Runner):
        self._pool, self._runner = pool, runner
        self._open = True

    def __call__(self, z: Float) -> Float:
        if not self._open:
            raise ClosedError("this decoding was closed; encode the picture again")
        self._runner.inputs["z"][:] = z
        self._pool.run(self._runner)
        return self._runner.outputs["picture"]

    def close(self) -> None:
        if self._open:
            self._open = False
            self._pool.give(self._runner)
            del self._runner

"""Work on a device that is queued again and again: as one CUDA graph, or call by call.

The one seam between what a pipeline does and how it gets to a GPU: all else runs on the CPU too.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch

from picme_rt.errors import PicmeError, UnavailableError, one_line

Replay = Callable[[], None]
_WARM_UP = 3  # kernels are loaded and work space is taken outside of the capture
_settings = threading.RLock()
_BY_PART = hasattr(torch.backends, "fp32_precision")


class Recorder(Protocol):
    """Queues work on one device, on one stream.

    Attributes:
        place: The device.
    """

    place: torch.device

    def record(self, call: Callable[[], None], precision: str) -> Replay:
        """`call` as it is queued from now on, inside of `queueing`.

        Args:
            call: It works on the same tensors each time, and what it makes ends in such.
            precision: One of `torch_network.DTYPES`.
        """
        ...

    def queueing(self) -> AbstractContextManager[None]:
        """What torch is asked for inside of it is queued on the stream."""
        ...

    def wait(self) -> None:
        """Until all that was queued is done."""
        ...


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Strict float32 but for tf32, and the same algorithm each time: bits depend on no timing.

    These are settings of the process in torch: who computes something else meanwhile would see
    them, so they hold while a graph is recorded, or one call queued, and no longer. From torch 2.9
    on they are set by its newer names: a thread that meanwhile reads an older one which says
    otherwise (torch.backends.cuda.matmul.allow_tf32) gets a RuntimeError of torch's.
    """
    tf32 = precision == "tf32"
    with _settings, _algorithms(), (_parts if _BY_PART else _whole)(tf32):
        yield


@contextmanager
def _algorithms() -> Iterator[None]:
    cudnn, wanted = torch.backends.cudnn, (True, False, True)
    names = "enabled", "benchmark", "deterministic"
    before = [getattr(cudnn, name) for name in names]
    try:
        for name, value in zip(names, wanted, strict=True):
            setattr(cudnn, name, value)
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(cudnn, name, value)


@contextmanager
def _parts(tf32: bool) -> Iterator[None]:
    """By the names that torch has from 2.9 on; where these are used the older ones raise."""
    every: Any = torch.backends  # these names are in no stub of torch's
    cudnn = every.cudnn
    parts = [(every.cuda.matmul, every), (cudnn.conv, cudnn), (cudnn.rnn, cudnn)]
    before = [part.fp32_precision for part, _ in parts]
    try:
        for part, _ in parts:
            part.fp32_precision = "tf32" if tf32 else "ieee"
        yield
    finally:
        for (part, whole), value in zip(parts, before, strict=True):
            # what it had from the whole it has from there again
            part.fp32_precision = "none" if value == whole.fp32_precision else value


@contextmanager
def _whole(tf32: bool) -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        cudnn.allow_tf32 = tf32
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]


@contextmanager
def reported() -> Iterator[None]:
    """What torch raises becomes one error of ours: a GPU that is full, taken or unknown to it.

    Raises:
        UnavailableError: torch did not compute.
    """
    try:
        yield
    except PicmeError:
        raise
    except RuntimeError as exc:
        raise UnavailableError(f"torch did not compute on the device: {one_line(exc)}") from exc


class _Threads:
    """How many threads torch computes with on the CPU: a number of the process and of each thread.

    A thread that begins takes the number that was set last anywhere, so what the caller's program
    had is kept from the first call of those that overlap to the end of the last.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._outside = threading.Lock(), 0, 0
        self._process: int | None = None

    @contextmanager
    def held(self, wanted: int | None) -> Iterator[None]:
        """Sets the number for the calling thread.

        Raises:
            UnavailableError: torch computed before this process was forked off another: the
                threads that it would wait for are not in this one.
        """
        with self._lock:
            if self._process not in (None, os.getpid()):
                raise UnavailableError(
                    "backend torch computed before this process was forked, and would wait for "
                    "ever in it; start processes with multiprocessing's spawn, or use another "
                    "backend"
                )
            self._process = os.getpid()
            # asked in each thread: one that was never asked would take, at its first operator, the
            # number that another has set in the meantime
            found = torch.get_num_threads()
            if self._inside == 0:
                self._outside = found
            self._inside += 1
        try:
            torch.set_num_threads(wanted or self._outside)
            yield
        finally:
            with self._lock:
                self._inside -= 1
                torch.set_num_threads(self._outside)

    def forked(self) -> None:
        """In a child that was forked: whoever held the lock is not in it."""
        self._lock = threading.Lock()


_threads = _Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.forked)


class OnCpu:
    """Runs what is queued at once.

    Args:
        threads: That torch computes with; None leaves it as it is.
    """

    def __init__(self, threads: int | None = None):
        self.place, self._threads = torch.device("cpu"), threads

    def record(self, call: Callable[[], None], precision: str) -> Replay:
        """See `Recorder`."""

        def replay() -> None:
            with torch.no_grad():
                call()

        return replay

    def queueing(self) -> AbstractContextManager[None]:
        """See `Recorder`; torch's number of threads is put back afterwards."""
        return _threads.held(self._threads)

    def wait(self) -> None:
        """See `Recorder`."""


class OnCuda:
    """Queues on a stream of its own: each call as one CUDA graph, or its operators one by one.

    Args:
        place: The GPU.
        graphs: Whether calls are recorded as graphs. These share their memory: one runs at a time.
    """

    def __init__(self, place: torch.device, *, graphs: bool = True):
        self.place, self._graphs = place, graphs
        self.stream = torch.cuda.Stream(place)  # type: ignore[no-untyped-call]  # torch's own
        self._pool = torch.cuda.graph_pool_handle() if graphs else None

    def record(self, call: Callable[[], None], precision: str) -> Replay:
        """See `Recorder`."""
        if self._pool is None:

            def replay() -> None:
                with torch.no_grad(), arithmetic(precision):
                    call()

            return replay
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), arithmetic(precision), self.queueing():
            for _ in range(_WARM_UP):
                call()
            self.wait()
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"
            ):  # other threads may use the GPU meanwhile
                call()
        return graph.replay

    @contextmanager
    def queueing(self) -> Iterator[None]:
        """See `Recorder`."""
        with torch.cuda.device(self.place), torch.cuda.stream(self.stream):
            yield

    def wait(self) -> None:
        """See `Recorder`."""
        self.stream.synchronize()

"""The few calls of CUDA's runtime that the backend tensorrt makes, behind one protocol.

`load` gives them through cuda-python's `cuda.bindings.runtime`; tests have one without a GPU.
Addresses, streams and graphs are plain integers, as TensorRT and arrays of other libraries name
them. Everything with a stream is queued and returns at once.
"""

import contextlib
import ctypes
import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from picme_rt.errors import MissingPackageError, UnavailableError, one_line

Bytes = NDArray[np.uint8]


class Device(NamedTuple):
    """A GPU.

    Attributes:
        number: In this process.
        name: What CUDA calls it.
        capability: Compute capability, (8, 6).
    """

    number: int
    name: str
    capability: tuple[int, int]


class Cuda(Protocol):
    """CUDA on one GPU; every call raises `UnavailableError` with what CUDA says if it fails."""

    def device(self) -> Device:
        """The GPU in use."""
        ...

    def use(self) -> AbstractContextManager[None]:
        """Makes it the GPU of the calling thread inside of a block, for all calls below.

        Afterwards the caller's is put back.
        """
        ...

    def allocate(self, size: int) -> int:
        """So many bytes on the GPU, at a multiple of 256."""
        ...

    def free(self, address: int) -> None:
        """Gives them back; nothing that is queued may use them any more."""
        ...

    def allocate_host(self, size: int) -> Bytes:
        """Memory of the host that the GPU copies from and to by itself."""
        ...

    def free_host(self, memory: Bytes) -> None:
        """Gives it back."""
        ...

    def new_stream(self) -> int:
        """A queue of work of its own, which waits for no other."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Ends it."""
        ...

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """Queues a copy between any two addresses."""
        ...

    def synchronise(self, stream: int) -> None:
        """Waits until all that is queued is done."""
        ...

    def synchronise_all(self) -> None:
        """Waits until everything is done that is queued on the GPU, by whomever."""
        ...

    def holder(self, address: int) -> int | None:
        """The number of the GPU that holds an address, this or another; None if none does."""
        ...

    def begin_capture(self, stream: int) -> None:
        """From now on what is queued is recorded, not run."""
        ...

    def end_capture(self, stream: int) -> int:
        """The recorded work as a graph."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Queues a graph's work, all of it in one call."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Ends it."""
        ...


def load(device: int = 0) -> Cuda:
    """CUDA of cuda-python on one GPU.

    Raises:
        MissingPackageError: cuda-python is not installed.
        UnavailableError: There is no driver, no GPU, or none of this number.
    """
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError as exc:
        raise MissingPackageError(
            "TensorRT needs cuda-python, which is not installed or cannot be imported "
            f"({one_line(exc)}); pip install 'cuda-bindings>=13', which the extras tensorrt and "
            "rtx bring"
        ) from exc
    return _CudaPython(runtime, driver, device)


class _CudaPython:
    """`Cuda` through cuda-python."""

    def __init__(self, runtime: Any, driver: Any, index: int):
        self._runtime, self._driver, self._index = runtime, driver, index
        error, count = runtime.cudaGetDeviceCount()
        if error != 0 or count == 0:
            raise UnavailableError(
                "this needs an NVIDIA GPU and its driver, "
                f"CUDA says {self._named(error) if error != 0 else 'that it has no device'}: "
                "install the driver, or use the backends of the CPU (extra cpu)"
            )
        if not 0 <= index < count:
            raise UnavailableError(
                f"device must be one of cuda:0 to cuda:{count - 1}, got cuda:{index}"
            )

    def _named(self, error: Any) -> str:
        _, name = self._runtime.cudaGetErrorName(error)
        return name.decode() if isinstance(name, bytes) else str(name)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the runtime; what it gives beside its error."""
        error, *found = getattr(self._runtime, name)(*arguments)
        if error != 0:
            raise UnavailableError(f"CUDA's {name} failed: {self._named(error)}")
        return found[0] if found else None

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        # contexts are put back, not numbers: cudaSetDevice(0) for a thread that has named no GPU
        # would begin a context on GPU 0, with its memory, and replace one of the caller's own
        error, before = self._driver.cuCtxGetCurrent()
        if error != 0:
            raise UnavailableError(f"CUDA's cuCtxGetCurrent failed: {error!s}")
        self._call("cudaSetDevice", self._index)
        try:
            yield
        finally:
            self._driver.cuCtxSetCurrent(before)

    def device(self) -> Device:
        found = self._call("cudaGetDeviceProperties", self._index)
        name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
        return Device(self._index, name.rstrip("\0"), (found.major, found.minor))

    def allocate(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def allocate_host(self, size: int) -> Bytes:
        address = int(self._call("cudaMallocHost", size))
        memory = (ctypes.c_uint8 * size).from_address(address)
        return np.ctypeslib.as_array(memory)

    def free_host(self, memory: Bytes) -> None:
        self._call("cudaFreeHost", memory.ctypes.data)

    def new_stream(self) -> int:
        return int(self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDefault
        self._call("cudaMemcpyAsync", to, source, size, kind, stream)

    def synchronise(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def synchronise_all(self) -> None:
        self._call("cudaDeviceSynchronize")

    def holder(self, address: int) -> int | None:
        number = int(self._call("cudaPointerGetAttributes", address).device)
        return number if number >= 0 else None

    def begin_capture(self, stream: int) -> None:
        # of this thread: what others call meanwhile does not break it
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        recorded = self._call("cudaStreamEndCapture", stream)
        try:
            graph = self._call("cudaGraphInstantiate", recorded, 0)
        finally:
            self._call("cudaGraphDestroy", recorded)
        return int(graph)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cudaGraphExecDestroy", graph)

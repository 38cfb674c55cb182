"""One run on the GPU: encoder, sampler, decoder, composite, in buffers that were made once.

    copy there -> encoder -> sample_gmm -> decoder -> composite -> copy back

All of it is queued on one stream. What is asked a second time is captured as one CUDA graph, and
from then on a run is one call; a graph keeps k, first, mode, primitive and temperature as they are.
"""

import contextlib
import gc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from picme_rt.cuda_runtime import Cuda
from picme_rt.device_buffers import Buffer, Layout, Sizes, layout
from picme_rt.encoded import Request
from picme_rt.errors import UnavailableError
from picme_rt.packed_canvases import PackedCanvases
from picme_rt.tensors import Tables

MOST_WAYS = 16
"""Graphs that are kept for one size of runs; `stream` asks in ever new ways."""


class Queued(Protocol):
    """A network on fixed buffers."""

    def run(self, stream: int) -> None:
        """Queues one run."""
        ...


class Kernels(NamedTuple):
    """Our two kernels, as `sampling_cuda` and `composite_cuda` have them."""

    sample_gmm: Callable[..., None]
    composite: Callable[..., None]


class Networks(Protocol):
    """What makes both networks ready for some buffers."""

    def contexts(self, places: Layout, begin: int) -> tuple[Queued, Queued]:
        """Encoder and decoder on the buffers that begin at an address."""
        ...


class Way(NamedTuple):
    """What a graph holds fast.

    Attributes:
        request: Its `seed` is 0: seeds are read from memory.
        over: Whether results are pasted over those of the run before: a picture's second region.
    """

    request: Request
    over: bool


class Asked(NamedTuple):
    """One run's input: B pictures, each in arrays of its own.

    Attributes:
        image: (3, S, S) float32 each.
        hole: (1, S, S) float32 each.
        seeds: 0 to 2**64 - 1 each.
        originals: (H, W, 3) uint8 each.
        canvases: Of all, packed.
    """

    image: Sequence[NDArray[np.float32]]
    hole: Sequence[NDArray[np.float32]]
    seeds: Sequence[int]
    originals: Sequence[NDArray[np.uint8]]
    canvases: PackedCanvases


class Placed(NamedTuple):
    """A buffer of a run, as our kernels take it."""

    address: int
    buffer: Buffer

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {
            "shape": self.buffer.shape,
            "typestr": np.dtype(self.buffer.dtype).str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
        }


class DeviceRun:
    """Buffers, contexts and graphs for runs of one size; one run at a time.

    Args:
        cuda: CUDA.
        networks: The plans.
        kernels: Our kernels.
        tables: Of the engine.
        sizes: Of these runs.
        stream: The queue.
    """

    def __init__(
        self,
        cuda: Cuda,
        networks: Networks,
        kernels: Kernels,
        tables: Tables,
        sizes: Sizes,
        stream: int,
    ):
        self.sizes, self._layout = sizes, layout(tables, sizes)
        self._cuda, self._kernels, self._stream = cuda, kernels, stream
        self._graphs: OrderedDict[Way, int | None] = OrderedDict()
        with contextlib.ExitStack() as undo:
            self._begin = cuda.allocate(self._layout.size)
            undo.callback(cuda.free, self._begin)
            self._host = cuda.allocate_host(self._layout.size)
            undo.callback(cuda.free_host, self._host)
            self._encoder, self._decoder = networks.contexts(self._layout, self._begin)
            undo.pop_all()  # all is there
        self._on_device = {
            name: Placed(self._begin + buffer.offset, buffer)
            for name, buffer in self._layout.buffers.items()
        }

    @property
    def bytes(self) -> int:
        """What its buffers take, on the GPU and as much on the host."""
        return self._layout.size

    def run(self, asked: Asked, way: Way) -> None:
        """Runs and waits; `result` has what came back."""
        for name in ("image", "hole", "seeds", "originals"):
            held = self.result(name)
            for place, value in enumerate(getattr(asked, name)):
                held[place] = value
        self.result("packed")[: asked.canvases.data.size] = asked.canvases.data
        known = way in self._graphs
        graph = self._graphs.setdefault(way, None)
        self._graphs.move_to_end(way)
        if len(self._graphs) > MOST_WAYS:
            _, oldest = self._graphs.popitem(last=False)
            if oldest is not None:
                self._cuda.destroy_graph(oldest)
        if graph is None and known:  # the second time: kernels are loaded, it is worth it
            graph = self._graphs[way] = self._capture(asked.canvases, way)
        if graph is None:
            self._queue(asked.canvases, way)
        else:
            self._cuda.launch(graph, self._stream)
        self._cuda.synchronise(self._stream)

    def result(self, name: str) -> NDArray[Any]:
        """A buffer on the host, until the next run: what was copied there, or came back."""
        return self._view(name)

    def pictures(self) -> NDArray[np.float32]:
        """The decoder's pictures (B, k, 3, S, S) of the last run, fetched."""
        address, buffer = self._on_device["picture"]
        host = self._host.ctypes.data + buffer.offset
        self._cuda.copy(host, address, buffer.size, self._stream)
        self._cuda.synchronise(self._stream)
        return self._view("picture")

    def is_new(self, way: Way) -> bool:
        """Whether nothing was run in this way yet, or the last run of it failed."""
        return way not in self._graphs

    def forget(self, way: Way) -> None:
        """After an error: lets a way be new again, its graph gone and nothing of it queued."""
        graph = self._graphs.pop(way, None)
        with contextlib.suppress(UnavailableError):  # the first error is the one to be read
            self._cuda.synchronise(self._stream)
            if graph is not None:
                self._cuda.destroy_graph(graph)

    def keep(self, place: int, k: int) -> int:
        """A copy on the GPU of the first k results of picture `place`; its address."""
        address, buffer = self._on_device["out"]
        each = buffer.size // self.sizes.batch
        size = each // self.sizes.k * k
        kept = self._cuda.allocate(size)
        self._cuda.copy(kept, address + place * each, size, self._stream)
        self._cuda.synchronise(self._stream)
        return kept

    def close(self) -> None:
        """Frees everything, each thing once, whatever CUDA says to it: it may be in an error."""
        graphs = [graph for graph in self._graphs.values() if graph is not None]
        self._graphs.clear()
        for graph in graphs:
            with contextlib.suppress(UnavailableError):
                self._cuda.destroy_graph(graph)
        with contextlib.suppress(UnavailableError):
            self._cuda.free(self._begin)
        with contextlib.suppress(UnavailableError):
            self._cuda.free_host(self._host)
        del self._encoder, self._decoder

    def _view(self, name: str) -> NDArray[Any]:
        offset, shape, dtype = buffer = self._layout.buffers[name]
        part = self._host[offset : offset + buffer.size]
        return part.view(dtype).reshape(shape)

    def _capture(self, canvases: PackedCanvases, way: Way) -> int:
        collects = gc.isenabled()
        gc.disable()  # a result that it finds would be freed, which no capture survives
        try:
            self._cuda.begin_capture(self._stream)
            try:
                self._queue(canvases, way)
            except BaseException:
                with contextlib.suppress(UnavailableError):  # the first error is the one to be read
                    self._cuda.destroy_graph(self._cuda.end_capture(self._stream))
                raise
            return self._cuda.end_capture(self._stream)
        finally:
            if collects:
                gc.enable()

    def _queue(self, canvases: PackedCanvases, way: Way) -> None:
        request, on, stream = way.request, self._on_device, self._stream
        host, there, back = self._host.ctypes.data, self._layout.there, self._layout.back
        self._cuda.copy(self._begin, host, there, stream)
        self._encoder.run(stream)
        self._kernels.sample_gmm(
            *(on[name] for name in ("log_alpha", "mu", "log_sigma", "seeds")),
            k=request.k,
            first=request.first,
            mode=request.mode,
            primitive=request.primitive,
            temperature=request.temperature,
            out_z=on["z"],
            out_primitive=on["primitive"],
            out_log_prob=on["log_prob"],
            stream=stream,
        )
        self._decoder.run(stream)
        self._kernels.composite(
            on["picture"],
            None if way.over else on["originals"],
            canvases,
            on["packed"],
            out=on["out"],
            scratch=on["scratch"],
            stream=stream,
        )
        self._cuda.copy(host + back, self._begin + back, self._layout.size - back, stream)

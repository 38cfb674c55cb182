"""Runs of all sizes on one GPU: which buffers serve a request, and what comes of it.

One run at a time; results of k are made in buckets (`device_buffers.bucket`).
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt import output_checks, plans
from picme_rt.backends import tensorrt
from picme_rt.backends.tensorrt_library import Library
from picme_rt.composite import Canvas, Fit
from picme_rt.cuda_runtime import Cuda
from picme_rt.device_array import DeviceArray
from picme_rt.device_buffers import Layout, Sizes, bucket, layout, padded
from picme_rt.device_run import Asked, DeviceRun, Kernels, Queued, Way
from picme_rt.dlpack import CUDA
from picme_rt.encoded import Mixture, Request
from picme_rt.engine import Engine
from picme_rt.errors import ClosedError, UnavailableError
from picme_rt.framing import Box
from picme_rt.images import Image
from picme_rt.models import CLOSED
from picme_rt.packed_canvases import pack
from picme_rt.plans import Plans
from picme_rt.tensors import Graph

MOST_RUNS, MOST_BYTES = 8, 1 << 30
"""Sizes of runs that are kept ready, and bytes of their buffers; what was not used for longest
goes."""
MOST_CONTEXT_BYTES = 4 << 30
"""Bytes of the GPU that their contexts may take: one takes what its plan's largest sizes need."""
_SAMPLES = 1 << 32  # indices of one seed


class Part(NamedTuple):
    """One region of a picture, ready to be copied to the GPU."""

    fitted: Fit
    canvas: Canvas


class Job(NamedTuple):
    """One picture of a run: (H, W, 3) uint8, at least one region, its seed."""

    pixels: Image
    parts: Sequence[Part]
    seed: int


class Found(NamedTuple):
    """A run's results for each of its pictures, in arrays that are the caller's.

    Attributes:
        images: (B, k, H, W, 3) uint8; none where they stay on the GPU.
        primitives: (B, k) int32, of the largest region.
        log_prob: (B, k) float32, of all regions together.
    """

    images: NDArray[np.uint8] | None
    primitives: NDArray[np.int32]
    log_prob: NDArray[np.float32]


class _Networks:
    """See `device_run.Networks`."""

    def __init__(self, library: Library, found: Plans, tables: dict[str, Graph]):
        self._library, self._tables = library, tables
        self._loaded = tensorrt.load(library, found, tables)
        networks = (self._loaded.encoder, self._loaded.decoder)
        self.context_bytes = sum(map(tensorrt.context_bytes, networks))  # of one run

    def contexts(self, places: Layout, begin: int) -> tuple[Queued, Queued]:
        encoder, decoder = (
            tensorrt.Context(
                self._library, getattr(self._loaded, role), self._tables[role], places, begin
            )
            for role in plans.ROLES
        )
        return encoder, decoder


class DevicePipeline:
    """An engine's plans on one GPU; may be shared between threads.

    Args:
        engine: The engine.
        cuda: CUDA.
        library: TensorRT, or TensorRT-RTX.
        found: Its plans.
        kernels: Our kernels.
    """

    def __init__(
        self, engine: Engine, cuda: Cuda, library: Library, found: Plans, kernels: Kernels
    ):
        decoder = plans.decoder_table(engine.tables.decoder)
        self._tables = engine.tables._replace(decoder=decoder)
        self.options, self.device = found.options, cuda.device()
        self._size, self._cuda, self._kernels = engine.size, cuda, kernels
        with cuda.use():
            self._networks: _Networks | None = _Networks(library, found, self._tables._asdict())
            self._stream = cuda.new_stream()
        self._runs: OrderedDict[Sizes, DeviceRun] = OrderedDict()
        self._turn = threading.Lock()

    def run(self, jobs: Sequence[Job], request: Request) -> Found:
        """Results of pictures of one size with equally many regions.

        Args:
            jobs: At most `options.max_batch`.
            request: Checked, of at most `options.max_k`; its seed counts for nothing.

        Raises:
            ClosedError: The pipeline is closed.
            EngineError: A network fails, or gives what no network of an engine gives.
        """
        with self._turn, self._cuda.use():
            run, found = self._run(jobs, request)
            return found._replace(images=run.result("out")[: len(jobs), : request.k].copy())

    def keep(self, job: Job, request: Request) -> tuple[DeviceArray, Found]:
        """Results (k, H, W, 3) of one picture that stay on the GPU."""
        with self._turn, self._cuda.use():
            run, found = self._run([job], request)
            address = run.keep(0, request.k)
        return self._array(address, (request.k, *job.pixels.shape)), found

    def upload(self, images: NDArray[np.uint8]) -> DeviceArray:
        """An array of the host's, on the GPU."""
        with self._turn, self._cuda.use():
            self.check_open()
            images = np.ascontiguousarray(images)
            address = self._cuda.allocate(images.nbytes)
            self._cuda.copy(address, images.ctypes.data, images.nbytes, self._stream)
            self._cuda.synchronise(self._stream)
        return self._array(address, images.shape)

    def mixture(self, job: Job) -> Mixture:
        """What the latents of the largest region are drawn from."""
        request = Request(1, 0, 0, "mean", None, 1.0)
        with self._turn, self._cuda.use():
            run, _ = self._run([job._replace(parts=job.parts[:1])], request)
            return Mixture(*(run.result(name)[:1].copy() for name in Mixture._fields))

    def close(self) -> None:
        """Frees all but results that were handed out; closing twice is allowed."""
        with self._turn:
            if self._networks is None:
                return
            self._networks = None  # now: nothing is to be freed twice, whatever happens
            with self._cuda.use():
                while self._runs:
                    self._runs.popitem()[1].close()
                with contextlib.suppress(UnavailableError):  # CUDA may be in an error
                    self._cuda.destroy_stream(self._stream)

    def check_open(self) -> _Networks:
        """The plans.

        Raises:
            ClosedError: They were closed.
        """
        if self._networks is None:
            raise ClosedError(CLOSED)
        return self._networks

    def _run(self, jobs: Sequence[Job], request: Request) -> tuple[DeviceRun, Found]:
        """Runs every region of all jobs, each pasted over the one before it."""
        self.check_open()
        batch, k = len(jobs), bucket(request.k, self.options.max_k)
        if request.first + k > _SAMPLES:
            k = request.k
        rows = bucket(batch, self.options.max_batch)
        every = [*jobs, *[jobs[-1]] * (rows - batch)]
        packed = [pack([job.parts[i].canvas for job in every]) for i in range(len(jobs[0].parts))]
        height, width = jobs[0].pixels.shape[:2]
        room = max(padded(one.data.size) for one in packed)
        sizes = Sizes(rows, k, height, width, room, packed[0].grid)
        run = self._ready(sizes)
        log_prob = np.zeros((batch, request.k), np.float32)
        for i, canvases in enumerate(packed):
            asked = Asked(
                [job.parts[i].fitted.image for job in every],
                [job.parts[i].fitted.hole for job in every],
                [job.seed for job in every],
                [job.pixels for job in every],
                canvases,
            )
            way = Way(request._replace(k=k, seed=0), over=i > 0)
            self._go(run, asked, way)
            if i == 0:
                primitives = run.result("primitive")[:batch, : request.k].copy()
            log_prob += run.result("log_prob")[:batch, : request.k]
        return run, Found(None, primitives, log_prob)

    def _go(self, run: DeviceRun, asked: Asked, way: Way) -> None:
        """One run, and a look at what the networks gave.

        Pictures are looked at the first time that something is asked in a way: later they do not
        leave the GPU. A way that failed is new the next time.
        """
        new = run.is_new(way)
        try:
            run.run(asked, way)
            output_checks.check_values(
                {name: run.result(name) for name in (*Mixture._fields, "log_prob")}
            )
            if new:
                pictures = run.pictures().reshape(-1, 3, self._size, self._size)
                output_checks.check_picture(pictures, Box(0, 0, self._size, self._size))
        except BaseException:
            run.forget(way)
            raise

    def _ready(self, sizes: Sizes) -> DeviceRun:
        """The buffers, contexts and graphs for a size, made if they are not there."""
        networks = self.check_open()
        if sizes not in self._runs:
            wanted = layout(self._tables, sizes).size
            while self._runs and (
                len(self._runs) >= MOST_RUNS
                or wanted + sum(run.bytes for run in self._runs.values()) > MOST_BYTES
                or (len(self._runs) + 1) * networks.context_bytes > MOST_CONTEXT_BYTES
            ):
                self._runs.popitem(last=False)[1].close()
            self._runs[sizes] = DeviceRun(
                self._cuda, networks, self._kernels, self._tables, sizes, self._stream
            )
        self._runs.move_to_end(sizes)
        return self._runs[sizes]

    def _array(self, address: int, shape: tuple[int, ...]) -> DeviceArray:
        cuda = self._cuda

        def free() -> None:
            with cuda.use():
                cuda.free(address)

        def fetch() -> NDArray[np.uint8]:
            return download(cuda, address, shape)

        device = (CUDA, self.device.number)
        return DeviceArray(address, shape, device=device, free=free, fetch=fetch)


def download(cuda: Cuda, address: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Bytes of the GPU that nobody writes, on the host."""
    found = np.empty(shape, np.uint8)
    with cuda.use():
        stream = cuda.new_stream()
        try:
            cuda.copy(found.ctypes.data, address, found.nbytes, stream)
            cuda.synchronise(stream)
        finally:
            cuda.destroy_stream(stream)
    return found

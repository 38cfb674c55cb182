"""CUDA and TensorRT without a GPU, unforgiving: what a real one would do wrong in silence fails.

Memory of the "GPU" is the host's, at addresses of its own that nobody else has. Work on a stream
waits until somebody synchronises: so a result that is read too early still holds poison, and an
input that is changed too early changes the result. Plans are ONNX files, run by ONNX Runtime.
"""

import contextlib
import ctypes
import math
import threading
from types import SimpleNamespace

import numpy as np
import onnxruntime

from picme_rt import kernels
from picme_rt.composite import Canvas
from picme_rt.composite_ref import composite_ref
from picme_rt.cuda_runtime import Device
from picme_rt.framing import Box
from picme_rt.resample import Taps

POISON = 0xA7
HEADER = 37


class MisuseError(AssertionError):
    """What no GPU would forgive."""


def check(right, message):
    if not right:
        raise MisuseError(message)


class FakeCuda:
    """`picme_rt.cuda_runtime.Cuda`."""

    def __init__(self, name="Fake GPU", capability=(8, 6)):
        self.about = Device(0, name, capability)
        self.memory, self.pinned = {}, {}  # address -> buffer; what is alive
        self.streams, self.graphs, self.gone = {1: []}, {}, {}  # 1 is CUDA's default stream
        self.recording = None  # stream, work
        self.log = []  # what was queued, in order; a graph's launch is one entry
        self.next = 0x1000
        self.thread = threading.local()

    def device(self):
        return self.about

    @property
    def current(self):
        """The calling thread's GPU; None where it is whatever the caller has."""
        return getattr(self.thread, "current", None)

    @contextlib.contextmanager
    def use(self):
        self.log.append("use")
        before, self.thread.current = self.current, self.about.number
        try:
            yield
        finally:
            self.thread.current = before

    def allocate(self, size):
        check(size > 0, "nothing is allocated")
        check(self.recording is None, "memory is allocated while a graph is captured")
        raw = (ctypes.c_uint8 * (size + 256))()
        ctypes.memset(raw, POISON, size + 256)
        address = -(-ctypes.addressof(raw) // 256) * 256
        self.memory[address] = (size, raw)
        return address

    def free(self, address):
        check(address in self.memory, f"{address:#x} is freed twice or was never allocated")
        check(not any(self.streams.values()), "memory is freed while work is queued")
        _, raw = self.memory.pop(address)
        ctypes.memset(raw, POISON, len(raw))
        self.gone[address] = raw  # kept, so that nobody gets this address again

    def allocate_host(self, size):
        memory = np.full(size, POISON, np.uint8)
        self.pinned[memory.ctypes.data] = memory
        return memory

    def free_host(self, memory):
        check(not any(self.streams.values()), "pinned memory is freed while work is queued")
        check(self.pinned.pop(memory.ctypes.data, None) is not None, "it was never allocated")

    def new_stream(self):
        self.next += 16
        self.streams[self.next] = []
        return self.next

    def destroy_stream(self, stream):
        check(not self.streams.pop(stream), "a stream goes while work is queued")

    def inside(self, address, size):
        """The bytes at an address, if all of them are alive on the GPU."""
        for begin, (length, _) in self.memory.items():
            if begin <= address and address + size <= begin + length:
                raw = (ctypes.c_uint8 * size).from_address(address)
                return np.ctypeslib.as_array(raw)
        raise MisuseError(f"{size} bytes at {address:#x} are not allocated on the GPU, or not all")

    def array(self, address, shape, dtype):
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return self.inside(address, size).view(dtype).reshape(shape)

    def queue(self, what, work, stream):
        check(stream in self.streams, f"{what} is queued on {stream}, which is no stream")
        if self.recording is not None:
            check(stream == self.recording[0], f"{what} leaves the stream that is captured")
            self.recording[1].append((what, work))
            return
        self.log.append(what)
        self.streams[stream].append(work)

    def found(self, address, size):
        """Which memory that is, and its bytes; whoever names no GPU's means ordinary memory."""
        for begin, memory in self.pinned.items():
            if begin <= address < begin + memory.size:
                part = memory[address - begin :][:size]
                check(part.size == size, "a copy leaves its pinned memory")
                return "pinned", part
        if any(begin <= address < begin + size for begin, (size, _) in self.memory.items()):
            return "gpu", self.inside(address, size)
        check(address not in self.gone, f"{address:#x} was freed")
        return "host", np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def copy(self, to, source, size, stream):
        ways = self.found(source, size)[0], self.found(to, size)[0]
        check("gpu" in ways, f"a copy from {ways[0]} to {ways[1]} is no work of a GPU")

        def work():
            self.found(to, size)[1][:] = self.found(source, size)[1]

        self.queue({"gpu": "copy back", "pinned": "copy there"}.get(ways[0], "copy"), work, stream)

    def synchronise(self, stream):
        check(self.recording is None, "somebody waits while a graph is captured")
        check(stream in self.streams, "there is no such stream")
        work, self.streams[stream] = self.streams[stream], []
        for each in work:
            each()
        self.log.append("wait")

    def synchronise_all(self):
        for stream in self.streams:
            self.synchronise(stream)

    def holder(self, address):
        return self.about.number if self.found(address, 1)[0] == "gpu" else None

    def begin_capture(self, stream):
        check(self.recording is None and stream in self.streams, "a capture inside of a capture")
        self.recording = stream, []
        self.log.append("capture")

    def end_capture(self, stream):
        check(self.recording is not None and self.recording[0] == stream, "no capture to end")
        self.next += 16
        self.graphs[self.next], self.recording = self.recording[1], None
        return self.next

    def launch(self, graph, stream):
        check(graph in self.graphs, "a graph is launched that is gone")
        work = self.graphs[graph]
        self.queue("graph", lambda: [each() for _, each in work], stream)

    def destroy_graph(self, graph):
        check(not any(self.streams.values()), "a graph goes while work is queued")
        del self.graphs[graph]

    def clean(self):
        """Nothing is left."""
        return not (self.memory or self.pinned or self.graphs) and self.streams == {1: []}


def fake_kernels(cuda, monkeypatch):
    """The compiled module's two launchers, on the fake's memory, as late as its streams work."""
    from picme_rt import _kernels

    def sample_gmm(*, stream, **given):
        batch, count, dim, k = (given[n] for n in ("batch", "primitives", "dim", "k"))

        def work():
            def at(name, shape, dtype=np.float32):
                return cuda.array(given[name], shape, dtype)

            mixture = [at("log_alpha", (batch, count))]
            mixture += [at(n, (batch, count, dim)) for n in ("mu", "log_sigma")]
            options = {n: given[n] for n in ("k", "first", "mode", "primitive", "temperature")}
            if not all(np.isfinite(one).all() for one in mixture):  # nobody looks on a GPU
                for name, shape in (("out_z", (batch, k, dim)), ("out_log_prob", (batch, k))):
                    at(name, shape)[:] = np.nan
                return
            drawn = kernels.sample_gmm(*mixture, at("seeds", (batch,), np.uint64), **options)
            at("out_z", (batch, k, dim))[:] = drawn.z
            at("out_primitive", (batch, k), np.int32)[:] = drawn.primitive
            at("out_log_prob", (batch, k))[:] = drawn.log_prob

        assert given["dtype"] == "float32"
        cuda.queue("sample_gmm", work, stream)

    def composite(*, stream, **given):
        batch, k, size, grid = (given[n] for n in ("batch", "k", "size", "grid"))
        height, width = given["height"], given["width"]

        def work():
            pictures = cuda.array(given["pictures"], (batch, k, 3, size, size), np.float32)
            originals = None
            if given["originals"]:
                originals = cuda.array(given["originals"], (batch, height, width, 3), np.uint8)
            scratch = cuda.array(given["scratch"], (batch, k, 3, grid, grid + size), np.float32)
            scratch[:] = np.nan
            out = cuda.array(given["out"], (batch, k, height, width, 3), np.uint8)
            composite_ref(pictures, originals, unpacked(cuda, given["packed"], batch, size), out)

        cuda.queue("composite", work, stream)

    monkeypatch.setattr(_kernels, "sample_gmm_cuda", sample_gmm, raising=False)
    monkeypatch.setattr(_kernels, "composite_cuda", composite, raising=False)


def unpacked(cuda, begin, batch, size):
    """Canvases as `packed_canvases.pack` wrote them."""
    found = []
    for header in cuda.array(begin, (batch, HEADER), np.int64).tolist():
        image, known, pull, inside, grid = header[:5]
        top, left, height, width = header[21:25]

        def array(place, shape, dtype=np.float32):
            return cuda.array(begin + place, shape, dtype)

        sides = iter((grid, size, height, width))
        taps = [
            Taps(array(first, (n,), np.int32), array(weights, (span, n)))
            for (first, weights, n, span) in (header[i : i + 4] for i in range(5, 21, 4))
        ]
        assert [len(one.first) for one in taps] == list(sides)
        box = Box(top, left, top + height, left + width)
        shown = array(known, (size, size), np.bool_), array(pull, (grid, grid))
        blur, grow, rows, columns = taps
        picture, hole = array(image, (3, size, size)), array(inside, (height, width), np.bool_)
        found.append(Canvas(box, hole, picture, shown[0], blur, shown[1], grow, rows, columns))
    return found


class FakeTensorRt:
    """The module `tensorrt`, as far as the runtime goes; plans are ONNX files.

    Args:
        cuda: A `FakeCuda`.
        most: (B, k) that profiles reach to.
    """

    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    DataType = SimpleNamespace(FLOAT="float")

    def __init__(self, cuda, most=(4, 8), version="11.4.0"):
        self.cuda, self.most, self.__version__ = cuda, most, version

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal"

    def Runtime(self, logger):  # TensorRT's name
        assert isinstance(logger, self.ILogger)

        def load(plan):
            if not plan.startswith(b"\x08"):
                logger.log("error", "the plan is\nnone")
                return None
            return FakeEngine(
                self, onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
            )

        return SimpleNamespace(deserialize_cuda_engine=load)


class FakeEngine:
    device_memory_size_v2 = 1 << 20  # of a context of it

    def __init__(self, trt, session):
        self.trt, self.session = trt, session
        self.tensors = {t.name: ("in", t) for t in session.get_inputs()}
        self.tensors |= {t.name: ("out", t) for t in session.get_outputs()}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, i):
        return list(self.tensors)[i]

    def get_tensor_mode(self, name):
        return self.tensors[name][0]

    def get_tensor_dtype(self, name):
        return {"tensor(float)": "float"}[self.tensors[name][1].type]

    def get_tensor_shape(self, name):
        return tuple(n if isinstance(n, int) else -1 for n in self.tensors[name][1].shape)

    def create_execution_context(self):
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine):
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_input_shape(self, name, shape):
        expected = self.engine.tensors[name][1].shape
        free = [got for want, got in zip(expected, shape, strict=True) if not isinstance(want, int)]
        fixed = all(
            want == got for want, got in zip(expected, shape, strict=True) if isinstance(want, int)
        )
        if not fixed or any(n > top for n, top in zip(free, self.engine.trt.most, strict=False)):
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, address):
        check(name in self.engine.tensors, f"there is no tensor {name}")
        check(address % 256 == 0, f"{name} begins at {address:#x}, no multiple of 256")
        self.addresses[name] = address
        return True

    def infer_shapes(self):
        ins = [name for name, (way, _) in self.engine.tensors.items() if way == "in"]
        return [name for name in ins if name not in self.shapes]

    def execute_async_v3(self, stream):
        cuda, engine = self.engine.trt.cuda, self.engine
        check(set(self.addresses) == set(engine.tensors), "a tensor has no address")
        check(not self.infer_shapes(), "an input has no shape")
        free = {}
        for name, shape in self.shapes.items():
            for axis, n in zip(engine.tensors[name][1].shape, shape, strict=True):
                if not isinstance(axis, int):
                    check(free.setdefault(axis, n) == n, f"{axis} is {n} and {free[axis]}")
        outs = [name for name, (way, _) in engine.tensors.items() if way == "out"]
        shapes = self.shapes | {
            n: tuple(free.get(a, a) for a in engine.tensors[n][1].shape) for n in outs
        }
        for name, shape in shapes.items():  # now, as the memory must be there when it is queued
            cuda.array(self.addresses[name], shape, np.float32)

        def work():
            def at(name):
                return cuda.array(self.addresses[name], shapes[name], np.float32)

            feeds = {name: at(name).copy() for name in self.shapes}
            for name, value in zip(outs, engine.session.run(outs, feeds), strict=True):
                at(name)[:] = value

        cuda.queue("encoder" if "image" in self.shapes else "decoder", work, stream)
        return True

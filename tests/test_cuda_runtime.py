"""CUDA through cuda-python, and what is said where something is missing."""

import contextlib
import importlib
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import picme_rt
from picme_rt import cli, cuda_runtime
from picme_rt.backends import tensorrt_library
from picme_rt.errors import InputError, MissingPackageError, UnavailableError

CALLS = {
    "device": (),
    "allocate": (64,),
    "free": (0x1000,),
    "new_stream": (),
    "destroy_stream": (9,),
    "copy": (1, 2, 3, 9),
    "synchronise": (9,),
    "synchronise_all": (),
    "holder": (0x1000,),
    "begin_capture": (9,),
    "end_capture": (9,),
    "launch": (7, 9),
}


CONSTANTS = {
    "cudaStreamNonBlocking": 1,
    "cudaMemcpyKind": SimpleNamespace(cudaMemcpyDefault=4),
    "cudaStreamCaptureMode": SimpleNamespace(cudaStreamCaptureModeThreadLocal=1),
}


class Driver(ModuleType):
    """`cuda.bindings.driver`, of a thread that has a context."""

    def __init__(self, called, context=0xC0):
        super().__init__("cuda.bindings.driver")
        self.called, self.context, self.error = called, context, 0

    def cuCtxGetCurrent(self):  # CUDA's name
        return self.error, self.context

    def cuCtxSetCurrent(self, context):  # CUDA's name
        self.called.append(("cuCtxSetCurrent", context))
        return (0,)


class Runtime(ModuleType):
    """`cuda.bindings.runtime` as cuda-python has it: each call gives its error, then its values."""

    def __init__(self, *, count=2, fails=None):
        super().__init__("cuda.bindings.runtime")
        self.count, self.fails, self.called, self.holder = count, fails, [], 1
        self.pinned = np.zeros(64, np.uint8)
        vars(self).update(CONSTANTS)

    def __getattr__(self, name):
        if not name.startswith("cuda"):
            raise AttributeError(name)
        about = SimpleNamespace(name=b"Fake GPU\0\0", major=9, minor=0)
        values = {
            "cudaPointerGetAttributes": (SimpleNamespace(device=self.holder),),
            "cudaGetDeviceCount": (self.count,),
            "cudaGetErrorName": (b"cudaErrorOfTheTest",),
            "cudaGetDeviceProperties": (about,),
            "cudaMalloc": (0x1000,),
            "cudaMallocHost": (self.pinned.ctypes.data,),
            "cudaStreamCreateWithFlags": (9,),
            "cudaStreamEndCapture": (6,),
            "cudaGraphInstantiate": (7,),
        }

        def call(*arguments):
            self.called.append((name, *arguments))
            error = 35 if name == self.fails else 0
            return error, *values.get(name, ())

        return call


@pytest.fixture
def runtime(monkeypatch):
    def install(**options):
        found = Runtime(**options)
        for name in ("cuda", "cuda.bindings"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", found)
        driver = found.driver = Driver(found.called)
        monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
        return found

    return install


def test_every_call_is_cudas_own(runtime):
    found, cuda = runtime(), cuda_runtime.load(1)
    del found.called[:]
    gave = {name: getattr(cuda, name)(*arguments) for name, arguments in CALLS.items()}
    assert gave["device"] == (1, "Fake GPU", (9, 0))
    assert (gave["allocate"], gave["new_stream"], gave["end_capture"]) == (0x1000, 9, 7)
    assert gave["holder"] == 1
    memory = cuda.allocate_host(64)
    memory[:] = 3
    assert (found.pinned == 3).all()
    cuda.free_host(memory)
    cuda.destroy_graph(7)
    assert found.called == [
        ("cudaGetDeviceProperties", 1),
        ("cudaMalloc", 64),
        ("cudaFree", 0x1000),
        ("cudaStreamCreateWithFlags", 1),
        ("cudaStreamDestroy", 9),
        ("cudaMemcpyAsync", 1, 2, 3, 4, 9),
        ("cudaStreamSynchronize", 9),
        ("cudaDeviceSynchronize",),
        ("cudaPointerGetAttributes", 0x1000),
        ("cudaStreamBeginCapture", 9, 1),
        ("cudaStreamEndCapture", 9),
        ("cudaGraphInstantiate", 6, 0),
        ("cudaGraphDestroy", 6),
        ("cudaGraphLaunch", 7, 9),
        ("cudaMallocHost", 64),
        ("cudaFreeHost", found.pinned.ctypes.data),
        ("cudaGraphExecDestroy", 7),
    ]
    found.holder = -2  # CUDA's word for the host
    assert cuda.holder(0x1000) is None


@pytest.mark.parametrize("context", [0xC0, 0], ids=["the caller has one", "it has none"])
def test_a_gpu_is_used_inside_of_a_block_and_the_callers_context_is_put_back(runtime, context):
    found = runtime()
    cuda, found.driver.context = cuda_runtime.load(1), context
    del found.called[:]
    with contextlib.suppress(ZeroDivisionError), cuda.use():
        assert found.called == [("cudaSetDevice", 1)]
        raise ZeroDivisionError
    assert found.called == [("cudaSetDevice", 1), ("cuCtxSetCurrent", context)]


def test_no_gpu_is_used_that_cannot_be(runtime):
    found = runtime(fails="cudaSetDevice")
    with pytest.raises(UnavailableError, match="cudaSetDevice failed"), cuda_runtime.load().use():
        pytest.fail("it is used")
    found.driver.error = 3
    with pytest.raises(UnavailableError, match="cuCtxGetCurrent failed: 3"):
        cuda_runtime.load().use().__enter__()


@pytest.mark.parametrize(
    ("name", "fails"),
    [
        ("allocate", "cudaMalloc"),
        ("copy", "cudaMemcpyAsync"),
        ("end_capture", "cudaGraphInstantiate"),
    ],
)
def test_what_fails_is_said_with_cudas_word(runtime, name, fails):
    runtime(fails=fails)
    cuda = cuda_runtime.load()
    with pytest.raises(UnavailableError, match=f"CUDA's {fails} failed: cudaErrorOfTheTest"):
        getattr(cuda, name)(*CALLS[name])


def test_the_real_bindings_have_every_call():
    real, driver = (importlib.import_module(f"cuda.bindings.{n}") for n in ("runtime", "driver"))
    stand_in = Runtime()
    cuda = cuda_runtime._CudaPython(stand_in, Driver([]), 0)
    with cuda.use():
        pass
    assert callable(driver.cuCtxGetCurrent)
    assert callable(driver.cuCtxSetCurrent)
    for name, arguments in CALLS.items():
        getattr(cuda, name)(*arguments)
    cuda.free_host(cuda.allocate_host(64))
    cuda.destroy_graph(7)
    assert all(callable(getattr(real, name)) for name, *_ in stand_in.called)
    assert real.cudaStreamNonBlocking == 1
    assert real.cudaMemcpyKind.cudaMemcpyDefault == 4
    assert real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal == 1


def test_no_gpu_no_driver_no_package_are_one_line_each(runtime, monkeypatch):
    runtime(count=0)
    with pytest.raises(UnavailableError, match="that it has no device: install the driver, or"):
        cuda_runtime.load()
    runtime(fails="cudaGetDeviceCount")
    with pytest.raises(UnavailableError, match=r"needs an NVIDIA GPU .* says cudaErrorOfTheTest"):
        cuda_runtime.load()
    runtime(count=2)
    with pytest.raises(UnavailableError, match=r"one of cuda:0 to cuda:1, got cuda:2"):
        cuda_runtime.load(2)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(MissingPackageError, match=r"needs cuda-python.*pip install 'cuda-bindings"):
        cuda_runtime.load()


@pytest.fixture
def fresh():
    """Nothing that was imported is remembered, before or after."""
    kept = tensorrt_library.load
    tensorrt_library.load.cache_clear()
    yield
    kept.cache_clear()


def module(name, version):
    class Logger:
        INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2

    found = ModuleType(name)
    found.__version__, found.ILogger = version, Logger
    return found


@pytest.mark.usefixtures("fresh")
def test_both_libraries_are_loaded_by_one_loader(monkeypatch):
    for name, version in (("tensorrt", "11.4.0"), ("tensorrt_rtx", "1.7.1")):
        monkeypatch.setitem(sys.modules, name, module(name, version))
    assert tensorrt_library.installed().name == "tensorrt"
    assert tensorrt_library.load("tensorrt-rtx")[:2] == ("tensorrt-rtx", "1.7.1")
    library = tensorrt_library.load("tensorrt")
    assert library.logger is tensorrt_library.load("tensorrt").logger
    assert library.why() == "it does not say why"
    library.logger.log(2, "a warning")
    library.logger.log(1, "an\nerror")
    assert library.why() == "an error"


@pytest.mark.usefixtures("fresh")
def test_a_library_that_is_missing_or_old_is_said_with_its_extra(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=r"neither .*picme_rt\[tensorrt\].*picme_rt\[rtx"):
        tensorrt_library.installed()
    with pytest.raises(MissingPackageError, match=r"tensorrt-rtx is not .* 'picme_rt\[rtx\]'"):
        tensorrt_library.load("tensorrt-rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", module("tensorrt", "10.9.1"))
    with pytest.raises(
        UnavailableError, match=r"must be 11 or later, got 10.9.1; pip install --up"
    ):
        tensorrt_library.installed()
    with pytest.raises(InputError, match=r"library must be one of .* got 'cudnn'"):
        tensorrt_library.load("cudnn")


def test_auto_never_is_tensorrt_and_by_name_it_says_what_is_missing(engine, capsys):
    """On this machine as it is: TensorRT-RTX is installed, a driver is not, or a plan is not."""
    assert picme_rt.Session(engine).info.backend != "tensorrt"
    assert cli.main(["info", str(engine), "--backend", "tensorrt"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "needs an NVIDIA GPU and its driver" in told or "has no plans for" in told
    with pytest.raises(InputError, match=r"backend must be .*, or tensorrt where there is an NVI"):
        picme_rt.Session(engine, backend="abacus")

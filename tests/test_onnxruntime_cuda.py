"""ONNX Runtime's CUDA provider: its calls, on a fake that forgets nothing, and what is missing."""

import contextlib
import ctypes
import sys
import types

import numpy as np
import onnxruntime
import pytest
import tiny_engines

import picme_rt
from picme_rt import backends, devices
from picme_rt import engine as engines
from picme_rt.backends import onnxruntime as ort_backend
from picme_rt.backends import onnxruntime_cuda
from picme_rt.errors import MissingPackageError, UnavailableError

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def tiny(tmp_path):
    for name, content in tiny_engines.make(z_m=True).files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


class Value:
    """An OrtValue on the GPU: memory of its own, which the host sees by copies alone."""

    def __init__(self, array, device):
        self.device, self.memory = device, array.copy()

    @classmethod
    def ortvalue_from_numpy(cls, array, device="cpu", number=0):
        return cls(array, (device, number))

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape, kind, device, number):
        return cls(np.full(shape, np.nan, kind), (device, number))

    def update_inplace(self, array):
        assert array.shape == self.memory.shape
        self.memory[:] = array

    def numpy(self):
        return self.memory.copy()


class Binding:
    def __init__(self):
        self.inputs, self.outputs, self.log = {}, {}, []

    def bind_ortvalue_input(self, name, value):
        self.inputs[name] = value

    def bind_ortvalue_output(self, name, value):
        self.outputs[name] = value

    def synchronize_inputs(self):
        self.log.append("in")

    def synchronize_outputs(self):
        self.log.append("out")


class Session:
    """Computes with the real library on the CPU; a CUDA graph keeps the addresses it saw first."""

    made = ()

    def __init__(self, content, options, *, providers, enable_fallback):
        assert enable_fallback == 0
        assert options.use_deterministic_compute
        self.providers = providers
        self.real = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        Session.made = (*Session.made, self)

    def get_providers(self):
        return [CUDA, "CPUExecutionProvider"]

    def io_binding(self):
        return Binding()

    def run_with_iobinding(self, binding):
        assert binding.log[-1] == "in"
        feed = {name: value.memory for name, value in binding.inputs.items()}
        names = list(binding.outputs)
        for name, made in zip(names, self.real.run(names, feed), strict=True):
            binding.outputs[name].memory[:] = made

    def __getattr__(self, name):
        raise AssertionError(f"{name} is not expected")


@pytest.fixture
def gpu(monkeypatch):
    """An ONNX Runtime for CUDA with one GPU."""
    fake = types.SimpleNamespace(
        __version__="1.99",
        InferenceSession=Session,
        OrtValue=Value,
        SessionOptions=onnxruntime.SessionOptions,
        get_available_providers=lambda: [CUDA, "CPUExecutionProvider"],
        preload_dlls=lambda: print("Failed to load a library"),
    )
    Session.made = ()
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(devices, "check_gpu", lambda device: None)
    return fake


@contextlib.contextmanager
def refused(error, *parts):
    with pytest.raises(error) as caught:
        yield
    said = str(caught.value)
    assert "\n" not in said
    assert all(part in said for part in parts), said


def test_results_are_those_of_the_cpu(tiny, gpu, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    img, hole = rng.integers(0, 256, (20, 24, 3), np.uint8), np.zeros((20, 24), bool)
    hole[5:12, 6:15] = True
    with picme_rt.Session(tiny, backend="onnxruntime", device="cuda:2") as session:
        info = session.info
        assert (info.backend, info.device, info.precision) == ("onnxruntime", "cuda:2", "fp32")
        one = session.encode(img, hole)
        other = session.encode(img[::-1].copy(), hole)
        streams = [who.stream(k=9, seed=3) for who in (one, other)]  # two runners at once
        pairs = list(zip(*streams, strict=True))
    assert capsys.readouterr().out == ""  # stdout is the caller's
    monkeypatch.undo()
    with picme_rt.Session(tiny, backend="onnxruntime", device="cpu") as session:
        for place, picture in enumerate((img, img[::-1].copy())):
            want = session.complete(picture, hole, k=9, seed=3)
            for done in (pair[place] for pair in pairs):
                assert (done.image[~hole] == picture[~hole]).all()
                assert np.abs(done.image.astype(int) - want.images[done.index]).max() <= 1
                assert done.primitive == want.primitives[done.index]


def test_the_provider_is_asked_for_strict_float32_on_the_right_gpu(tiny, gpu):
    backends.load(
        engines.load(tiny), backends.defaults("onnxruntime", "fp32", devices.parse("cuda:2"))
    )
    encoder, decoder = (session.providers for session in Session.made)
    for ((name, options),) in (encoder, decoder):
        assert name == CUDA
        assert options["device_id"] == "2"
        assert options["use_tf32"] == "0"
        assert "enable_cuda_graph" not in options  # 0 is its own default


def test_a_session_that_went_to_the_cpu_is_refused(tiny, gpu, monkeypatch):
    monkeypatch.setattr(Session, "get_providers", lambda _: ["CPUExecutionProvider"])
    with refused(UnavailableError, "did not start on cuda:0", "CPUExecutionProvider", "cudnn"):
        picme_rt.Session(tiny, backend="onnxruntime", device="cuda")


def test_both_packages_at_once_are_refused(tiny, gpu, monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda.metadata, "version", lambda name: "1.0")
    with refused(UnavailableError, "both installed", "pip uninstall onnxruntime onnxruntime-gpu"):
        picme_rt.Session(tiny, backend="onnxruntime", device="cuda")


def test_the_real_package_for_the_cpu_is_refused(tiny):
    assert CUDA not in onnxruntime.get_available_providers()
    with refused(UnavailableError, "an ONNX Runtime built for CUDA", "pip install 'picme_rt[gpu]'"):
        picme_rt.Session(tiny, backend="onnxruntime", device="cuda")


def test_without_the_package_the_extra_is_the_gpus(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with refused(MissingPackageError, "pip install 'picme_rt[gpu]'"):
        picme_rt.Session(tiny, backend="onnxruntime", device="cuda")


def test_a_missing_driver_is_named(tiny, gpu, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", gpu)
    monkeypatch.setattr(devices, "_DRIVER", "libcuda-that-is-not-here.so")
    with refused(UnavailableError, "cuda:0 needs the NVIDIA driver", "device='cpu'"):
        picme_rt.Session(tiny, backend="onnxruntime", device="cuda")


@pytest.mark.parametrize(
    ("code", "count", "number", "says"),
    [
        (100, 0, 0, "its driver names none (error 100)"),
        (0, 2, 2, "must be one of the 2 GPUs here, cuda:0 on, got cuda:2"),
        (0, 2, 1, None),
    ],
)
def test_the_driver_itself_is_asked(monkeypatch, code, count, number, says):
    def device_count(place):
        place._obj.value = count
        return 0

    driver = types.SimpleNamespace(cuInit=lambda flags: code, cuDeviceGetCount=device_count)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    device = devices.Device("cuda", number)
    if says is None:
        devices.check_gpu(device)
        return
    with refused(UnavailableError, says):
        devices.check_gpu(device)


def test_the_backend_alone_can_be_asked_whether_it_works(gpu):
    ort_backend.check(devices.parse("cuda"), "fp32")

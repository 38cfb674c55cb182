"""The backend `torch`: what it computes, on what, and what it says where something is missing."""

import contextlib
import dataclasses
import multiprocessing
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiny_engines
import torch

import picme_rt
from picme_rt import backends, choices, devices, onnx_file
from picme_rt import engine as engines
from picme_rt.backends import graphs, torch_network, torch_recording
from picme_rt.backends import torch as torch_backend
from picme_rt.backends.torch_operators import MAKERS, How
from picme_rt.errors import InputError, MissingPackageError, UnavailableError
from picme_rt.onnx_file import Node
from picme_rt.operators import RULES


@pytest.fixture
def tiny(tmp_path):
    for name, content in tiny_engines.make(z_m=True).files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_it_knows_every_operator_that_an_engine_may_have():
    assert set(MAKERS) == set(RULES)


def run(operator, *inputs, **attributes):
    node = Node("n", operator, ("x",) * len(inputs), ("y",), attributes)
    plain = How(torch.float32, torch.contiguous_format)
    return MAKERS[operator](node, plain)(*inputs)


def reference(operator, *inputs, **attributes):
    """The same by the package onnx, which is slow and right."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    names = [f"x{i}" for i in range(len(inputs))]
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int8": TensorProto.INT8}
    ends = [
        helper.make_tensor_value_info(name, kinds[str(value.dtype)], value.shape)
        for name, value in zip(names, inputs, strict=True)
    ]
    node = helper.make_node(operator, names, ["y"], **attributes)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", ends, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    feed = dict(zip(names, inputs, strict=True))
    return ReferenceEvaluator(model).run(None, feed)[0]


def row(*numbers):
    return np.array(numbers, np.int64)


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [
        ("Conv", (normal(2, 3, 7, 6), normal(4, 3, 3, 3)), {"pads": [2, 0, 1, 1]}),
        ("Conv", (normal(1, 3, 8, 8), normal(4, 3, 2, 2), normal(4)), {"strides": [2, 1]}),
        (
            "ConvTranspose",
            (normal(2, 3, 4, 5), normal(3, 2, 4, 4), normal(2)),
            {"pads": [1, 2, 2, 0], "strides": [2, 2], "output_padding": [1, 0]},
        ),
        ("DepthToSpace", (normal(2, 12, 3, 2),), {"blocksize": 2, "mode": "DCR"}),
        ("DepthToSpace", (normal(2, 12, 3, 2),), {"blocksize": 2, "mode": "CRD"}),
        ("SpaceToDepth", (normal(2, 3, 6, 4),), {"blocksize": 2}),
        ("Gather", (normal(2, 3, 4), row(-1, 0)), {"axis": 1}),
        ("Gather", (normal(2, 3, 4), np.array(-1)), {"axis": 2}),
        ("Pad", (normal(2, 3, 4), row(1, 0, 2, 0, 2, 1)), {"mode": "reflect"}),
        ("Pad", (normal(1, 2, 3, 4), row(0, 0, 2, 1, 0, 0, 1, 3)), {"mode": "reflect"}),
        ("Pad", (normal(1, 2, 3, 4), row(0, 0, 2, 1, 0, 0, 1, 3)), {"mode": "edge"}),
        ("Reshape", (normal(2, 3, 4), row(0, -1)), {"allowzero": 0}),
        ("Unsqueeze", (normal(2, 3), row(-1, 0)), {}),
        ("Expand", (normal(3, 1), row(2, 1, 4)), {}),
        ("LogSoftmax", (normal(2, 3, 4),), {"axis": 1}),
        ("InstanceNormalization", (normal(2, 3, 4), normal(3), normal(3)), {"epsilon": 0.1}),
        ("AveragePool", (normal(1, 2, 5, 4),), {"kernel_shape": [2, 3], "strides": [1, 2]}),
    ],
)
def test_an_operator_means_what_onnx_says(operator, inputs, attributes):
    want = reference(operator, *inputs, **attributes)
    given = [torch.from_numpy(x) if x.dtype == np.float32 else x for x in inputs]
    ours = {n: tuple(v) if isinstance(v, list) else v for n, v in attributes.items()}
    got = run(operator, *given, **ours)
    assert tuple(got.shape) == want.shape
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5, rtol=1e-5)


def test_linear_resizing_is_half_pixel():
    x = torch.from_numpy(normal(1, 2, 3, 4))
    got = run("Resize", x, None, torch.tensor([1.0, 1.0, 2.0, 3.0]), mode="linear")
    want = torch.nn.functional.interpolate(x, scale_factor=(2, 3), mode="bilinear")
    assert torch.equal(got, want)


def test_int8_rounds_halves_to_even_and_stops_at_its_ends():
    x = torch.tensor([0.5, 1.5, -2.5, 300.0, -300.0])
    levels = run("QuantizeLinear", x, torch.tensor(1.0), torch.tensor(0, dtype=torch.int8))
    assert levels.tolist() == [0, 2, -2, 127, -128]
    weights = torch.tensor([[1, 2], [3, 4]], dtype=torch.int8)
    restored = run("DequantizeLinear", weights, torch.tensor([0.5, 2.0]), axis=0)
    assert restored.tolist() == [[0.5, 1.0], [6.0, 8.0]]


def networks(path, precision):
    engine = engines.load(path)
    settings = dataclasses.replace(backends.defaults("torch", "fp32"), precision=precision)
    checked = graphs.read(engine, "fp32")
    return engine, torch_backend.networks(checked, settings), torch_backend.whole(checked)


def inputs_of(graph, rows):
    random = np.random.default_rng(3)
    found = {
        t.name: torch.from_numpy(random.uniform(-1, 1, (2, *t.shape)).astype(np.float32))
        for t in graph.inputs
        if t.batched
    }
    found["hole"] = (found["hole"] > 0).float()
    return {**found, "box": rows}


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 0.05), ("bf16", 0.3)])
def test_a_lower_precision_lowers_the_decoder_alone(tiny, precision, bound):
    engine, full, rows = networks(tiny, "fp32")
    _, low, _ = networks(tiny, precision)
    seen = inputs_of(engine.tables.encoder, None)
    with torch.no_grad():
        encoded = [network[0](seen) for network in (full, low)]
        assert all(torch.equal(encoded[0][name], encoded[1][name]) for name in encoded[0])
        z = inputs_of(engine.tables.decoder, rows)
        want, got = (network[1](z)["picture"] for network in (full, low))
    assert got.dtype == torch_network.DTYPES[precision]
    assert 0 < (got.float() - want).abs().max() < bound


def test_attention_and_statistics_stay_in_float32():
    half = How(torch.float16, torch.contiguous_format)
    node = Node("n", "MatMul", ("a", "b"), ("y",), {})
    big = torch.full((1, 2, 2), 300.0, dtype=torch.float16)  # 300 * 300 is none of its numbers
    assert MAKERS["MatMul"](node, half)(big, big).tolist() == [[[180000.0] * 2] * 2]
    node = Node("n", "InstanceNormalization", ("x", "s", "b"), ("y",), {})
    x = 1000 + torch.arange(64.0).view(1, 1, 8, 8)
    ones, zeros = torch.ones(1), torch.zeros(1)
    got = MAKERS["InstanceNormalization"](node, half)(x.half(), ones, zeros)
    want = torch.nn.functional.instance_norm(x)
    assert got.dtype == torch.float16
    assert (got.float() - want).abs().max() < 0.01


def test_what_weights_alone_decide_is_computed_once(tiny):
    engine, (_, decoder), _ = networks(tiny, "fp32")
    nodes = onnx_file.parse(graphs.read(engine, "fp32").decoder.content).nodes
    restored = [n for n in nodes if n.operator == "DequantizeLinear" and n.inputs[0][0] == "w"]
    assert len(restored) == 1
    stored = [n for n in nodes if n.operator == "Cast"]
    assert stored
    assert decoder.steps == len(nodes) - 1 - len(stored)


def test_values_are_freed_as_soon_as_nobody_takes_them(tiny):
    _, (_, decoder), _ = networks(tiny, "fp32")
    left = set()
    for step in decoder._steps:
        assert set(step.done) <= left | set(step.inputs) | set(step.outputs)
        left |= set(step.outputs)
        left -= set(step.done)
    assert left == {"picture"}


def tf32():
    """Whether matrices and convolutions may use it, and what was set to say so."""
    every = torch.backends
    parts = every, every.cuda.matmul, every.cudnn, every.cudnn.conv, every.cudnn.rnn
    return [part.fp32_precision for part in parts]


NEW = {"all": (torch.backends,), "matmul": (torch.backends.cuda.matmul,)}
NEW |= {"conv": (torch.backends.cudnn.conv,), "none": ()}


@pytest.mark.parametrize("part", NEW)
@pytest.mark.parametrize("value", ["ieee", "tf32"])
def test_the_processs_settings_of_torch_are_put_back(part, value):
    """Whichever of its two ways of saying it somebody has used; mixed, torch's older one raises."""
    begun, cudnn = tf32(), torch.backends.cudnn
    try:
        for one in NEW[part]:
            one.fp32_precision = value
        before = tf32(), cudnn.deterministic, cudnn.benchmark
        with torch_recording.arithmetic("tf32"):
            assert {*tf32()[1:2], *tf32()[3:]} == {"tf32"}
            assert cudnn.deterministic
            with torch_recording.arithmetic("fp16"):
                assert {*tf32()[1:2], *tf32()[3:]} == {"ieee"}
        assert (tf32(), cudnn.deterministic, cudnn.benchmark) == before
        torch.backends.fp32_precision = "ieee" if value == "tf32" else "tf32"
        reached = torch.backends.cuda.matmul.fp32_precision != value
        assert reached == (part not in ("matmul",))  # what was not set by itself follows the whole
    finally:
        torch.backends.fp32_precision = "none"
        for one, own in ((torch.backends.cuda.matmul, begun[1]), (cudnn.conv, begun[3])):
            one.fp32_precision = own
        cudnn.rnn.fp32_precision = begun[4]
    assert tf32() == begun
    assert torch.get_float32_matmul_precision() == "highest"


def test_older_torchs_settings_are_put_back(monkeypatch):
    monkeypatch.setattr(torch_recording, "_BY_PART", False)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with torch_recording.arithmetic("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
        with torch_recording.arithmetic("fp16"):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_threads_of_torch_are_put_back():
    threads = torch.get_num_threads()
    with torch_recording.OnCpu(threads + 1).queueing():
        assert torch.get_num_threads() == threads + 1
    assert torch.get_num_threads() == threads


def test_a_new_thread_keeps_its_number_while_another_sets_its_own():
    """At its first operator a thread takes the number that was set last, if it was never asked."""
    threads, found = torch.get_num_threads(), []

    def first_call():
        with torch_recording.OnCpu(threads + 1).queueing():
            other = threading.Thread(target=torch.set_num_threads, args=(threads,))
            other.start()
            other.join()
            found.append(torch.get_num_threads())

    with torch_recording.OnCpu(threads + 1).queueing():  # so that the new thread is not the first
        caller = threading.Thread(target=first_call)
        caller.start()
        caller.join()
    assert found == [threads + 1]


def test_threads_of_torch_are_put_back_where_calls_of_new_threads_overlap():
    """A new thread begins with the number that was set last, which is a call's."""
    threads, first, second = torch.get_num_threads(), threading.Event(), threading.Event()

    def outlast():
        with torch_recording.OnCpu(threads + 1).queueing():
            first.set()
            second.wait(30)

    def overlap():
        with torch_recording.OnCpu(threads + 2).queueing():
            pass

    for work in (outlast, overlap):
        thread = threading.Thread(target=work)
        thread.start()
        first.wait(30)
    thread.join()
    second.set()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_was_forked_after_torch_computed_is_told_so():
    with torch_recording.OnCpu().queueing():
        pass
    child = multiprocessing.get_context("fork").Process(target=_refused)
    child.start()
    child.join(60)
    assert child.exitcode == 0


def _refused():
    with (
        pytest.raises(UnavailableError, match="before this process was forked"),
        torch_recording.OnCpu().queueing(),
    ):
        pass


def test_a_session_says_what_it_runs_and_auto_is_not_torch_unless_measured(tiny, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny / "cache"))
    with picme_rt.Session(tiny, backend="torch", threads=1) as session:
        info = session.info
        assert (info.backend, info.device, info.threads) == ("torch", "cpu", 1)
        assert info.chosen_by == "asked"
    assert picme_rt.Session(tiny).info.backend == "onnxruntime"
    engine = engines.load(tiny)
    fast = choices.Measured(choices.Settings("torch", "fp32", threads=1), 1.0)
    choices.write(engine, backends.BACKENDS, [fast])
    for here in (backends.BACKENDS, ("torch",)):
        monkeypatch.setattr(backends, "installed", lambda here=here: here)
        info = picme_rt.Session(tiny).info
        assert (info.backend, info.chosen_by) == ("torch", "measured")


def test_tf32_needs_a_gpu_and_bf16_is_another_backends(tiny):
    with pytest.raises(InputError, match="precision must be one of"):
        picme_rt.Session(tiny, backend="torch", precision="tf32")
    with pytest.raises(InputError, match=r"torch on cpu must be one of.*openvino has it"):
        picme_rt.Session(tiny, backend="torch", precision="bf16")
    with pytest.raises(UnavailableError, match=r"tf32 needs device='cuda'.*precision='fp32'"):
        torch_backend.check(devices.CPU, "tf32")


@contextlib.contextmanager
def refused(error, *parts):
    with pytest.raises(error) as caught:
        yield
    said = str(caught.value)
    assert "\n" not in said
    assert all(part in said for part in parts), said


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:01", "CUDA", None, 0])
def test_a_device_of_no_such_name_is_refused(tiny, device):
    with refused(InputError, "device must be one of auto, cpu, cuda or cuda:N", repr(device)):
        picme_rt.Session(tiny, device=device)


def test_without_torch_its_cure_is_named(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with refused(MissingPackageError, "backend torch is not installed", "pip install torch"):
        picme_rt.Session(tiny, backend="torch")


def test_a_torch_without_cuda_says_so(tiny, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with refused(UnavailableError, "cuda:0 needs a torch built for CUDA", "pytorch.org"):
        picme_rt.Session(tiny, backend="torch", device="cuda")


def test_a_torch_without_a_driver_says_so(tiny, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused(UnavailableError, "cuda:1 needs an NVIDIA GPU and its driver", "device='cpu'"):
        picme_rt.Session(tiny, backend="torch", device="cuda:1")


def test_a_gpu_that_is_not_there_is_named(tiny, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with refused(UnavailableError, "one of the 2 GPUs here", "got cuda:2"):
        picme_rt.Session(tiny, backend="torch", device="cuda:2")


def test_openvino_runs_on_the_cpu_alone(tiny):
    with refused(InputError, "device of backend openvino must be cpu, got cuda:0"):
        picme_rt.Session(tiny, backend="openvino", device="cuda")


def test_auto_on_a_gpu_says_what_each_backend_lacks(tiny, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with refused(UnavailableError, "torch built for CUDA", "; or: ", "ONNX Runtime built for CUDA"):
        picme_rt.Session(tiny, device="cuda")
    monkeypatch.setattr(backends, "installed", lambda: ("openvino",))
    with refused(MissingPackageError, "fp32 on cuda:0 needs torch or onnxruntime", "pytorch.org"):
        picme_rt.Session(tiny, device="cuda")


def test_auto_on_a_gpu_takes_the_first_that_finds_it(tiny, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    engine = engines.load(tiny)
    asked = {"backend": "auto", "device": "cuda:3", "precision": "auto"}
    from picme_rt.backends import onnxruntime as ort_backend

    monkeypatch.setattr(ort_backend, "check", lambda device, precision: None)
    settings, by = backends.choose(engine, **asked)
    assert (settings.backend, settings.device, by) == ("onnxruntime", "cuda:3", "default")
    monkeypatch.setattr(torch_backend, "check", lambda device, precision: None)
    settings, _ = backends.choose(engine, **asked)
    assert (settings.backend, settings.micro_batch) == ("torch", 6)
    assert backends.choose(engine, **{**asked, "precision": "fp16"}).settings.precision == "fp16"

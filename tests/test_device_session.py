"""Sessions of backend tensorrt on a fake GPU: results, order of the work, waiting, ends."""

import dataclasses
import gc
import hashlib
import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import fake_cuda
import numpy as np
import pytest

import picme_rt
from picme_rt import cuda_runtime, device_pipeline, device_run, plans
from picme_rt import engine as engines
from picme_rt.backends import tensorrt, tensorrt_library
from picme_rt.errors import ClosedError, EngineError, InputError, UnavailableError

RUN = ["copy there", "encoder", "sample_gmm", "decoder", "composite", "copy back", "wait"]


def write_plans(path, options=None, **changed):
    """Plans whose bytes are the graphs themselves, as the fake library runs them."""
    from picme_export import plan_builder

    engine = engines.load(path)
    options = options or plans.Options("fp32", 4, 8)
    gpu = "sm86-Fake_GPU"
    place = path / "plans" / plans.name("tensorrt", "11.4.0", gpu, options.precision)
    place.mkdir(parents=True)
    files = {}
    for role, (model, _) in plan_builder.graphs(engine, options.precision).items():
        content = model.SerializeToString()
        (place / f"{role}.plan").write_bytes(content)
        files[role] = engines.File(hashlib.sha256(content).hexdigest(), len(content))
    digests, layers = plans.made_of(engine, options.precision), dict.fromkeys(plans.ROLES, 1)
    done = plans.Plans(place, "tensorrt", "11.4.0", gpu, options, digests, files, layers)
    (place / "plan.json").write_text(plans.record(dataclasses.replace(done, **changed)))
    return place


@pytest.fixture(scope="module")
def picture():
    """(153, 147) of flat tiles and a hole: less than the suite's, for NumPy pastes it here."""
    rng = np.random.default_rng(7)
    image = (np.kron(rng.random((9, 7, 3)), np.ones((17, 21, 1))) * 255).astype(np.uint8)
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[46:97, 31:87] = 255
    return image, mask


@pytest.fixture(scope="module")
def planned(engine, tmp_path_factory):
    path = tmp_path_factory.mktemp("planned") / "engine"
    shutil.copytree(engine, path)
    write_plans(path)
    return path


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with TensorRT; at the end nothing is left on it."""
    cuda = fake_cuda.FakeCuda()
    fake_cuda.fake_kernels(cuda, monkeypatch)
    trt = fake_cuda.FakeTensorRt(cuda)
    said = []
    library = tensorrt_library.Library(
        "tensorrt", "11.4.0", trt, tensorrt_library._logger(trt, said), said
    )
    monkeypatch.setattr(tensorrt_library, "installed", lambda: library)
    monkeypatch.setattr(cuda_runtime, "load", lambda number=0: cuda)
    yield cuda
    assert cuda.clean()


@pytest.fixture
def opened(gpu, planned):
    with picme_rt.Session(planned, backend="tensorrt") as session:
        yield session


def near(one, other):
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"k": 6},
        {"k": 5, "seed": 2**64 - 1, "temperature": 0.7},
        {"k": 7, "mode": "per_primitive"},
        {"k": 2, "primitive": 3},
        {"k": 1, "mode": "mean"},
        {"k": 11},  # more than a plan takes at once
    ],
    ids=str,
)
def test_results_are_those_of_the_cpu(opened, session, picture, options):
    done, expected = opened.complete(*picture, **options), session.complete(*picture, **options)
    assert near(done.images, expected.images)
    assert (done.images[:, picture[1] == 0] == picture[0][picture[1] == 0]).all()
    assert (done.primitives == expected.primitives).all()
    np.testing.assert_allclose(done.log_prob, expected.log_prob, rtol=1e-4, atol=1e-3)
    assert (done.indices == expected.indices).all()


def test_work_is_queued_in_order_and_waited_for_once(gpu, opened, picture):
    del gpu.log[:]
    opened.complete(*picture)
    assert [what for what in gpu.log if what != "use"][:7] == RUN


def test_what_is_asked_again_is_one_graph_and_the_same_bits(gpu, opened, picture):
    first = opened.complete(*picture, k=3)
    second = opened.complete(*picture, k=3)
    del gpu.log[:]
    third = opened.complete(*picture, k=3)
    assert gpu.log == ["use", "graph", "wait"]
    assert (first.images == second.images).all()
    assert (first.images == third.images).all()
    assert len(gpu.graphs) == 1


def test_a_graph_takes_other_pictures_holes_and_seeds(gpu, opened, session, picture):
    image, mask = picture
    for _ in range(2):
        opened.complete(image, mask, k=2)
    other, hole = image[::-1].copy(), np.roll(mask, 25, axis=0)
    del gpu.log[:]
    done = opened.complete(other, hole, k=2, seed=5)
    assert "graph" in gpu.log
    assert near(done.images, session.complete(other, hole, k=2, seed=5).images)


def test_other_options_are_another_graph(gpu, opened, session, picture):
    for temperature in (1.0, 1.0, 0.5, 0.5):
        done = opened.complete(*picture, k=2, temperature=temperature)
    assert len(gpu.graphs) == 2
    assert near(done.images, session.complete(*picture, k=2, temperature=0.5).images)


def test_the_next_six_are_those_of_twelve(opened, session, picture):
    encoded = opened.encode(*picture)
    found = [encoded.complete(k=4, first=first) for first in (0, 4)]
    expected = session.complete(*picture, k=8)
    assert near(np.concatenate([one.images for one in found]), expected.images)
    assert (np.concatenate([one.primitives for one in found]) == expected.primitives).all()
    for one, other in zip(encoded.mixture, session.encode(*picture).mixture, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_stream_is_complete_one_by_one(opened, picture):
    done = opened.complete(*picture, k=10)
    for one, image in zip(opened.stream(*picture, k=10), done.images, strict=True):
        assert (one.image == image).all()
    last = list(opened.encode(*picture).stream(k=1, first=2**32 - 1))
    assert last[0].index == 2**32 - 1  # a bucket must not draw beyond the last index


def test_pictures_of_one_size_are_one_run(gpu, opened, session, picture):
    image, mask = picture
    images = [image, image[:, ::-1].copy(), image[:100], image[::-1].copy(), image]
    masks = [mask, mask[:, ::-1], mask[:100], mask, np.zeros_like(mask)]
    del gpu.log[:]
    found = opened.complete_batch(images, masks, k=2, seed=[1, 2, 3, 4, 5])
    assert gpu.log.count("encoder") == 2  # three of one size, one of another, one without a hole
    expected = session.complete_batch(images, masks, k=2, seed=[1, 2, 3, 4, 5])
    for one, other in zip(found, expected, strict=True):
        assert near(one.images, other.images)
        assert (one.primitives is None) == (other.primitives is None)
    assert opened.complete_batch([], []) == []


def test_far_holes_of_free_pictures_are_pasted_over_each_other(gpu, free_engine, picture, tmp_path):
    path = tmp_path / "engine"
    shutil.copytree(free_engine, path)
    write_plans(path)
    image = np.tile(picture[0], (2, 2, 1))
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[5:20, 8:20] = mask[280:295, 265:285] = 1
    with picme_rt.Session(path, backend="tensorrt") as here, picme_rt.Session(path) as cpu:
        expected = cpu.complete(image, mask, k=2)
        for _ in range(3):
            done = here.complete(image, mask, k=2)
            assert near(done.images, expected.images)
            np.testing.assert_allclose(done.log_prob, expected.log_prob, rtol=1e-4, atol=1e-3)
        assert gpu.log.count("graph") == 4
        assert (done.images[:, mask == 0] == image[mask == 0]).all()


def test_results_may_stay_on_the_gpu(gpu, opened, picture):
    expected = opened.complete(*picture, k=5)
    done = opened.complete(*picture, k=5, device_output=True)
    held = done.images.__cuda_array_interface__
    assert held["shape"] == expected.images.shape
    assert held["typestr"] == "|u1"
    assert held["stream"] is None
    opened.complete(*picture, k=5, seed=9)  # changes nothing that was handed out
    there = gpu.array(held["data"][0], held["shape"], np.uint8)
    assert (there == expected.images).all()
    assert (done.images.numpy() == expected.images).all()
    assert done.images.__dlpack_device__() == (2, 0)
    assert (done.primitives == expected.primitives).all()
    empty = opened.complete(picture[0], np.zeros_like(picture[1]), k=2, device_output=True)
    assert (empty.images.numpy() == picture[0]).all()
    assert empty.primitives is None
    with pytest.raises(InputError, match="k must be at most 8 with device_output, got 9: ask"):
        opened.complete(*picture, k=9, device_output=True)


class GpuArray:
    """What pycuda.gpuarray.GPUArray says of itself, on the fake GPU."""

    def __init__(self, cuda, values, stream=None):
        values = np.ascontiguousarray(values)
        self.cuda, self.ptr, self.gpudata = cuda, cuda.allocate(values.nbytes), None
        self.shape, self.dtype = values.shape, values.dtype
        self.__cuda_array_interface__ = {
            "shape": values.shape,
            "strides": values.strides,
            "data": (self.ptr, False),
            "typestr": values.dtype.str,
            "stream": stream,
            "version": 3,
        }
        cuda.array(self.ptr, values.shape, values.dtype)[:] = values

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("a GPUArray is never converted behind its owner's back")


@pytest.mark.parametrize("name", ["tensorrt", "onnxruntime"])
def test_arrays_on_a_gpu_are_arguments_of_every_backend(gpu, planned, session, picture, name):
    image, mask = picture
    stream = gpu.new_stream()
    there = [GpuArray(gpu, image, stream), GpuArray(gpu, mask != 0)]
    late = there[0]
    gpu.array(late.ptr, image.shape, np.uint8)[:] = 0
    source = gpu.allocate_host(image.nbytes)
    source[:] = image.reshape(-1)
    gpu.copy(late.ptr, source.ctypes.data, image.nbytes, stream)  # queued before the call
    with picme_rt.Session(planned, backend=name) as opened:
        assert near(opened.complete(*there, k=2).images, session.complete(*picture, k=2).images)
    for one in there:
        gpu.free(one.ptr)
    gpu.free_host(source)
    gpu.destroy_stream(stream)


def test_an_array_on_a_gpu_must_be_whole(gpu, session, picture):
    there = GpuArray(gpu, picture[0])
    told = there.__cuda_array_interface__
    for change, message in (
        ({"strides": (900, 6, 1)}, "img must be C-contiguous, got shape .* contiguous copy"),
        ({"typestr": "<c8"}, "img must be bool, integers or floats, got complex64"),
        ({"data": None}, "img has a __cuda_array_interface__ without data"),
    ):
        there.__cuda_array_interface__ = told | change
        with pytest.raises(InputError, match=message):
            session.complete(there, picture[1])
    gpu.free(there.ptr)


def test_other_backends_leave_nothing_on_a_gpu(session, picture):
    with pytest.raises(InputError, match="device_output must go with backend tensorrt, got onnx"):
        session.complete(*picture, device_output=True)


# a run has two contexts of 1 MiB each
KEPT = [
    ("MOST_RUNS", 2, 2),
    ("MOST_BYTES", 1, 1),
    ("MOST_CONTEXT_BYTES", 4 << 20, 2),
    ("MOST_CONTEXT_BYTES", 1, 1),
]


@pytest.mark.parametrize(("name", "most", "left"), KEPT)
def test_few_sizes_are_kept_ready(gpu, opened, picture, monkeypatch, name, most, left):
    monkeypatch.setattr(device_pipeline, name, most)
    for k in (1, 2, 3, 1):
        opened.complete(*picture, k=k)
    assert len(gpu.pinned) == left


def test_the_memory_of_a_context_is_asked_for_by_the_name_that_the_library_has():
    names = {"device_memory_size_v2": 7, "device_memory_size": 5}
    assert tensorrt.context_bytes(SimpleNamespace(**names)) == 7
    assert tensorrt.context_bytes(SimpleNamespace(device_memory_size=5)) == 5
    assert tensorrt.context_bytes(SimpleNamespace()) == 0


def test_few_graphs_are_kept(gpu, opened, picture, monkeypatch):
    monkeypatch.setattr(device_run, "MOST_WAYS", 1)
    for temperature in (1.0, 1.0, 0.5, 0.5, 0.5):
        opened.complete(*picture, k=1, temperature=temperature)
        assert len(gpu.graphs) <= 1
    assert gpu.log.count("graph") == 3


def test_an_error_while_a_graph_is_captured_is_told_and_ends_the_capture(
    gpu, opened, picture, monkeypatch
):
    from picme_rt import _kernels

    opened.complete(*picture, k=1)
    composite = _kernels.composite_cuda

    def fails(**_):
        raise RuntimeError("too many registers")

    monkeypatch.setattr(_kernels, "composite_cuda", fails)
    with pytest.raises(UnavailableError, match="CUDA says: too many registers"):
        opened.complete(*picture, k=1)
    monkeypatch.setattr(_kernels, "composite_cuda", composite)
    opened.complete(*picture, k=1)
    del gpu.log[:]
    opened.complete(*picture, k=1)
    assert gpu.log == ["use", "capture", "graph", "wait"]


def test_threads_share_a_session(opened, session, picture):
    expected, found = session.complete(*picture, k=2, seed=3).images, []
    threads = [
        threading.Thread(target=lambda: found.append(opened.complete(*picture, k=2, seed=3).images))
        for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 4
    assert all(near(one, expected) for one in found)


def test_info_and_the_end(gpu, planned, picture):
    session = picme_rt.Session(planned, backend="tensorrt", device="cuda:0")
    assert (session.info.backend, session.info.device) == ("tensorrt", "cuda:0")
    assert (session.info.precision, session.info.micro_batch) == ("fp32", 8)
    encoded, left = session.encode(*picture), session.complete(*picture, device_output=True)
    session.close()
    session.close()
    assert left.images.numpy().shape == (6, *picture[0].shape)  # what was handed out stays
    for use in (lambda: session.info, encoded.complete, lambda: session.complete(*picture)):
        with pytest.raises(ClosedError, match="this session is closed"):
            use()


CALLS = (
    "allocate", "free", "allocate_host", "free_host", "new_stream", "destroy_stream", "copy",
    "synchronise", "begin_capture", "end_capture", "launch", "destroy_graph",
)  # fmt: skip


def test_every_call_is_made_on_its_gpu_and_the_callers_is_put_back(
    gpu, planned, picture, monkeypatch
):
    made, outside = set(), []

    def watched(name, call):
        def calls(*arguments):
            made.add(name)
            if gpu.current is None:
                outside.append(name)
            return call(*arguments)

        return calls

    for name in CALLS:
        monkeypatch.setattr(gpu, name, watched(name, getattr(gpu, name)))
    session = picme_rt.Session(planned, backend="tensorrt")
    kept = [
        session.complete(*picture, k=1, device_output=True).images for _ in range(3)
    ]  # call by call, captured, as a graph
    kept.append(session.complete(picture[0], picture[1] * 0, k=1, device_output=True).images)
    encoded = session.encode(*picture)
    assert encoded.mixture is not None
    for use in (encoded.complete, kept[0].numpy, kept.clear, session.close):
        use()
        assert gpu.current is None
    with pytest.raises(ClosedError):
        encoded.complete()
    assert gpu.current is None
    assert outside == []
    assert made == set(CALLS)


@pytest.mark.parametrize(
    ("name", "factor", "message"),
    [
        ("mu", np.nan, "encoder gave values of mu"),
        ("picture", np.nan, "decoder gave"),
        ("picture", np.float32(1e4), "decoder gave"),
    ],
)
def test_values_that_no_network_gives_are_an_error_each_time(
    gpu, opened, session, picture, monkeypatch, name, factor, message
):
    import onnxruntime

    run = onnxruntime.InferenceSession.run

    def broken(session, names, feeds):
        return [
            v * factor if n == name else v
            for n, v in zip(names, run(session, names, feeds), strict=True)
        ]

    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime.InferenceSession, "run", broken)
        for _ in range(3):
            with pytest.raises(EngineError, match=message):
                opened.complete(*picture, k=1)
    assert not gpu.graphs
    assert near(opened.complete(*picture, k=1).images, session.complete(*picture, k=1).images)


def test_a_graph_that_fails_is_made_anew(gpu, opened, session, picture, monkeypatch):
    def fails(stream):
        patch.undo()  # once
        raise UnavailableError("an illegal address")

    for _ in range(2):
        opened.complete(*picture, k=1)
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "synchronise", fails)
        with pytest.raises(UnavailableError, match="an illegal address"):
            opened.complete(*picture, k=1)
    assert not gpu.graphs
    expected = session.complete(*picture, k=1).images
    assert all(near(opened.complete(*picture, k=1).images, expected) for _ in range(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": {"encoder": "0" * 64, "decoder": "0" * 64}}, "are stale: .* anew since; run"),
        ({"version": "11.3.0"}, r"holds plans for tensorrt 11.3.0 sm86-Fake_GPU fp32; run `picme"),
    ],
)
def test_stale_and_foreign_plans_are_refused_with_the_command(
    gpu, engine, tmp_path, change, message
):
    path = tmp_path / "engine"
    shutil.copytree(engine, path)
    write_plans(path, **change)
    with pytest.raises(EngineError, match=message) as caught:
        picme_rt.Session(path, backend="tensorrt")
    command = f"picme export {path} --target tensorrt --precision fp32"
    assert command in str(caught.value)


def test_a_damaged_plan_is_refused(gpu, engine, tmp_path):
    path = tmp_path / "engine"
    shutil.copytree(engine, path)
    place = write_plans(path)
    plan, text = place / "encoder.plan", (place / "plan.json").read_text()
    plan.write_bytes(plan.read_bytes() + b"\0")
    with pytest.raises(EngineError, match=r"encoder.plan was changed: its sha256"):
        picme_rt.Session(path, backend="tensorrt")
    for content, message in (
        (b"none", "does not load the encoder's plan .* the plan is none; build it again"),
        ((place / "decoder.plan").read_bytes(), "has the tensors .* expected"),
    ):
        plan.write_bytes(content)
        record = json.loads(text)
        record["files"]["encoder"]["sha256"] = hashlib.sha256(content).hexdigest()
        (place / "plan.json").write_text(json.dumps(record))
        with pytest.raises(EngineError, match=message):
            picme_rt.Session(path, backend="tensorrt")
    (place / "plan.json").write_text("{}")
    with pytest.raises(EngineError, match=r"plan\.json is stale or damaged: KeyError"):
        picme_rt.Session(path, backend="tensorrt")


def test_a_size_that_a_plan_refuses_leaves_nothing_behind(gpu, engine, tmp_path, picture):
    path = tmp_path / "engine"
    shutil.copytree(engine, path)
    write_plans(path, plans.Options("fp32", 4, 99))  # the fake's profile ends at 8
    with picme_rt.Session(path, backend="tensorrt") as session:
        with pytest.raises(EngineError, match=r"does not take z of shape \(1, 12, 128\)"):
            session.complete(*picture, k=9)
        assert not gpu.memory
        assert not gpu.pinned
        assert session.complete(*picture, k=1).images.shape[0] == 1


def test_a_context_that_there_is_no_memory_for_is_one_error(gpu, planned, picture, monkeypatch):
    with picme_rt.Session(planned, backend="tensorrt") as session:
        monkeypatch.setattr(tensorrt, "_new_context", lambda *_: None)
        with pytest.raises(UnavailableError, match=r"has no context for these .*--max-batch"):
            session.complete(*picture, k=1)
        assert not gpu.memory


def test_closing_after_an_error_of_cuda_hides_nothing_and_frees_once(
    gpu, planned, picture, monkeypatch
):
    asked = []

    def broken(free):
        def call(what):
            asked.append(what)
            free(what)
            raise UnavailableError("an illegal address")

        return call

    session = picme_rt.Session(planned, backend="tensorrt")
    for _ in range(2):  # the second is captured
        session.complete(*picture, k=1)
    for name in ("free", "free_host", "destroy_graph", "destroy_stream"):
        monkeypatch.setattr(gpu, name, broken(getattr(gpu, name)))
    with pytest.raises(ValueError, match="of the caller"), session:
        raise ValueError("of the caller")
    assert len(asked) >= 4
    session.close()
    assert len(asked) == len({id(what) for what in asked})


def test_nothing_is_collected_while_a_graph_is_captured(gpu, opened, picture, monkeypatch):
    collects, begin = [], gpu.begin_capture
    monkeypatch.setattr(
        gpu, "begin_capture", lambda stream: collects.append(gc.isenabled()) or begin(stream)
    )
    for _ in range(2):
        opened.complete(*picture, k=1)
    assert collects == [False]
    assert gc.isenabled()


def test_the_wrong_precision_or_device_is_refused(gpu, planned):
    with pytest.raises(EngineError, match=r"no plans for .* in fp16, only tensorrt-11.*; run `pi"):
        picme_rt.Session(planned, backend="tensorrt", precision="fp16")
    with pytest.raises(InputError, match=r"precision of a plan .* got 'int8'; .*--calibration"):
        picme_rt.Session(planned, backend="tensorrt", precision="int8")
    with pytest.raises(InputError, match=r"device must be auto, cuda or cuda:N .* got 'cpu'"):
        picme_rt.Session(planned, backend="tensorrt", device="cpu")
    with pytest.raises(InputError, match=r"device must be auto, cuda or cuda:N .* got 0"):
        picme_rt.Session(planned, backend="tensorrt", device=0)
    with pytest.raises(InputError, match="max_wait_ms must be None on a GPU, got 5"):
        picme_rt.Session(planned, backend="tensorrt", max_wait_ms=5)


def test_gpu_check_compares_and_times_a_session(gpu, engine, monkeypatch):
    """The part `tensorrt` of `make gpu-check`, which no other test can run."""
    import torch

    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "training")
    from gpu import tensorrt_session

    def read(array):
        return torch.from_numpy(array.numpy())  # torch of a CPU reads no GPU's memory

    monkeypatch.setattr(torch.utils.dlpack, "from_dlpack", read)
    monkeypatch.setattr(tensorrt_session, "_missing", lambda device: None)
    monkeypatch.setattr(plans, "offered", lambda engine: ("fp32",))
    monkeypatch.setattr(
        tensorrt_session,
        "_build",
        lambda path, library, precision: write_plans(path, plans.Options(precision, 8, 16)),
    )
    library = tensorrt_library.installed()
    library.module.most = (8, 16)
    found = tensorrt_session.measure(torch.device("cuda"), True, engine)
    assert [check["pass"] for check in found["checks"]] == [True] * 5
    assert [(row["batch"], row["k"]) for row in found["rows"]] == [(1, 1), (2, 6)]
    assert "fp32: near the CPU's fp32" in tensorrt_session.table(found)


def misuses(cuda):
    """What the fake must not forgive."""
    stream, memory = cuda.new_stream(), cuda.allocate(256)
    host = cuda.allocate_host(256)
    gone = cuda.allocate(16)
    cuda.free(gone)
    at = host.ctypes.data
    yield "not allocated", lambda: cuda.copy(memory + 128, at, 256, stream)
    yield "was freed", lambda: cuda.copy(at, gone, 16, stream)
    yield "freed twice", lambda: cuda.free(gone)
    yield "no stream", lambda: cuda.copy(memory, at, 256, stream + 1)
    yield "no work of a GPU", lambda: cuda.copy(at, at, 16, stream)
    yield "gone", lambda: cuda.launch(7, stream)
    cuda.copy(memory, at, 256, stream)
    yield "freed while", lambda: cuda.free(memory)
    yield "stream goes", lambda: cuda.destroy_stream(stream)


def test_the_fake_forgives_nothing():
    cuda = fake_cuda.FakeCuda()
    for message, misuse in misuses(cuda):
        with pytest.raises(fake_cuda.MisuseError, match=message):
            misuse()


def test_the_fake_runs_nothing_before_somebody_waits():
    cuda = fake_cuda.FakeCuda()
    stream, memory, host = cuda.new_stream(), cuda.allocate(256), cuda.allocate_host(256)
    cuda.copy(memory, host.ctypes.data, 256, stream)
    host[:] = 1  # too early: the copy has not been made
    cuda.synchronise(stream)
    assert (cuda.inside(memory, 256) == 1).all()
    cuda.begin_capture(stream)
    cuda.copy(host.ctypes.data, memory, 256, stream)
    with pytest.raises(fake_cuda.MisuseError, match="waits while a graph is captured"):
        cuda.synchronise(stream)
    host[:] = 2
    graph = cuda.end_capture(stream)
    assert (host == 2).all()
    cuda.launch(graph, stream)
    cuda.synchronise(stream)
    assert (host == 1).all()


def test_the_fake_network_wants_every_address_and_shape(gpu, planned):
    library = tensorrt_library.installed()
    found = plans.load(next((planned / "plans").iterdir()))
    runtime = library.module.Runtime(library.logger)
    context = runtime.deserialize_cuda_engine(found.read("decoder")).create_execution_context()
    stream = gpu.new_stream()
    assert "z" in context.infer_shapes()
    assert not context.set_input_shape("z", (5, 1, 128))  # beyond its profile
    with pytest.raises(fake_cuda.MisuseError, match="a tensor has no address"):
        context.execute_async_v3(stream)
    gpu.destroy_stream(stream)

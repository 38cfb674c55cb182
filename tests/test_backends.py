"""Every backend gives what torch gives, the same bits each time, and sees nothing unchecked."""

import contextlib
import dataclasses
import gc
import importlib
import os
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_engines
from cpu_backends import BF16, EVERY
from skimage import data

import picme_rt
from picme_rt import backends, choices
from picme_rt import engine as engines
from picme_rt.errors import EngineError, InputError, MissingPackageError, UnavailableError
from picme_rt.framing import Box
from picme_rt.verbs.demo import face_hole
from picme_rt.windows import windows

ROOT = Path(__file__).parents[1]
BY_NAME = pytest.mark.parametrize("backend", backends.BACKENDS)
RUNNERS = {"torch": "torch_runner"}  # where they are not in the backend's own file
BY_PRECISION = pytest.mark.parametrize(("backend", "precision"), EVERY)


@pytest.fixture
def tiny(tmp_path):
    """Writes an engine of 16 x 16 with every operator that an engine may have."""

    def make(*, z_m=True):
        root = tmp_path / f"tiny{z_m:d}"
        for name, content in tiny_engines.make(z_m=z_m).files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return root

    return make


def opened(path, backend, precision="fp32", **settings):
    defaults = backends.defaults(backend, precision)
    return backends.load(engines.load(path), dataclasses.replace(defaults, **settings))


def walk(backend, loaded, z=None):
    """Everything that both graphs give for one picture: the encoder's outputs, and a picture."""
    rng = np.random.default_rng(1)
    hole = np.zeros((1, 1, loaded.size, loaded.size), np.float32)
    hole[..., loaded.size // 4 : loaded.size // 2, loaded.size // 4 :] = 1
    image = rng.uniform(-1, 1, (1, 3, loaded.size, loaded.size)).astype(np.float32) * (1 - hole)
    values = backend.encode(image, hole)
    decode = backend.decoding({**values, "hole": hole})
    z = values["mu"][0, :1] if z is None else z
    picture = decode(np.resize(z, (backend.micro_batch, loaded.latent)))[:1].copy()
    decode.close()
    return {"image": image, "hole": hole, **values, "z": z, "picture": picture}


@BY_NAME
@pytest.mark.parametrize("preset", ["picme", "pic", "cats"])
def test_fp32_gives_what_torch_gives(exported, preset, backend):
    import torch

    from picme_export.graphs import DecoderGraph, EncoderGraph

    model, path, _ = exported(preset)
    loaded = engines.load(path)
    got = walk(opened(path, backend), loaded)
    got["box"] = windows(loaded.size, loaded.crops, Box(0, 0, loaded.size, loaded.size)).rows
    takes = {
        "encoder": (EncoderGraph(model), loaded.tables.encoder),
        "decoder": (DecoderGraph(model, z_m=loaded.z_m), loaded.tables.decoder),
    }
    for module, table in takes.values():
        with torch.no_grad():
            out = module(*(torch.from_numpy(got[t.name]) for t in table.inputs))
        wanted = [out] if isinstance(out, torch.Tensor) else out
        for tensor, want in zip(table.outputs, wanted, strict=True):
            scale = max(1, np.abs(want.numpy()).max())
            assert np.abs(got[tensor.name] - want.numpy()).max() < 1e-4 * scale, tensor.name


@pytest.mark.parametrize("z_m", [True, False])
def test_every_operator_means_the_same_to_every_backend(tiny, z_m):
    path = tiny(z_m=z_m)
    loaded = engines.load(path)
    one, *others = (walk(opened(path, name), loaded) for name in backends.BACKENDS)
    for other in others:
        for name, value in one.items():
            np.testing.assert_allclose(other[name], value, atol=1e-5, rtol=1e-5, err_msg=name)


@BY_PRECISION
def test_bits_depend_on_neither_place_nor_call_nor_thread(engine, backend, precision):
    loaded = engines.load(engine)
    shared = opened(engine, backend, precision, micro_batch=3)
    want = walk(shared, loaded)
    hole, values = want["hole"], {name: want[name] for name in want if name != "z"}
    z = np.random.default_rng(2).standard_normal((3, loaded.latent)).astype(np.float32)

    def pictures(order):
        decode = shared.decoding(values)
        made = decode(z[order]).copy()
        decode.close()
        return made[np.argsort(order)]

    assert hole.any()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(pictures, [[0, 1, 2], [2, 0, 1], [1, 2, 0]] * 4))
        walks = list(pool.map(lambda _: walk(shared, loaded), range(6)))
    assert all((one == found[0]).all() for one in found)
    assert all((one[name] == want[name]).all() for one in walks for name in want)
    again = walk(opened(engine, backend, precision, micro_batch=3), loaded)
    assert all((again[name] == want[name]).all() for name in want)


@BY_PRECISION
def test_micro_batches_give_the_same_pictures_within_a_level(engine, backend, precision):
    loaded = engines.load(engine)
    one, wide = (
        walk(opened(engine, backend, precision, micro_batch=n), loaded)["picture"] for n in (1, 4)
    )
    assert np.abs(one - wide).max() * 127.5 < (1 if precision == "fp32" else 8)


PHOTOGRAPHS = ["chelsea", "astronaut", "coffee"]


@pytest.mark.parametrize("name", PHOTOGRAPHS if BF16 else [])
def test_bf16_draws_what_fp32_draws_and_cannot_be_told_apart(name):
    """Measured: 50 dB or more in every result's hole, and 5 levels at most."""
    img = getattr(data, name)()
    hole = np.zeros(img.shape[:2], bool)
    hole[img.shape[0] // 4 : img.shape[0] // 2, img.shape[1] // 3 : img.shape[1] // 2] = True
    if name == "chelsea":
        hole = face_hole(img.shape[:2])
    full, half = (
        picme_rt.Session(ROOT / "engines" / "cats128", backend="openvino", precision=p).complete(
            img, hole, k=6
        )
        for p in ("fp32", "bf16")
    )
    assert (half.primitives == full.primitives).all()
    assert (half.log_prob == full.log_prob).all()
    assert (half.images[:, ~hole] == img[~hole]).all()
    difference = (half.images.astype(float) - full.images)[:, hole]
    assert difference.any()  # else it was computed in fp32
    assert np.abs(difference).max() <= 8
    for one in difference:
        assert 10 * np.log10(255**2 / (one**2).mean()) > 48


@BY_PRECISION
def test_a_thousand_streamed_results_stay_flat_in_memory(tiny, backend, precision):
    img = np.random.default_rng(0).integers(0, 256, (200, 180, 3), np.uint8)
    hole = np.zeros(img.shape[:2], bool)
    hole[50:120, 40:130] = True
    k = 400 if backend == "torch" else 1200  # it takes 10 ms a result
    with picme_rt.Session(tiny(), backend=backend, precision=precision) as session:
        for one in session.stream(img, hole, k=k):
            if one.index == k // 6:
                before = resident()
        assert one.index == k - 1
        assert resident() - before < 16 << 20  # results that were kept would take 34 or 103 MiB


def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.parametrize("precision", [p for b, p in EVERY if b == "openvino"])
def test_openvino_runs_calls_side_by_side_with_the_bits_of_a_lone_one(precision, monkeypatch):
    path = ROOT / "engines" / "cats128"
    found = []
    for cores in (1, 2):
        monkeypatch.setattr(choices, "cores", lambda cores=cores: cores)
        backend = opened(path, "openvino", precision, threads=1)
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(walk, backend, engines.load(path)) for _ in range(4)]
            found += [job.result() for job in jobs]
    for one in found[1:]:
        assert all((one[name] == found[0][name]).all() for name in one)


@BY_PRECISION
def test_what_is_closed_is_freed_at_once(tiny, backend, precision):
    img, hole = np.zeros((20, 20, 3), np.uint8), np.eye(20)
    session = picme_rt.Session(tiny(), backend=backend, precision=precision)
    prepared = session.encode(img, hole)
    prepared.complete(k=2)
    running = prepared.stream(k=3)
    next(running)
    loaded = weakref.ref(session._model.loaded())
    gc.disable()
    try:
        session.close()
        assert [one.index for one in running] == [1, 2]  # what had begun may end
        assert loaded() is None
    finally:
        gc.enable()


@BY_NAME
def test_no_library_sees_a_graph_that_was_not_checked(tiny, backend, monkeypatch):
    whole, path = tiny_engines.make(z_m=True), tiny()
    graphs = {name: whole.files[name] for name in ("fp32/encoder.onnx", "fp32/decoder.onnx")}
    graphs["fp32/decoder.onnx"] = graphs["fp32/decoder.onnx"].replace(b"Tanh", b"Sinh")
    for name, content in graphs.items():
        (path / name).write_bytes(content)
    (path / "engine.json").write_bytes(tiny_engines.signed(whole.engine, graphs))
    module = importlib.import_module(f"picme_rt.backends.{backend}")
    monkeypatch.setattr(module, "load", lambda *_: pytest.fail("it was handed over"))
    with pytest.raises(EngineError, match=r"decoder\.onnx is no graph of an engine: .*Sinh"):
        picme_rt.Session(path, backend=backend)


@BY_PRECISION
def test_a_call_whose_library_fails_is_one_error_and_the_next_one_works(
    tiny, backend, precision, monkeypatch
):
    path = tiny()
    loaded, backend_ = engines.load(path), opened(path, backend, precision)
    want = walk(backend_, loaded)
    module = importlib.import_module(f"picme_rt.backends.{RUNNERS.get(backend, backend)}")
    runner = module.TorchRunner if backend == "torch" else module._Runner
    with monkeypatch.context() as patched:
        patched.setattr(runner, "run", lambda _: 1 / 0)
        with pytest.raises(EngineError, match="the encoder did not run: division by zero"):
            walk(backend_, loaded)
    again = walk(backend_, loaded)
    assert all((again[name] == want[name]).all() for name in want)


def test_bf16_is_openvinos_alone_and_auto_finds_it(tiny):
    path = tiny()
    with pytest.raises(InputError, match=r"onnxruntime on cpu must be .*'bf16'; .* openvino has"):
        picme_rt.Session(path, backend="onnxruntime", precision="bf16")
    with contextlib.nullcontext() if BF16 else pytest.raises(UnavailableError, match="needs a CPU"):
        info = picme_rt.Session(path, precision="bf16").info
        assert (info.backend, info.precision, info.chosen_by) == ("openvino", "bf16", "default")
        assert set(info.sha256) == {"fp32/encoder.onnx", "fp32/decoder.onnx"}


def test_a_cpu_without_bf16_says_so(tiny, monkeypatch):
    import openvino

    class OlderCore(openvino.Core):
        def get_property(self, device, name):
            return ["FP32", "INT8"] if name == "OPTIMIZATION_CAPABILITIES" else super()

    monkeypatch.setattr(openvino, "Core", OlderCore)
    with pytest.raises(UnavailableError, match=r"bf16 needs a CPU .*FP32.*; use precision='fp32'"):
        picme_rt.Session(tiny(), precision="bf16")
    picme_rt.Session(tiny(), backend="openvino").close()


@pytest.mark.parametrize(
    ("missing", "asked", "says"),
    [
        (["onnxruntime"], {"backend": "onnxruntime"}, "picme_rt[cpu]"),
        (["openvino"], {"backend": "openvino"}, "picme_rt[openvino]"),
        (["openvino"], {"precision": "bf16"}, "picme_rt[openvino]"),
        (["onnxruntime", "openvino"], {}, "picme_rt[cpu]"),
    ],
)
def test_without_its_package_the_extra_is_named(tiny, monkeypatch, missing, asked, says):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError) as caught:
        picme_rt.Session(tiny(), **asked)
    assert says in str(caught.value)


@pytest.mark.parametrize("missing", backends.UNMEASURED["cpu"])
def test_auto_takes_what_is_installed(tiny, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    (other,) = set(backends.UNMEASURED["cpu"]) - {missing}
    with picme_rt.Session(tiny()) as session:
        assert (session.info.backend, session.info.chosen_by) == (other, "default")


def test_onnxruntime_is_imported_without_its_telemetry(tmp_path):
    """With it, the import makes a device's number and a file of events in the user's cache."""
    code = (
        "import os, sys, picme_rt; picme_rt.Session(sys.argv[1], backend='onnxruntime'); "
        "print('ORT_DISABLE_TELEMETRY' in os.environ, os.listdir(os.environ['XDG_CACHE_HOME']))"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "engines" / "cats128")], env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "False []\n"


def test_openvino_is_imported_without_its_telemetry():
    code = (
        "import sys, picme_rt; picme_rt.Session('engines/cats128', backend='openvino'); "
        "print('openvino' in sys.modules, 'openvino_telemetry' in sys.modules); "
        "import openvino_telemetry"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]

"""Plans by TensorRT-RTX itself, which builds without a GPU: every engine, every precision."""

import functools
import io
import json
import re
import shutil
from pathlib import Path

import fake_cuda
import numpy as np
import onnx
import onnxruntime
import pytest
import tqdm
from onnx import TensorProto

from picme_export import (
    build_progress,
    device_decoder,
    graphs,
    half,
    plan_builder,
    plan_table,
    variant,
)
from picme_rt import cli, cuda_runtime, plans
from picme_rt import engine as engines
from picme_rt.backends import tensorrt_library
from picme_rt.errors import EngineError, InputError, UnavailableError
from picme_rt.framing import Box
from picme_rt.windows import windows

SHIPPED = sorted((Path(__file__).parents[1] / "engines").glob("*/engine.json"))
LATENTS, PICTURES = 3, 2


@pytest.fixture(scope="module")
def rtx():
    return tensorrt_library.load("tensorrt-rtx")


def builds(rtx, engine, precision, roles=plans.ROLES):
    """Both plans of an engine; int8 is made here where the engine has none."""
    found = plan_builder.graphs(engine, "fp32" if precision == "int8" else precision)
    for role in roles:
        model, table = found[role]
        if precision == "int8":
            model = plan_table.int8_decoder(engine)
        options = plans.Options(precision)
        built = plan_builder.build(rtx, model, table, options=options, gpu=plans.PORTABLE)
        assert built.layers > len(model.graph.node) / 2
        assert len(built.content) > sum(len(w.raw_data) for w in model.graph.initializer) / 2


# int8 has the encoder of fp32; bf16 is fp16's graph with other types
WAYS = [(name, plans.ROLES) for name in ("fp32", "fp16")]
WAYS += [(name, ("decoder",)) for name in ("bf16", "int8")]


@pytest.mark.parametrize(("precision", "roles"), WAYS)
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_every_shipped_engine_builds(rtx, path, precision, roles):
    builds(rtx, engines.load(path.parent), precision, roles)


@pytest.mark.parametrize(
    ("precision", "roles"), [("fp32", plans.ROLES), ("fp16", plans.ROLES), ("int8", ("decoder",))]
)
@pytest.mark.parametrize("preset", ["picme", "pic"])  # `cats` is shipped
def test_every_preset_builds(rtx, exported, preset, precision, roles):
    builds(rtx, engines.load(exported(preset).path), precision, roles)


@pytest.fixture(scope="module")
def for_a_gpu(exported, tmp_path_factory):
    """The decoder of `picme` with its transposed convolutions, as plans have it, and its table."""
    model, path = exported("picme").model, tmp_path_factory.mktemp("gpu") / "decoder.onnx"
    table = graphs.tables_of(model).decoder
    graphs.to_onnx(graphs.DecoderGraph(model, z_m=True), table, path, target="gpu")
    return device_decoder.rewrite(onnx.load(path), table), plans.decoder_table(table)


def test_a_decoder_rewritten_for_a_gpu_builds_in_half_as_many_layers(rtx, exported, for_a_gpu):
    (model, table), options = for_a_gpu, plans.Options("fp16")
    other = plan_builder.graphs(engines.load(exported("picme").path), "fp16")["decoder"][0]
    layers = [
        plan_builder.build(rtx, one, table, options=options, gpu=plans.PORTABLE).layers
        for one in (half.rewrite(model, "fp16"), other)
    ]
    assert layers[0] < 0.6 * layers[1]


def test_in_bf16_it_does_not_build_which_is_why_it_is_not_the_default_there(rtx, for_a_gpu):
    """TensorRT-RTX 1.7 has no transposed convolution of bf16; take the default away with this."""
    model, table = for_a_gpu
    with pytest.raises(EngineError, match="does not build the plan for portable in bf16"):
        plan_builder.build(
            rtx, half.rewrite(model, "bf16"), table, options=plans.Options("bf16"), gpu="portable"
        )


def test_a_gpu_that_cannot_is_said_in_one_line(rtx, engine):
    model, table = plan_builder.graphs(engines.load(engine), "fp32")["encoder"]
    options = plans.Options("fp32")
    with pytest.raises(EngineError, match=r"does not build the plan for sm75 in fp32: .*Turing"):
        plan_builder.build(rtx, model, table, options=options, gpu="sm75")


def test_what_is_no_graph_is_not_parsed(rtx, engine):
    loaded = engines.load(engine)
    model, table = plan_builder.graphs(loaded, "fp32")["encoder"]
    model.graph.node[0].op_type = "Unheard"
    with pytest.raises(EngineError, match=r"does not parse the encoder: .*Unheard"):
        plan_builder.build(
            rtx, model, table, options=plans.Options("fp32"), gpu="portable", title="encoder"
        )


@pytest.fixture(scope="module")
def feeds():
    """Inputs of a decoder for plans, and those of the engine's for the same pictures."""

    def make(engine, seed=0):
        rng = np.random.default_rng(seed)
        tables = engine.tables.decoder
        once = {
            t.name: rng.standard_normal((PICTURES, *t.shape), np.float32) for t in tables.inputs
            if t.name != "box"
        }  # fmt: skip
        once["hole"] = (once["hole"] > 0).astype(np.float32)
        z = rng.standard_normal((PICTURES, LATENTS, engine.latent), np.float32)
        whole = Box(0, 0, engine.size, engine.size)
        each = {name: np.repeat(value, LATENTS, 0) for name, value in once.items()}
        each |= {"z": z.reshape(-1, engine.latent)}
        if engine.crops:
            each["box"] = windows(engine.size, engine.crops, whole).rows
        return {**once, "z": z}, each

    return make


def run(model, given):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


@pytest.mark.parametrize("preset", ["cats", "picme", "pic"])
def test_a_decoder_for_plans_makes_k_whole_pictures_of_each(exported, feeds, preset):
    engine = engines.load(exported(preset).path)
    (model, table), own = plan_builder.graphs(engine, "fp32")["decoder"], engine.tables.decoder
    given, each = feeds(engine)
    assert [one.name for one in model.graph.input] == [t.name for t in table.inputs]
    assert not [node for node in model.graph.node if "box" in node.input]
    expected = run(onnx.load_from_string(engine.read("fp32/decoder.onnx")), each)["picture"]
    got = run(model, given)["picture"]
    assert got.shape == (PICTURES, LATENTS, 3, engine.size, engine.size)
    np.testing.assert_allclose(got.reshape(expected.shape), expected, atol=2e-5)
    assert own.inputs[-1].name == "box"  # else this compares nothing that was cropped


@pytest.mark.parametrize("preset", ["cats", "picme", "pic"])
def test_fp16_stays_near_and_keeps_what_must_be_float32(exported, feeds, preset):
    engine = engines.load(exported(preset).path)
    full, narrow = (plan_builder.graphs(engine, name) for name in ("fp32", "fp16"))
    given, _ = feeds(engine)
    given["image"] = np.clip(
        np.random.default_rng(1).standard_normal((PICTURES, 3, engine.size, engine.size)), -1, 1
    ).astype(np.float32)
    for role in plans.ROLES:
        model, table = narrow[role]
        inputs = {t.name: given[t.name] for t in table.inputs}
        expected, got = run(full[role][0], inputs), run(model, inputs)
        for name, value in expected.items():
            assert got[name].dtype == np.float32
            scale = max(1.0, np.abs(value).max())
            assert np.abs(got[name] - value).max() / scale < 0.02, name
        types = types_of(model)
        halves = {n.op_type for n in model.graph.node if types[n.output[0]] == TensorProto.FLOAT16}
        assert halves & {"Conv", "ConvTranspose"}
        assert not halves & set(half.FLOAT32)
        stored = {w.name: w.data_type for w in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type in half.CONVOLUTIONS:
                assert {stored[name] for name in node.input[1:]} == {TensorProto.FLOAT16}


def types_of(model):
    """Every value's type, as ONNX infers it."""
    shown = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*shown.graph.value_info, *shown.graph.output, *shown.graph.input)
    return {one.name: one.type.tensor_type.elem_type for one in values}


def test_log_sigma_is_never_rounded_on_its_way_out(engine):
    """From the first matrix on: no cast to two bytes before log_sigma, mu and log_alpha."""
    model, _ = plan_builder.graphs(engines.load(engine), "fp16")["encoder"]
    makers = {name: node for node in model.graph.node for name in node.output}
    waiting, seen = ["log_sigma", "mu", "log_alpha"], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.op_type == "Gemm" or node.name in seen:
            continue
        seen.add(node.name)
        assert node.op_type != "Cast"
        waiting.extend(node.input)
    assert len(seen) >= 4


def test_bf16_weights_are_rounded_to_nearest_even():
    values = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-9), 3e38, 1e-40], np.float32)
    model = plan_of(values)
    (weight,) = half.rewrite(model, "bf16").graph.initializer
    bits = np.frombuffer(weight.raw_data, "<u2").astype(np.uint32) << 16
    expected = np.array([1, 1, 1 + 2**-6, -1], np.float32)
    assert (bits.view(np.float32)[:4] == expected).all()
    assert bits.view(np.float32)[4] == pytest.approx(3e38, rel=2**-8)


def plan_of(weights):
    """One 1x1 convolution with these weights."""
    value = onnx.helper.make_tensor_value_info
    shape = ["B", 1, 2, 2], ["B", weights.size, 2, 2]
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    weight = onnx.numpy_helper.from_array(weights.reshape(-1, 1, 1, 1), "w")
    graph = onnx.helper.make_graph(
        [node], "g", [value("x", 1, shape[0])], [value("y", 1, shape[1])], [weight]
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])


@pytest.fixture
def copied(engine, tmp_path):
    path = tmp_path / "engine"
    shutil.copytree(engine, path)
    return path


def test_the_verb_builds_beside_the_graphs_and_says_what(copied, capsys, monkeypatch):
    said = ["export", str(copied), "--target", "tensorrt-rtx", "--precision", "fp16"]
    assert cli.main([*said, "--max-k", "6", "--max-batch", "2", "--gpu", "sm89", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    place = Path(told["plans"])
    assert place.parent == copied / "plans"
    assert place.name == f"tensorrt-rtx-{told['version']}-sm89-fp16"
    found = plans.load(place)
    assert found.options == plans.Options("fp16", 2, 6)
    assert all(len(found.read(role)) == found.files[role].bytes for role in plans.ROLES)
    engine = engines.load(copied)  # whose own files are as they were
    about = {"library": "tensorrt-rtx", "version": told["version"], "precision": "fp16"}
    assert plans.find(engine, gpus=("sm89", "portable"), **about) == found
    with pytest.raises(EngineError, match=r"on sm86 in fp16, only tensorrt-rtx.*sm89.*--gpu sm86"):
        plans.find(engine, gpus=("sm86", "portable"), **about)
    assert cli.main([*said, "--gpu", "sm89"]) == 1
    assert "exists; pass --force" in capsys.readouterr().err
    monkeypatch.setattr(plan_builder, "build", lambda *a, **k: plan_builder.Built(b"plan", 3))
    assert cli.main([*said, "--gpu", "sm89", "--force"]) == 0
    assert "encoder  3 layers, 0.0 MB, fp16" in capsys.readouterr().out


def test_plans_of_a_checkpoint_are_built_in_its_new_engine(engine, tmp_path, capsys, monkeypatch):
    from picme_export import export

    out = tmp_path / "new"
    monkeypatch.setattr(
        export, "export", lambda source, out, **_: shutil.copytree(engine, out) and {}
    )
    monkeypatch.setattr(plan_builder, "build", lambda *a, **k: plan_builder.Built(b"plan", 3))
    said = ["export", str(tmp_path), "-o", str(out), "--target", "tensorrt-rtx"]
    for flags, message in (
        (["--max-batch", "0"], "--max-batch must be 1 to 4096, got 0"),
        (["--target", "tensorrt", "--gpu", "sm86"], "tensorrt is not installed"),
    ):
        assert cli.main([*said, *flags]) == 1
        assert message in capsys.readouterr().err
        assert not out.exists()  # nothing was exported for plans that cannot be
    assert cli.main([*said, "--precision", "bf16"]) == 0
    assert capsys.readouterr().out.endswith("-portable-bf16\n")
    assert plans.load(next((out / "plans").iterdir())).layers == {"encoder": 3, "decoder": 3}
    shutil.rmtree(out)
    assert cli.main([*said, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)  # one document of both
    assert (told["engine"], told["layers"]) == (str(out), {"encoder": 3, "decoder": 3})


def test_a_gpu_without_plans_is_refused(tmp_path, capsys):
    said = ["export", str(tmp_path), "-o", str(tmp_path / "new"), "--gpu", "sm86"]
    assert cli.main(said) == 1
    assert "--gpu must go with --target tensorrt-rtx, got sm86" in capsys.readouterr().err


def test_plans_stay_where_a_precision_is_added_in_their_place(copied, tmp_path, monkeypatch):
    kept = copied / "plans" / "a" / "encoder.plan"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"plan")
    monkeypatch.setattr(variant, "add", lambda root, given: None)
    given = variant.Calibration(tmp_path)
    variant.extend(copied, copied, given, force=True)
    assert kept.read_bytes() == b"plan"
    variant.extend(copied, tmp_path / "other", given)  # another engine's place has none
    assert not (tmp_path / "other" / "plans").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target", "tensorrt-rtx", "--max-k", "0"], "--max-k must be 1 to 4096, got 0"),
        (["--target", "tensorrt-rtx", "--name", "n"], "--name must not go with --target and an"),
        (["--target", "tensorrt-rtx", "-o", "x"], "--out must not go with --target and an engine"),
        (["--target", "tensorrt-rtx", "--precision", "int8"], "got 'int8'; `picme export ENGINE"),
        (["--target", "tensorrt"], "tensorrt is not installed or cannot be imported"),
        (["--precision", "fp16", "-o", "x"], "--precision fp16 must go with --target"),
        ([], "-o must be the directory of the engine to be written, got none"),
    ],
)
def test_what_cannot_be_built_is_one_line(copied, capsys, flags, message):
    assert cli.main(["export", str(copied), *flags]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_the_decoder_for_plans_does_not_change_the_engine(copied):
    engine = engines.load(copied)
    model = onnx.load_from_string(engine.read("fp32/decoder.onnx"))
    before = model.SerializeToString()
    device_decoder.rewrite(model, engine.tables.decoder)
    half.rewrite(model, "fp16")
    assert model.SerializeToString() == before


def test_tensorrt_keeps_what_it_timed_and_refuses_foreign_times(tmp_path):
    """Of TensorRT alone; its cache stands in here, for no wheel of it installs without a GPU."""

    class Config:
        def __init__(self, known=b"old"):
            self.known = known

        def create_timing_cache(self, content):
            return content

        def set_timing_cache(self, cache, ignore_mismatch):
            assert not ignore_mismatch
            return cache in (b"", self.known)

    place = tmp_path / "tensorrt.timing"
    assert plan_builder._open_timings(Config(), place) == b""
    place.write_bytes(b"old")
    assert plan_builder._open_timings(Config(), place) == b"old"
    with pytest.raises(EngineError, match=r"tensorrt\.timing is of another GPU or version"):
        plan_builder._open_timings(Config(b"new"), place)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_build_shows_its_phases_and_steps(rtx, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(build_progress, "tqdm", functools.partial(tqdm.tqdm, file=screen))
    with build_progress.BuildProgress(rtx.module, "encoder") as monitor:
        assert isinstance(monitor, rtx.module.IProgressMonitor)
        monitor.phase_start("Optimizing", None, 2)
        assert monitor.step_complete("Optimizing", 0)
        monitor.phase_finish("Optimizing")
    assert re.search(r"encoder: +50%.* 1/2 .*Optimizing", screen.getvalue())


def test_tensorrt_builds_for_the_gpu_that_is_here(rtx, copied, monkeypatch):
    """TensorRT-RTX stands in: the calls are the same, and its timing cache is an empty one."""
    monkeypatch.setattr(tensorrt_library, "load", lambda name: rtx._replace(name=name))
    here = fake_cuda.FakeCuda("NVIDIA H200", (9, 0))
    monkeypatch.setattr(cuda_runtime, "load", lambda: here)
    with pytest.warns(DeprecationWarning, match="Timing cache operations are no-ops"):
        done = plan_builder.write(copied, library="tensorrt", options=plans.Options("fp32", 1, 2))
    assert done.gpu == "sm90-NVIDIA_H200"
    (times,) = (copied / "plans").glob("*.timing")
    assert times.name == f"tensorrt-{rtx.version}-sm90-NVIDIA_H200.timing"
    assert times.stat().st_size > 0


def test_the_gpu_of_a_plan_is_named_by_library():
    assert plans.gpus("tensorrt-rtx", (8, 6), "RTX 3090") == ("sm86", "portable")
    assert plans.gpus("tensorrt-rtx", (7, 5), "RTX 2080") == ("sm75",)
    assert plans.gpus("tensorrt", (9, 0), "NVIDIA H200") == ("sm90-NVIDIA_H200",)
    with pytest.raises(UnavailableError, match=r"this GPU is sm90 .*: use TensorRT \(pip install"):
        plans.gpus("tensorrt-rtx", (9, 0), "NVIDIA H200")
    with pytest.raises(InputError, match="--gpu must go with tensorrt-rtx, got 'sm90'"):
        plan_builder.target_of("tensorrt", "sm90")

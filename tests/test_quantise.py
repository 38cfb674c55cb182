"""int8: what it computes, which layers it takes, and that an engine says how near it comes."""

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from cpu_backends import BF16
from onnx import numpy_helper
from PIL import Image
from skimage import data

import picme_rt
from picme_export import (
    calibrate,
    early_rounding,
    export,
    half_weights,
    quality,
    quantise,
    variant,
)
from picme_export.calibrate import Tried
from picme_export.quantise import Layer
from picme_export.variant import Calibration
from picme_rt import backends, cli, graph_shapes, windows
from picme_rt import engine as engines
from picme_rt.errors import InputError
from picme_rt.framing import Box
from picme_rt.quality import Quality
from picme_training.networks import fold
from picme_training.perceptual import Lpips


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of twelve pieces of photographs."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, image in enumerate((data.astronaut(), data.coffee(), data.chelsea())):
        for j in range(4):
            piece = image[:256, 60 * j : 60 * j + 256]
            Image.fromarray(piece).resize((64, 64)).save(folder / f"{i}{j}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One range a layer is tried instead of five: a fifth of the time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibrate, "SHARES", (0.8,))
        yield


@pytest.fixture(scope="module")
def made(exported, pictures, tmp_path_factory):
    """The tiny `cats` engine with int8 beside fp32; LPIPS with weights of no meaning."""
    lpips = Lpips().eval().requires_grad_(False)
    for lin in lpips.lins:
        lin.fill_(0.01)
    target = tmp_path_factory.mktemp("engines") / "cats"
    variant.extend(exported("cats").path, target, Calibration(pictures, lpips))
    return target


@pytest.fixture(scope="module")
def float32(exported):
    engine = engines.load(exported("cats").path)
    return engine, onnx.load_from_string(engine.read("fp32/decoder.onnx"))


def run(model, feed):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = {value.name for value in session.get_inputs()}
    return session.run(None, {name: feed[name] for name in names})[0]


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_within_half_a_step_of_each_channel(axis):
    values = np.random.default_rng(0).standard_normal((6, 5, 3, 3)).astype(np.float32)
    values[:, 2] *= 100
    values[3] = 0
    levels, scales = quantise.weights(values, axis)
    assert levels.dtype == np.int8
    assert np.abs(levels.astype(int)).max() == 127
    shape = [1] * 4
    shape[axis] = -1
    steps = scales.reshape(shape)
    assert scales.shape == (values.shape[axis],)
    assert (np.abs(levels * steps - values) <= 0.501 * steps).all()


def test_a_quantised_layer_computes_what_its_equation_says():
    """round(x / s) * s through the convolution, whose result is as it is, in plain NumPy."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((2, 3, 1, 1)).astype(np.float32)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "w"], ["y"], "c", kernel_shape=[1, 1]),
            onnx.helper.make_node("Tanh", ["y"], ["t"], "t"),
        ],
        "g",
        [value("x", 1, ["B", 3, 4, 4])],
        [value("t", 1, ["B", 2, 4, 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    model.ir_version = 10
    done = quantise.quantise(model, quantise.layers(model), {"x": 1.5})
    x = rng.standard_normal((1, 3, 4, 4)).astype(np.float32)
    x[0, 0, 0, 0] = 7  # beyond the range: clipped

    def rounded(values, largest):
        step = largest / 127
        return np.clip(np.rint(values / step), -128, 127) * step

    steps = np.abs(weight).max((1, 2, 3), keepdims=True) / 127
    inner = np.einsum(
        "oi,bihw->bohw", (np.rint(weight / steps) * steps)[..., 0, 0], rounded(x, 1.5)
    )
    np.testing.assert_allclose(run(done, {"x": x}), np.tanh(inner), atol=2e-5)
    assert not np.allclose(run(done, {"x": x}), run(model, {"x": x}), atol=1e-3)


def test_no_layer_chosen_changes_nothing(float32):
    _, model = float32
    done = quantise.quantise(model, [], {})
    assert [n.SerializeToString() for n in done.graph.node] == [
        n.SerializeToString() for n in model.graph.node
    ]


def test_queries_of_an_attention_stay_in_float32(exported):
    engine = engines.load(exported("picme").path)
    model = onnx.load_from_string(engine.read("fp32/decoder.onnx"))
    queries = {n.input[0] for n in model.graph.node if n.op_type == "Reshape"}
    given = {one.gives for one in quantise.layers(model)}
    every = {n.output[0] for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose")}
    assert every - given == every & queries != set()


def test_multiplications_of_the_layers_are_nearly_all(float32):
    engine, model = float32
    cost = graph_shapes.check(model.SerializeToString(), engine.tables.decoder, engine.crops)
    macs = quantise.multiplications(model, cost.shapes)
    assert set(macs) == {one.name for one in quantise.layers(model)}
    assert 0.9 * cost.macs < sum(macs.values()) < cost.macs


def test_the_layers_with_the_largest_error_for_their_work_stay_in_float32():
    def tried(name, error):
        return Tried(Layer(name, "Conv", "x", "y"), error, {"x": error})

    every = [tried("cheap", 3.0), tried("small", 0.1), tried("work", 4.0)]
    macs = {"cheap": 1, "small": 1, "work": 100}

    def names(budget):
        return {one.layer.name for one in calibrate.choose(every, macs, budget=budget)}

    assert names(10) == {"cheap", "small", "work"}
    assert names(7) == {"small", "work"}
    assert names(4) == {"work"}
    assert names(1) == set()
    assert calibrate.joint(every) == {"x": 4.0}


def test_the_largest_magnitude_is_that_of_all_pictures(float32):
    engine, model = float32
    whole = windows.windows(64, engine.crops, Box(0, 0, 64, 64)).rows
    feeds = [
        {
            t.name: np.full((1, *t.shape), 0.1 * i, np.float32) if t.batched else whole
            for t in engine.tables.decoder.inputs
        }
        for i in range(3)
    ]
    top = calibrate.largest(model, feeds, ["f_0", "picture"])
    assert top["f_0"] == np.float32(0.2)
    assert top["picture"] == max(float(np.abs(run(model, feed)).max()) for feed in feeds)


def test_both_graphs_and_the_measures_are_in_the_engine(made, exported):
    before, engine = engines.load(exported("cats").path), engines.load(made)
    assert engine.variants["int8"] == {
        "encoder": "fp32/encoder.onnx", "decoder": "int8/decoder.onnx",
    }  # fmt: skip
    assert engine.variants["fp32"] == before.variants["fp32"]
    assert {n: f for n, f in engine.files.items() if n != "int8/decoder.onnx"} == before.files
    assert set(engine.quality) == {"int8"} | ({"bf16"} if BF16 else set())
    about = engine.provenance["int8"]
    assert 0 < about["share"] <= 1
    assert set(about["float32"]) < set(about["errors"])
    for one in engine.quality.values():
        assert one.least_psnr <= one.psnr
        assert one.lpips > 0
        assert one.pictures == 4
    assert engine.quality["int8"].psnr > 30
    if BF16:
        assert engine.quality["bf16"].psnr > engine.quality["int8"].psnr


def test_weights_of_layers_in_int8_lie_in_the_file_as_int8(made):
    engine = engines.load(made)
    model = onnx.load_from_string(engine.read("int8/decoder.onnx"))
    stored = {w.name: w for w in model.graph.initializer}
    in_int8 = {w for w in stored if stored[w].data_type == onnx.TensorProto.INT8}
    chosen = set(engine.provenance["int8"]["errors"]) - set(engine.provenance["int8"]["float32"])
    assert {name.removesuffix("_int8") for name in in_int8 - {"int8_zero"}} == chosen
    sizes = {name: engine.files[f"{name}/decoder.onnx"].bytes for name in ("fp32", "int8")}
    spared = 3 * sum(np.prod(stored[name].dims) for name in in_int8)
    assert sizes["int8"] < sizes["fp32"] - 0.9 * spared


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_every_backend_computes_it_and_draws_what_fp32_draws(made, backend):
    img = data.astronaut()[:128, 150:278]
    hole = np.zeros((128, 128), bool)
    hole[40:90, 30:100] = True
    with (
        picme_rt.Session(made, backend=backend, precision="fp32") as one,
        picme_rt.Session(made, backend=backend, precision="int8") as other,
    ):
        want, got = one.complete(img, hole), other.complete(img, hole)
        assert other.info.precision == "int8"
        assert set(other.info.sha256) == {"fp32/encoder.onnx", "int8/decoder.onnx"}
        assert (other.complete(img, hole).images == got.images).all()
    assert (got.primitives == want.primitives).all()
    assert (got.log_prob == want.log_prob).all()
    error = (got.images.astype(float) - want.images)[:, hole]
    assert error.any()
    assert 10 * np.log10(255**2 / (error**2).mean()) > 28


def test_int8_beside_weights_in_float16(tiny_model, pictures, tmp_path):
    model = fold(tiny_model("cats"))
    half_weights.round_(model)
    path, target = tmp_path / "half", tmp_path / "int8"
    export.write(model, path, name="half", weights="fp16")
    variant.extend(path, target, Calibration(pictures))
    kinds = {
        name: {w.data_type for w in onnx.load(target / name / "decoder.onnx").graph.initializer}
        for name in ("fp32", "int8")
    }
    assert onnx.TensorProto.FLOAT16 in kinds["fp32"]
    assert kinds["int8"] == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT8}
    image, hole = data.astronaut()[:64, 150:214], np.zeros((64, 64), bool)
    hole[16:48, 20:50] = True
    done = {}
    for precision in kinds:
        with picme_rt.Session(target, backend="openvino", precision=precision) as session:
            done[precision] = session.complete(image, hole)
    assert (done["int8"].log_prob == done["fp32"].log_prob).all()
    error = (done["int8"].images.astype(float) - done["fp32"].images)[:, hole]
    assert error.any()
    assert 10 * np.log10(255**2 / (error**2).mean()) > 28


def test_openvino_runs_the_convolutions_in_int8(made):
    import openvino

    engine = engines.load(made)
    core = openvino.Core()
    model = core.read_model(engine.read("int8/decoder.onnx"), b"")
    taken = {port.any_name for port in model.inputs}  # not `hole`: the decoder of cats needs none
    inputs = [t for t in engine.tables.decoder.inputs if t.batched and t.name in taken]
    model.reshape({t.name: [1, *t.shape] for t in inputs})
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.f32, "PERF_COUNT": True}
    )
    said = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = [
        one["runtimePrecision"].astype(str)
        for one in said
        if one["layerType"].astype(str) == "Convolution"
    ]
    about = engine.provenance["int8"]
    in_int8 = len(about["errors"]) - len(about["float32"])
    assert sum(kind in ("i8", "u8") for kind in kinds) == in_int8 > 0


def cropped(mode, more=()):
    """Conv (rounded (Pad (Slice))), the sum of that and of `more`."""
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    numbers = {"first": [1, 2], "last": [5, 7], "sides": [2, 3], "pads": [0, 0, 1, 0, 0, 0, 0, 1]}
    weight = np.random.default_rng(2).standard_normal((3, 3, 2, 2)).astype(np.float32)
    stored = {name: np.array(n, np.int64) for name, n in numbers.items()}
    stored |= {"step": np.array(0.03, np.float32), "zero": np.array(0, np.int8), "w": weight}
    graph = onnx.helper.make_graph(
        [
            node("Slice", ["x", "first", "last", "sides"], ["part"], "s"),
            node("Pad", ["part", "pads"], ["wide"], "p", mode=mode),
            node("QuantizeLinear", ["wide", "step", "zero"], ["levels"], "q"),
            node("DequantizeLinear", ["levels", "step", "zero"], ["rounded"], "d"),
            node("Conv", ["rounded", "w"], ["y"], "c"),
            node("Sum", ["y", *more], ["out"], "last"),
        ],
        "g",
        [value("x", 1, ["B", 3, 6, 8])],
        [value("out", 1, ["B", 3, 4, 5])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    model.ir_version = 10
    return model


@pytest.mark.parametrize("mode", ["edge", "reflect", "constant"])
@pytest.mark.parametrize(
    ("more", "moves", "first"),
    [((), 2, "QuantizeLinear"), (("part",), 1, "Slice")],
    ids=["alone", "the crop is taken twice"],
)
def test_rounding_moves_before_crops_and_padding_to_the_bit(mode, more, moves, first):
    model = cropped(mode, more)
    x = np.random.default_rng(3).standard_normal((1, 3, 6, 8)).astype(np.float32)
    want = run(model, {"x": x})
    assert early_rounding.rewrite(model.graph) == moves
    kinds = [n.op_type for n in model.graph.node]
    assert kinds[0] == first
    assert kinds[-2:] == ["Conv", "Sum"]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1 + moves
    assert early_rounding.rewrite(model.graph) == 0
    onnx.checker.check_model(model, full_check=True)
    assert (run(model, {"x": x}) == want).all()


@pytest.mark.skipif(not BF16, reason="this CPU does not compute in bfloat16")
def test_auto_takes_a_lower_precision_where_tuning_allows_it_and_it_is_near(
    made, tmp_path, monkeypatch
):
    from picme_rt import choices
    from picme_rt.choices import Measured, Settings

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engine = engines.load(made)
    near = dataclasses.replace(engine.quality["bf16"], psnr=50.0, least_psnr=40.0, lpips=0.001)
    far, worse = (
        dataclasses.replace(near, **one) for one in ({"lpips": 0.05}, {"least_psnr": 30.0})
    )

    def opened(quality, *, lower, **asked):
        measured = [
            Measured(Settings("openvino", precision, threads=1), taken, lower)
            for precision, taken in (("fp32", 3.0), ("bf16", 2.0), ("int8", 1.0))
        ]
        choices.write(engine, backends.BACKENDS, measured)
        (tmp_path / "quality").mkdir(exist_ok=True)
        changed = dataclasses.replace(engine, quality=quality)
        asked = {"backend": "auto", "precision": "auto", "device": "auto"} | asked
        return backends.choose(changed, **asked).settings.precision

    both = {"bf16": near, "int8": near}
    assert opened(both, lower=True) == "int8"
    assert opened({"bf16": near, "int8": far}, lower=True) == "bf16"
    assert opened({"bf16": near, "int8": worse}, lower=True) == "bf16"
    assert opened({"bf16": near}, lower=True) == "bf16"
    unmeasured = dataclasses.replace(near, lpips=None)
    assert opened({"bf16": unmeasured, "int8": far}, lower=True) == "fp32"
    assert opened(both, lower=False) == "fp32"
    assert opened(both, lower=True, precision="fp32") == "fp32"
    assert opened(both, lower=True, backend="openvino") == "fp32"  # named: its defaults


def test_the_command_adds_int8_to_an_engine_in_place(exported, pictures, tmp_path, capsys):
    import shutil

    target = tmp_path / "engine"
    shutil.copytree(exported("cats").path, target)
    line = [str(target), "-o", str(target), "--precision", "int8", "--calibration", str(pictures)]
    assert cli.main(["export", *line]) == 1
    assert "exists" in capsys.readouterr().err
    assert set(engines.load(target).variants) == {"fp32"}
    assert cli.main(["export", *line, "--force", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["quality"]["int8"]["lpips"] is None
    assert set(engines.load(target).variants) == {"fp32", "int8"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--precision", "int8"], "--precision int8 must have --calibration DIR"),
        (["--lpips-weights", "x"], "--lpips-weights must go with --calibration DIR"),
        (["--calibration", "x", "--name", "y"], "--name must go with a checkpoint"),
        (["--calibration", "x", "--weights", "fp16"], "--weights must go with a checkpoint"),
        ([], "an engine must go with --calibration DIR, which adds a lower precision, or with"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(exported, tmp_path, capsys, arguments, says):
    line = [str(exported("cats").path), "-o", str(tmp_path / "new"), *arguments]
    assert cli.main(["export", *line]) == 1
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_quality_of_a_precision_is_the_worst_of_each_number():
    one, other = Quality(40.0, 32.0, 0.012, 8), Quality(39.9, 35.0, 0.008, 8)
    for pair in ((one, other), (other, one)):
        assert quality.worst(*pair) == Quality(39.9, 32.0, 0.012, 8)
    assert quality.worst(one, Quality(50.0, 40.0, None, 8)).lpips is None


def test_too_few_pictures_are_refused_and_leave_nothing(exported, pictures, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(pictures.iterdir())[:3]:
        (few / path.name).write_bytes(path.read_bytes())
    target = tmp_path / "new"
    with pytest.raises(InputError, match="at least 4 pictures of 64 pixels or more, got 3"):
        variant.extend(exported("cats").path, target, Calibration(few))
    assert not target.exists()

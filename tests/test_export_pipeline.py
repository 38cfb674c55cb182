"""The pipeline as one ONNX file: what a session gives, bytes to bytes, on standard operators."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from skimage import data

import picme_rt
from picme_export.pipeline import export, region, resizing, stages
from picme_export.pipeline.steps import Steps
from picme_export.verify import ParityError
from picme_rt import cli, framing, kernels, resample
from picme_rt import engine as engines
from picme_rt.errors import InputError
from picme_rt.noise import noise
from picme_rt.verbs.demo import face_hole

CATS = Path(__file__).parents[1] / "engines" / "cats128"


def opened(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def ask(run, img, hole, noise):
    """Pictures and primitives for a hole of any nonzero value."""
    feeds = {"image": img, "mask": hole.astype(np.uint8) * 255, **noise._asdict()}
    return run.run(["pictures", "primitives"], feeds)


def agree(pictures, wanted, img, hole):
    apart = np.abs(pictures.astype(int) - wanted)
    assert apart.max() <= 1
    assert (apart > 0).sum() <= 1 + 1e-3 * apart.size
    assert (pictures[:, ~hole] == img[~hole]).all()


@pytest.fixture(scope="module")
def run(engine):
    """The pipeline of the tiny engine."""
    return opened(stages.whole(stages.of(engines.load(engine))))


def test_a_real_photograph_comes_back_as_from_a_session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = export.export(CATS, tmp_path / "cats128.onnx")
    assert done.levels <= 1
    run = opened(onnx.load(tmp_path / "cats128.onnx"))
    img = data.chelsea()
    hole = face_hole(img.shape[:2])
    with picme_rt.Session(CATS, backend="onnxruntime") as session:
        encoded = session.encode(img, hole)
        for first in (0, 6):
            wanted = encoded.complete(k=6, seed=2, first=first)
            drawn = noise(2, latent=session.info.latent, k=6, first=first)
            pictures, primitives = ask(run, img, hole, drawn)
            agree(pictures, wanted.images, img, hole)
            assert list(primitives) == list(wanted.primitives)
        page = (CATS.parents[1] / "docs" / "deployment.md").read_text(encoding="utf-8")
        names = {"img": img, "hole": hole}
        exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names)
        agree(names["pictures"], encoded.complete(k=6, seed=0).images, img, hole)


def holes(shape):
    """Holes of every kind by name."""
    height, width = shape

    def box(top, left, bottom, right):
        hole = np.zeros(shape, bool)
        hole[top:bottom, left:right] = True
        return hole

    return {
        "middle": box(height // 3, width // 3, height // 2, width // 2),
        "corner": box(height - 4, width - 9, height, width),
        "one pixel": box(1, 2, 2, 3),
        "longer than a side": box(2, 0, height - 1, width),
        "two": box(0, 0, 3, 3) | box(height - 3, width - 3, height, width),
        "all": box(0, 0, height, width),
        "none": box(0, 0, 0, 0),
    }


@pytest.mark.parametrize("shape", [(64, 64), (50, 93), (140, 75), (1, 1), (3, 40)])
def test_sizes_and_holes_of_every_kind_agree(run, session, shape):
    rng = np.random.default_rng(1)
    img = rng.integers(0, 256, (*shape, 3), np.uint8)
    drawn = noise(5, latent=session.info.latent, k=2)
    for hole in holes(shape).values():
        pictures, _ = ask(run, img, hole, drawn)
        agree(pictures, session.complete(img, hole, k=2, seed=5).images, img, hole)


@pytest.mark.parametrize("preset", ["picme", "pic"])
def test_every_preset_has_a_pipeline(exported, picture, preset):
    img, mask = picture
    engine = engines.load(exported(preset).path)
    run = opened(stages.whole(stages.of(engine)))
    with picme_rt.Session(engine.path, backend="onnxruntime") as session:
        wanted = session.complete(img, mask, k=3, seed=1)
    pictures, primitives = ask(run, img, mask > 0, noise(1, latent=engine.latent, k=3))
    agree(pictures, wanted.images, img, mask == 255)
    assert list(primitives) == list(wanted.primitives)


def test_the_bytes_under_the_hole_change_nothing(run, picture):
    img, mask = picture
    other = img.copy()
    other[mask > 0] = 255 - other[mask > 0]
    drawn = noise(0, latent=run.get_inputs()[3].shape[1], k=2)
    one, two = (ask(run, each, mask > 0, drawn)[0] for each in (img, other))
    assert (one[:, mask > 0] == two[:, mask > 0]).all()


def test_a_temperature_is_a_factor_on_the_normals(run, session, picture):
    img, mask = picture
    drawn = noise(3, latent=session.info.latent, k=2)
    drawn = drawn._replace(normals=drawn.normals * np.float32(0.5))
    wanted = session.complete(img, mask, k=2, seed=3, temperature=0.5)
    agree(ask(run, img, mask > 0, drawn)[0], wanted.images, img, mask > 0)


def test_a_file_has_standard_operators_alone_and_says_whose_it_is(engine):
    model = stages.whole(stages.of(engines.load(engine)))
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 21)]
    kinds = {node.op_type for node in model.graph.node}
    assert {node.domain for node in model.graph.node} == {""}
    assert not kinds & {"RandomNormal", "RandomUniform", "Multinomial", "Bernoulli", "If", "Loop"}
    about = {one.key: one.value for one in model.metadata_props}
    assert about["engine"] == "cats"
    assert about["encoder"] == engines.load(engine).files["fp32/encoder.onnx"].sha256


@pytest.mark.parametrize("framed", ["aligned", "free"])
def test_the_square_is_that_of_a_session(framed):
    steps = Steps()
    hole = steps.input("mask", np.uint8, ("H", "W")).cast(np.bool_)
    found = region.region(steps, hole, size=16, framing=framed)
    steps.output("region", found.packed(), (7,))
    run, rng, split = opened(steps.model({})), np.random.default_rng(0), 0
    for _ in range(300):
        hole = np.zeros(rng.integers(1, 150, 2), bool)
        for _ in range(rng.integers(1, 3)):
            top, left = (rng.integers(0, side) for side in hole.shape)
            hole[top : top + rng.integers(1, 60), left : left + rng.integers(1, 60)] = True
        wanted = framing.regions(hole, 16, framed)
        (got,) = run.run(None, {"mask": hole.astype(np.uint8)})
        if len(wanted) > 1:  # a session completes its parts apart
            split += 1
            assert list(got[3:]) == list(
                framing._part(hole, framing.Box(0, 0, *hole.shape), 16).box
            )
            continue
        assert list(got) == [*wanted[0][:3], *wanted[0].box]
    assert (split > 0) == (framed == "free")


@pytest.mark.parametrize("kernel", ["triangle", "cubic"])
def test_weights_worked_out_in_a_graph_are_those_of_resample(kernel):
    steps = Steps()
    sides = [steps.input(name, np.int64, (1,)) for name in ("source", "target")]
    steps.output("weights", resizing.matrix(*sides, kernel), ("m", "n"))
    run = opened(steps.model({}))
    for source, target in (
        (64, 64),
        (300, 128),
        (128, 300),
        (1, 64),
        (64, 1),
        (96, 97),
        (4001, 96),
    ):
        feeds = {"source": np.array([source]), "target": np.array([target])}
        (got,) = run.run(None, feeds)
        want = resample.matrix(source, target, kernel)
        assert np.abs(got - want).max() < 1e-6
        if kernel == "triangle":  # a place is known where all that has a weight is
            assert ((got == 0) == (want == 0)).all()


def test_noise_is_what_the_sampler_draws():
    flat = np.zeros((1, 3, 257), np.float32)
    log_alpha = np.log(np.array([[0.2, 0.5, 0.3]], np.float32))
    for seed, first in ((0, 0), (2**64 - 1, 5)):
        drawn = noise(seed, latent=257, k=8, first=first)
        seeds = np.array([seed], np.uint64)
        wanted = kernels.sample_gmm(log_alpha, flat, flat, seeds, k=8, first=first)
        assert (drawn.normals == wanted.z[0]).all()
        assert (np.searchsorted([0.2, 0.7], drawn.uniforms) == wanted.primitive[0]).all()
    for wrong in ({"seed": -1}, {"seed": 2**64}, {"seed": 0, "k": 0}, {"seed": 0, "first": 2**32}):
        with pytest.raises(InputError):
            noise(wrong.pop("seed"), latent=8, **wrong)


def test_a_pipeline_that_gives_something_else_is_not_written(engine, tmp_path, monkeypatch):
    other = noise(1, latent=engines.load(engine).latent, k=3)
    monkeypatch.setattr(export, "noise", lambda *arguments, **options: other)
    with pytest.raises(ParityError, match="within 1 level of a session, got"):
        export.export(engine, tmp_path / "wrong.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_file_and_keeps_one_that_is_there(engine, tmp_path, capsys):
    out = tmp_path / "new" / "cats.onnx"
    command = ["export", str(engine), "--pipeline", "-o", str(out)]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    before = out.read_bytes()
    assert cli.main(command) == 1
    assert "pass --force to overwrite" in capsys.readouterr().err
    assert cli.main([*command, "--force", "--json"]) == 0
    assert '"levels": ' in capsys.readouterr().out
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--target", "triton"], "--pipeline must go without --target, got triton"),
        (["--precision", "int8"], "--precision must go with an engine's export"),
        (["--licence", "CC0"], "--licence must go with an engine's export"),
        (["--name", "mine"], "--name must go with an engine's export"),
        (["--weights", "fp16"], "--weights must go with an engine's export"),
        (["--rewrites", "gpu"], "--rewrites must go with an engine's export"),
    ],
)
def test_flags_of_an_engines_export_are_refused(engine, tmp_path, capsys, more, says):
    assert cli.main(["export", str(engine), "--pipeline", "-o", str(tmp_path / "a"), *more]) == 1
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_no_engine_is_refused_with_the_way_to_one(tmp_path, capsys):
    for more in (["--pipeline"], ["--target", "triton"]):
        assert cli.main(["export", str(tmp_path), "-o", str(tmp_path / "a"), *more]) == 1
        assert "must be given an engine" in capsys.readouterr().err
    (tmp_path / "engine.json").write_text("{}")
    assert cli.main(["export", str(tmp_path), "--pipeline", "-o", str(tmp_path / "a")]) == 1
    assert "engine format" in capsys.readouterr().err

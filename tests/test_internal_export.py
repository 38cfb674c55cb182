import dataclasses
import hashlib
import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import picme_rt
from picme_export import internal, internal_windows
from picme_export.verify import ParityError
from picme_rt import kernels, pyramid, pyramid_frame
from picme_rt.cli import main
from picme_rt.errors import InputError
from picme_training.internal import cascade, masked, presets, run

TINY = presets.Preset(4, 8, 2, 2, 5e-4, 5e-4, 1, 10, 100, "telea")


@pytest.fixture(scope="module")
def given():
    """A picture and its hole."""
    rng = np.random.default_rng(0)
    img = rng.integers(0, 256, (7, 7, 3)).repeat(4, 0).repeat(5, 1).astype(np.uint8)
    hole = np.zeros((28, 35), bool)
    hole[14:21, 4:11] = True
    return img, hole


@pytest.fixture(scope="module")
def scales(given, tmp_path_factory):
    return run.learn(
        *given, run.Settings(TINY, 40, "telea", 3), tmp_path_factory.mktemp("run") / "run"
    )


@pytest.fixture(scope="module")
def engine(scales, given, tmp_path_factory):
    target = tmp_path_factory.mktemp("engines") / "tiny"
    internal.write(scales, target, hole=given[1], fingerprint=pyramid.fingerprint(*given), about={})
    return target


@pytest.fixture
def files_of(given, tmp_path, monkeypatch):
    """The picture and its mask as files, and a `fast` that is over in a moment."""
    monkeypatch.setitem(presets.PRESETS, "fast", TINY)
    Image.fromarray(given[0]).save(tmp_path / "img.png")
    Image.fromarray(given[1]).save(tmp_path / "mask.png")
    return [str(tmp_path / "img.png"), str(tmp_path / "mask.png")]


@pytest.fixture(scope="module")
def windows(scales):
    return internal_windows.windows(scales)


def test_the_graph_gives_what_torch_gives_of_the_whole(scales, windows, engine):
    sizes = [scale.size for scale in scales]
    assert all((b.bottom, b.right) < size for b, size in zip(windows, sizes, strict=True))
    found = internal.parity(scales, windows, engine / "fp32" / "pyramid.onnx")
    assert set(found) == {"batch_1", "batch_2", "batch_5"}
    assert max(found.values()) <= 1e-5


def test_a_pyramid_that_chooses_and_pastes_gives_what_torch_gives(given, tmp_path):
    preset = dataclasses.replace(TINY, completions=True, choices=3)
    found = run.learn(*given, run.Settings(preset, 40, "patch", 3), tmp_path / "run")
    assert len(found[0].bank) == 3
    for name, boxes in (
        ("hole", internal_windows.windows(found)),
        ("all", internal_windows.whole(found)),
    ):
        internal.to_onnx(found, boxes, tmp_path / f"{name}.onnx")
        errors = internal.parity(found, boxes, tmp_path / f"{name}.onnx")
        assert max(errors.values()) <= 1e-5


def test_a_graph_that_differs_is_refused(scales, windows, engine):
    other = [scales[0]._replace(amplitude=scales[0].amplitude * 1.1), *scales[1:]]
    with pytest.raises(ParityError, match=r"pyramid.onnx differs from torch by .* at batch 1"):
        internal.parity(other, windows, engine / "fp32" / "pyramid.onnx")


HOLES = {
    "middle": np.s_[12:16, 14:20],
    "corner": np.s_[:4, :5],
    "right border": np.s_[9:20, 30:],
    "all but a strip": np.s_[:, 8:],
}


@pytest.mark.parametrize("where", HOLES)
@torch.no_grad()
def test_windows_have_all_that_the_hole_needs(scales, where):
    hole = np.zeros((28, 35), bool)
    hole[HOLES[where]] = True
    depths = [masked.depth(pyramid_frame.brought(hole, scale.size)) for scale in scales]
    scales = [scale._replace(depth=d) for scale, d in zip(scales, depths, strict=True)]
    boxes = internal_windows.windows(scales)
    noises = cascade.draw(scales, torch.Generator().manual_seed(0), 1)
    whole = cascade.sample(scales, noises, torch.zeros(()))

    def error(boxes):
        parts = [noise[internal.padded(box)] for noise, box in zip(noises, boxes, strict=True)]
        made = internal.PyramidGraph(scales, boxes)(torch.zeros(1), *parts)
        last = boxes[-1]
        return (made - whole[:, :, last.top : last.bottom, last.left : last.right]).abs().max()

    assert error(boxes) < 1e-6
    if where == "middle":  # a place less of the scale before, and something is wrong
        less = boxes[1]._replace(right=boxes[1].right - 1)
        assert error((boxes[0], less, boxes[2])) > 1e-5


def drawn(scales, windows, seed, batch):
    """Noise as the graph takes it."""
    noises = cascade.draw(scales, torch.Generator().manual_seed(seed), batch)
    parts = (noise[internal.padded(box)] for noise, box in zip(noises, windows, strict=True))
    return {f"noise_{i}": part.numpy() for i, part in enumerate(parts)}


def test_every_input_matters_where_the_hole_is(scales, windows, engine):
    session = onnxruntime.InferenceSession(engine / "fp32" / "pyramid.onnx")
    names = [one.name for one in session.get_inputs()]
    assert names == ["erosion", "noise_0", "noise_1", "noise_2"]
    feeds = drawn(scales, windows, 0, 1)
    feeds["erosion"] = np.array([1.0], np.float32)
    (before,) = session.run(None, feeds)
    for name in names:
        (after,) = session.run(None, {**feeds, name: feeds[name] + np.float32(1)})
        assert not np.array_equal(before, after), name
    assert np.abs(before).max() <= 1


def test_an_erosion_that_leaves_nothing_gives_the_reconstruction(scales, windows, engine):
    session = onnxruntime.InferenceSession(engine / "fp32" / "pyramid.onnx")
    rebuilt = cascade.reconstruct(scales).clamp(-1, 1).numpy()
    box, feeds = windows[-1], drawn(scales, windows, 0, 2)
    rebuilt = rebuilt[:, :, box.top : box.bottom, box.left : box.right]
    (found,) = session.run(None, {**feeds, "erosion": np.array([99.0], np.float32)})
    np.testing.assert_allclose(found, np.concatenate([rebuilt] * 2), atol=1e-5)


def test_the_manifest_says_what_is_there(scales, engine, given):
    content = json.loads((engine / "engine.json").read_text())
    assert content["kind"] == "idc"
    assert content["picture"] == [28, 35]
    assert content["sizes"] == [[25, 31], [26, 33], [28, 35]]
    assert content["fingerprint"] == pyramid.fingerprint(*given)
    assert content["windows"][-1] == [10, 0, 25, 15]  # the hole and four pixels around it
    assert content["tensors"]["inputs"]["noise_2"] == ["B", 3, 25, 25]
    assert content["tensors"]["outputs"] == {"picture": ["B", 3, 15, 15]}
    for name, file in content["files"].items():
        held = (engine / name).read_bytes()
        assert file == {"sha256": hashlib.sha256(held).hexdigest(), "bytes": len(held)}
    bits = np.unpackbits(np.frombuffer((engine / "hole.bits").read_bytes(), np.uint8))
    assert np.array_equal(bits[: 28 * 35].reshape(28, 35), given[1])


def test_the_command_trains_and_exports_and_goes_on(files_of, tmp_path, capsys):
    target = tmp_path / "engine"
    asked = ["internal", *files_of, "-o", str(target), "--preset", "fast", "--size", "40"]
    assert main([*asked, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["sizes"] == [[25, 31], [26, 33], [28, 35]]
    assert max(made["parity"].values()) <= 1e-5
    graph = (target / "fp32" / "pyramid.onnx").read_bytes()
    assert main(asked) == 1
    assert f"{target} exists; pass --force" in capsys.readouterr().err
    assert main([*asked, "--force", "--resume"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(target)
    assert (target / "fp32" / "pyramid.onnx").read_bytes() == graph


def test_a_mask_of_another_size_is_refused_before_training(files_of, tmp_path, capsys):
    Image.fromarray(np.eye(30, dtype=np.uint8) * 255).save(files_of[1])
    assert main(["internal", *files_of, "-o", str(tmp_path / "e"), "--preset", "fast"]) == 1
    assert "mask must have the picture's size 28 x 35, got 30 x 30" in capsys.readouterr().err
    assert not (tmp_path / "e.run").exists()


def test_a_place_that_holds_something_else_is_refused_before_training(files_of, tmp_path, capsys):
    (tmp_path / "e").mkdir()
    assert main(["internal", *files_of, "-o", str(tmp_path / "e"), "--force"]) == 1
    assert "exists and is no engine" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(files_of, tmp_path, capsys):
    asked = ["internal", *files_of, "-o", str(tmp_path / "e"), "--preset", "fast"]
    assert main([*asked, "--device", "nonsense"]) == 1
    assert "device must be a torch device that is here" in capsys.readouterr().err


def test_settings_are_kept_as_provenance(files_of, tmp_path):
    target = tmp_path / "engine"
    main(["internal", *files_of, "-o", str(target), "--preset", "fast", "--seed", "5"])
    about = json.loads((target / "engine.json").read_text())["provenance"]
    assert about["settings"]["seed"] == 5
    assert about["settings"]["preset"] == dataclasses.asdict(TINY)


def test_writing_needs_a_free_place(scales, engine, given):
    with pytest.raises(InputError, match="pass --force"):
        internal.write(scales, engine, hole=given[1], fingerprint="", about={})


def test_the_runtime_makes_what_torch_makes_of_the_same_noise(scales, windows, engine, given):
    img, hole = given
    with picme_rt.Session(engine) as session:
        done = session.complete(img, hole, k=2, seed=5, diversity=1.0).images
    whole = [scale.fixed.clone() for scale in scales]
    seeds = np.array([5], np.uint64)
    for place, (noise, box) in enumerate(zip(whole, windows, strict=True)):
        part = noise[internal.padded(box)]
        part[:] = torch.from_numpy(
            kernels.normal(seeds, tuple(part.shape[1:]), k=1, first=1, place=1 + place)[0]
        )
    made = cascade.sample(scales, whole, torch.tensor(1.0))[0].numpy()
    frame = pyramid_frame.frame(pyramid.load(engine), img, hole)
    expected, box = img.copy(), windows[-1]
    made = made[:, box.top : box.bottom, box.left : box.right]
    pyramid_frame.paste(frame, made, expected)
    assert np.abs(done[1].astype(int) - expected).max() <= 1
    assert (done[:, ~hole] == img[~hole]).all()


def test_what_no_runtime_would_open_is_refused_before_it_is_trained(tmp_path, capsys):
    """Marks in two corners: the whole picture is the window."""
    img, hole = np.zeros((704, 704, 3), np.uint8), np.zeros((704, 704), np.uint8)
    hole[:32, :32] = hole[-32:, -32:] = 255
    for name, array in (("img", img), ("mask", hole)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    command = ["internal", str(tmp_path / "img.png"), str(tmp_path / "mask.png")]
    out = tmp_path / "engine"
    assert main([*command, "-o", str(out), "--preset", "paper", "--size", "704"]) == 1
    assert "must be at most 4 GiB, got about 5" in capsys.readouterr().err
    assert not out.with_name("engine.run").exists()
    plans = run.plan(img, hole > 0, 704)
    internal_windows.check_size(plans, presets.find("fast"))

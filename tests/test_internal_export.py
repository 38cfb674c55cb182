import dataclasses
import hashlib
import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from picme_export import internal
from picme_export.verify import ParityError
from picme_rt.cli import main
from picme_rt.errors import InputError
from picme_training.internal import cascade, presets, run, store

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
    internal.write(scales, target, hole=given[1], fingerprint=store.fingerprint(*given), about={})
    return target


@pytest.fixture
def files_of(given, tmp_path, monkeypatch):
    """The picture and its mask as files, and a `fast` that is over in a moment."""
    monkeypatch.setitem(presets.PRESETS, "fast", TINY)
    Image.fromarray(given[0]).save(tmp_path / "img.png")
    Image.fromarray(given[1]).save(tmp_path / "mask.png")
    return [str(tmp_path / "img.png"), str(tmp_path / "mask.png")]


def test_the_graph_gives_what_torch_gives(scales, engine):
    found = internal.parity(scales, engine / "fp32" / "pyramid.onnx")
    assert set(found) == {"batch_1", "batch_2", "batch_5"}
    assert max(found.values()) <= 1e-5


def test_a_pyramid_that_chooses_and_pastes_gives_what_torch_gives(given, tmp_path):
    preset = dataclasses.replace(TINY, completions=True, choices=3)
    found = run.learn(*given, run.Settings(preset, 40, "patch", 3), tmp_path / "run")
    assert len(found[0].bank) == 3
    internal.to_onnx(found, tmp_path / "pyramid.onnx")
    errors = internal.parity(found, tmp_path / "pyramid.onnx")
    assert max(errors.values()) <= 1e-5


def test_a_graph_that_differs_is_refused(scales, engine):
    other = [scales[0]._replace(amplitude=scales[0].amplitude * 1.1), *scales[1:]]
    with pytest.raises(ParityError, match=r"pyramid.onnx differs from torch by .* at batch 1"):
        internal.parity(other, engine / "fp32" / "pyramid.onnx")


def test_every_input_matters_where_the_hole_is(scales, engine):
    session = onnxruntime.InferenceSession(engine / "fp32" / "pyramid.onnx")
    names = [one.name for one in session.get_inputs()]
    assert names == ["erosion", "noise_0", "noise_1", "noise_2"]
    noises = cascade.draw(scales, torch.Generator().manual_seed(0), 1)
    feeds = {f"noise_{i}": noise.numpy() for i, noise in enumerate(noises)}
    feeds["erosion"] = np.array([1.0], np.float32)
    (before,) = session.run(None, feeds)
    for name in names:
        (after,) = session.run(None, {**feeds, name: feeds[name] + np.float32(1)})
        assert not np.array_equal(before, after), name
    assert np.abs(before).max() <= 1


def test_an_erosion_that_leaves_nothing_gives_the_reconstruction(scales, engine):
    session = onnxruntime.InferenceSession(engine / "fp32" / "pyramid.onnx")
    rebuilt = cascade.reconstruct(scales).clamp(-1, 1).numpy()
    noises = cascade.draw(scales, torch.Generator().manual_seed(0), 2)
    feeds = {f"noise_{i}": noise.numpy() for i, noise in enumerate(noises)}
    (found,) = session.run(None, {**feeds, "erosion": np.array([99.0], np.float32)})
    np.testing.assert_allclose(found, np.concatenate([rebuilt] * 2), atol=1e-5)


def test_the_manifest_says_what_is_there(scales, engine, given):
    content = json.loads((engine / "engine.json").read_text())
    assert content["kind"] == "idc"
    assert content["picture"] == [28, 35]
    assert content["sizes"] == [[25, 31], [26, 33], [28, 35]]
    assert content["fingerprint"] == store.fingerprint(*given)
    assert content["tensors"]["inputs"]["noise_0"] == ["B", 1, 35, 41]
    assert content["tensors"]["outputs"] == {"picture": ["B", 3, 28, 35]}
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

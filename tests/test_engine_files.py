"""The files of an engine: what is no plain file of the right bytes, or no graph, is refused."""

import hashlib
import json
import os
import shutil
import sys

import numpy as np
import onnx
import pytest

import picme_rt
from picme_rt import engine as engines
from picme_rt.errors import EngineError


@pytest.fixture
def place(engine, tmp_path):
    """A copy of the tiny engine, to be damaged."""
    return shutil.copytree(engine, tmp_path / "engine")


def refused(place, says):
    """The one error of loading and opening, whichever comes first."""
    with pytest.raises(EngineError, match=says) as caught:
        picme_rt.Session(place)
    assert str(place) in str(caught.value)


def resign(place, name, change):
    """Changes a graph and gives the manifest its right digest, as who writes an engine can."""
    path = place / name
    model = onnx.ModelProto.FromString(path.read_bytes())
    change(model)
    content = model.SerializeToString()
    path.write_bytes(content)
    manifest = json.loads((place / "engine.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"sha256": digest, "bytes": len(content)}
    (place / "engine.json").write_text(json.dumps(manifest))


def test_a_link_is_not_followed_out_of_the_directory(place, tmp_path):
    path = place / "fp32" / "encoder.onnx"
    path.rename(tmp_path / "outside.onnx")
    path.symlink_to(tmp_path / "outside.onnx")
    refused(place, r"lacks the file fp32/encoder\.onnx: a link in it is not followed")


def test_a_linked_folder_inside_of_an_engine_is_not_followed(place, tmp_path):
    (place / "fp32").rename(tmp_path / "elsewhere")
    (place / "fp32").symlink_to(tmp_path / "elsewhere")
    refused(place, r"lacks the file fp32/encoder\.onnx: a link in it is not followed")


def test_a_linked_manifest_is_not_followed(place, tmp_path):
    (place / "engine.json").rename(tmp_path / "engine.json")
    (place / "engine.json").symlink_to(tmp_path / "engine.json")
    refused(place, r"lacks the file engine\.json: a link in it is not followed")


def test_the_directory_itself_may_be_a_link(place, tmp_path):
    (tmp_path / "link").symlink_to(place)
    with picme_rt.Session(tmp_path / "link") as session:
        assert session.info.name == "cats"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("name", ["engine.json", "fp32/encoder.onnx", "fp32/decoder.onnx"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_in_place_of_a_file_is_refused_and_does_not_hang(place, name, make):
    (place / name).unlink()
    make(place / name)
    refused(place, f"lacks the file {name}: there is no plain file")


@pytest.mark.parametrize("name", ["engine.json", "fp32/encoder.onnx"])
def test_a_file_of_terabytes_is_refused_before_it_is_read(place, name):
    with (place / name).open("wb") as file:
        file.truncate(1 << 40)
    refused(place, r"must have (up to )?\d+ bytes, got 1099511627776")


def test_a_file_that_grows_while_it_is_read_takes_no_more_than_it_had(place, monkeypatch):
    real = os.fstat

    def grows(handle):
        status = real(handle)
        with (place / "fp32/encoder.onnx").open("ab") as file:
            file.write(b"0" * 100)
        return status

    loaded = engines.load(place)
    monkeypatch.setattr(os, "fstat", grows)
    with pytest.raises(EngineError, match="changed while it was read"):
        loaded.read("fp32/encoder.onnx")


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 5000, "a\nb"])
def test_a_path_that_no_system_has_is_no_engine(path):
    with pytest.raises(EngineError):
        picme_rt.Session(path)


def test_a_graph_file_that_is_gone_is_named(place):
    (place / "fp32" / "decoder.onnx").unlink()
    refused(place, r"lacks the file fp32/decoder\.onnx: No such file .*; export it again")


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_a_truncated_graph_is_named(place, role):
    path = place / "fp32" / f"{role}.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    refused(place, rf"{role}\.onnx must have \d+ bytes, got \d+")


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_a_graph_with_one_changed_bit_is_named(place, role):
    path = place / "fp32" / f"{role}.onnx"
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    refused(place, rf"{role}\.onnx was changed.*sha256")


def put_external(model):
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.external_data.add(key="location", value="/etc/passwd")
    weight.data_location = onnx.TensorProto.EXTERNAL


def put_another_operator(model):
    model.graph.node[0].op_type = "NonZero"


def put_a_bomb(model):
    shape = np.array([1, 1 << 20, 64, 64], np.int64)
    model.graph.initializer.append(onnx.numpy_helper.from_array(shape, "bomb"))
    node = onnx.helper.make_node("Expand", ["hole", "bomb"], ["boom"], "boom")
    model.graph.node.insert(0, node)


@pytest.mark.parametrize("name", ["fp32/encoder.onnx", "fp32/decoder.onnx"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put_external, "field 13, which no engine has"),
        (put_another_operator, "operator 'NonZero', which no engine has"),
        (put_a_bomb, "Expand 'boom': a value of shape .* takes more than"),
    ],
)
def test_a_graph_with_its_right_digest_is_checked_before_it_is_run(
    place, name, change, says, monkeypatch
):
    import onnxruntime

    opened = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *a, **k: opened.append(a[0]) or real(*a, **k)
    )
    resign(place, name, change)
    refused(place, rf"{name} is no graph of an engine: .*{says}.*; export it again")
    assert (place / name).read_bytes() not in opened


def put_nan(model):
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1:
            values = np.full(tuple(weight.dims), np.nan, np.float32)
            weight.raw_data = values.tobytes()


def put_no_tanh(model):
    """The last Tanh that gives the picture becomes a sum with itself, far beyond any colour."""
    (last,) = (n for n in model.graph.node if "picture" in n.output)
    source = last.input[0]
    last.CopyFrom(onnx.helper.make_node("Add", [source, "large"], ["picture"], last.name))
    large = onnx.numpy_helper.from_array(np.float32(1e30), "large")
    model.graph.initializer.append(large)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("fp32/encoder.onnx", put_nan, "the engine's encoder gave values of .* not finite"),
        ("fp32/decoder.onnx", put_nan, "the engine's decoder gave values that are not finite"),
        ("fp32/decoder.onnx", put_no_tanh, r"the engine's decoder gave values .* not in \[-1, 1\]"),
    ],
)
def test_numbers_that_are_no_picture_are_an_error_and_no_pixels(place, picture, name, change, says):
    resign(place, name, change)
    with picme_rt.Session(place) as session, pytest.raises(EngineError, match=says):
        session.complete(*picture, k=1)


def test_a_log_alpha_that_is_no_logarithm_is_the_engines_fault(place, picture):
    def change(model):
        (last,) = (n for n in model.graph.node if "log_alpha" in n.output)
        last.CopyFrom(onnx.helper.make_node("Add", [last.input[0], "large"], ["log_alpha"]))
        large = onnx.numpy_helper.from_array(np.float32(1e4), "large")
        model.graph.initializer.append(large)

    resign(place, "fp32/encoder.onnx", change)
    with (
        picme_rt.Session(place) as session,
        pytest.raises(EngineError, match="as largest log_alpha; export it again"),
    ):
        session.complete(*picture, k=1)

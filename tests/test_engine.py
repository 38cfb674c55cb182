"""An engine's directory: what is read is what was written, and all else is refused."""

import copy
import dataclasses
import json
import shutil

import pytest

import picme_rt
from picme_rt import engine as engines
from picme_rt.errors import EngineError


@pytest.fixture
def place(engine, tmp_path):
    """A copy of the tiny engine, to be damaged."""
    return shutil.copytree(engine, tmp_path / "engine")


@pytest.fixture
def content(place):
    return json.loads((place / "engine.json").read_text())


def rewrite(place, content):
    (place / "engine.json").write_text(json.dumps(content))


def refused(place, says):
    """The one error of loading and opening, whichever comes first."""
    with pytest.raises(EngineError, match=says) as caught:
        picme_rt.Session(place)
    assert isinstance(caught.value, ValueError)
    assert str(place) in str(caught.value) or repr(str(place)) in str(caught.value)


def test_what_was_written_is_what_is_read(engine, tmp_path):
    first = engines.load(engine)
    (tmp_path / "engine.json").write_text(engines.manifest(first))
    again = engines.load(tmp_path)
    assert dataclasses.replace(again, path=engine) == first
    assert engines.manifest(again) == (engine / "engine.json").read_text()


def test_the_manifest_says_what_the_engine_is(engine):
    loaded = engines.load(engine)
    assert (loaded.name, loaded.framing, loaded.z_m) == ("cats", "aligned", True)
    assert (loaded.size, loaded.primitives, loaded.latent) == (64, 6, 128)
    assert loaded.features == [(48, 32, 32), (96, 16, 16), (128, 8, 8)]
    assert loaded.variants == {
        "fp32": {"encoder": "fp32/encoder.onnx", "decoder": "fp32/decoder.onnx"}
    }
    on_disk = {p.relative_to(engine).as_posix() for p in engine.rglob("*") if p.is_file()}
    assert on_disk == {*loaded.files, "engine.json"}
    assert loaded.provenance["data"] == "none"
    for name, file in loaded.files.items():
        assert len(loaded.read(name)) == file.bytes


def test_an_entry_under_provenance_may_be_added(place, content):
    content["provenance"]["measures"] = {"fid": [1, None]}
    rewrite(place, content)
    assert engines.load(place).provenance["measures"] == {"fid": [1, None]}


def test_a_directory_without_a_manifest_is_no_engine(tmp_path):
    refused(tmp_path, r"not an engine.*engine\.json.*picme export")
    refused(tmp_path / "nothing", "not an engine")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "not an engine")


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"format": 1', b"\xff\xfe\x00", b"[" * 100_000, b"1" * 5000]
)
def test_a_truncated_or_garbled_manifest_is_damaged(place, text):
    (place / "engine.json").write_bytes(text)
    refused(place, "damaged")


@pytest.mark.parametrize("text", ["[]", "1", "null", '"engine"'])
def test_a_manifest_is_one_object(place, text):
    (place / "engine.json").write_text(text)
    refused(place, "one JSON object")


def test_a_manifest_of_megabytes_is_not_read(place):
    with (place / "engine.json").open("a") as file:
        file.write(" " * (1 << 20))
    refused(place, "longer than 1048576 bytes")


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_another_format_says_to_update(place, content, number):
    rewrite(place, content | {"format": number})
    refused(place, f"format {number!r}, this picme_rt reads 1; update picme_rt")


@pytest.mark.parametrize("kind", ["idc", None, 1])
def test_another_kind_is_refused(place, content, kind):
    rewrite(place, content | {"kind": kind})
    refused(place, f"kind {kind!r}")


@pytest.mark.parametrize("entry", [
    "name", "framing", "size", "primitives", "latent", "features", "z_m", "variants", "files",
    "provenance", "tensors",
])  # fmt: skip
def test_an_entry_that_is_missing_is_refused(place, content, entry):
    del content[entry]
    rewrite(place, content)
    refused(place, entry if entry != "tensors" else "other tensors")


GARBLED = {
    "size": [0, 8, 4097, 10**30, -64, 64.0, "64", True, None, []],
    "primitives": [0, 4097, 6.0],
    "latent": [0, 2**20 + 1, [128]],
    "framing": ["fixed", None, [], {}],
    "z_m": [1, None, "true"],
    "features": [5, [5], [[48, 32]], [[48, 32, 0]], [[48, 32, 1e9]], [[1, 2, "a"]], "abc", [None]],
    "variants": [{}, [], None, {"fp32": {}}, {"fp32": ["encoder", "decoder"]}, {"fp32": None}],
    "files": [{}, [], None, {"fp32/encoder.onnx": None}, {"fp32/encoder.onnx": {"bytes": 5}}],
    "provenance": [None, 3, "none", [], ["ab"], [1]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "value"), [(entry, value) for entry, values in GARBLED.items() for value in values]
)
def test_an_absurd_entry_is_refused(place, content, entry, value):
    rewrite(place, content | {entry: value})
    refused(place, f"{entry} of|lacks or garbles an entry|variant")


@pytest.mark.parametrize("length", [0, -1, 2**32 + 1, 10**30, 1.5, "7", True, None])
def test_an_absurd_length_of_a_file_is_refused(place, content, length):
    content["files"]["fp32/decoder.onnx"]["bytes"] = length
    rewrite(place, content)
    refused(place, "length|bytes")


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "fp32/../../x", "..", "", "C:x", "\\\\host\\x", "a\\..\\b"]
)
def test_a_file_that_leaves_the_directory_is_refused(place, content, name):
    content["files"][name] = dict(content["files"]["fp32/encoder.onnx"])
    rewrite(place, content)
    refused(place, "not inside the engine")


def test_a_link_is_not_followed_out_of_the_directory(place, tmp_path):
    path = place / "fp32" / "encoder.onnx"
    path.rename(tmp_path / "outside.onnx")
    path.symlink_to(tmp_path / "outside.onnx")
    refused(place, r"lacks the file fp32/encoder\.onnx")


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_a_variant_needs_both_graphs(place, content, role):
    missing = copy.deepcopy(content)
    del missing["variants"]["fp32"][role]
    rewrite(place, missing)
    refused(place, "needs an encoder and a decoder")
    content["variants"]["fp32"][role] = "fp32/elsewhere.onnx"
    rewrite(place, content)
    refused(place, "needs an encoder and a decoder")


def test_a_graph_file_that_is_gone_is_named(place):
    (place / "fp32" / "decoder.onnx").unlink()
    refused(place, r"lacks the file fp32/decoder\.onnx; export it again")


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


def test_a_table_of_other_tensors_is_refused(place, content):
    for change in (
        {"decoder": content["tensors"]["encoder"]},
        {"encoder": {"inputs": {"image": ["B", 3, 64, 64]}, "outputs": {}}},
    ):
        rewrite(place, content | {"tensors": content["tensors"] | change})
        refused(place, "other tensors")
    rewrite(place, content | {"latent": 64})  # the table no longer follows from the sizes
    refused(place, "other tensors")


def test_the_changed_sizes_of_a_whole_manifest_do_not_fit_the_graphs(place):
    loaded = engines.load(place)
    other = dataclasses.replace(loaded, primitives=7)
    (place / "engine.json").write_text(engines.manifest(other))
    refused(place, "outputs of .* must be .*log_alpha")

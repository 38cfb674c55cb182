"""An engine's directory: what is read is what was written, and all else is refused."""

import copy
import dataclasses
import json
import shutil

import pytest

import picme_rt
from picme_rt import engine as engines
from picme_rt.errors import EngineError
from picme_rt.quality import Quality


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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('"size": NaN', "NaN' is no finite number"),
        ('"size": -Infinity', "is no finite number"),
        ('"size": 1e999', "is no finite number"),
        ('"size": 64, "size": 64', "given twice"),
        ('"provenance": ' + "[" * 40 + "]" * 40, "more than 32 deep"),
        ('"provenance": {"a": "\\ud800"}', "surrogates not allowed"),
        ('"size": ' + "9" * 5000, "damaged"),
    ],
)
def test_json_that_says_what_no_manifest_says_is_damaged(place, text, says):
    content = (place / "engine.json").read_text().rstrip("}\n") + f", {text}}}"
    if '"provenance"' in text:
        content = "{" + text + "}"
    (place / "engine.json").write_text(content)
    refused(place, says)


def test_an_error_is_one_line_however_long_the_entry_is(place, content):
    for entry, value in (
        ("name", "x\n" * 100_000),
        ("format", [1] * 100_000),
        ("kind", "y\n" * 100_000),
        ("features", [[1, 2]] * 10_000),
        ("files", {"z\n" * 50_000: {}}),
        ("variants", {"v\n" * 50_000: {}}),
        ("framing", {"a": {"b": ["c\n" * 100_000]}}),
    ):
        rewrite(place, content | {entry: value})
        with pytest.raises(EngineError) as caught:
            engines.load(place)
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"engine"'])
def test_a_manifest_is_one_object(place, text):
    (place / "engine.json").write_text(text)
    refused(place, "one JSON object")


def test_a_manifest_of_megabytes_is_not_read(place):
    with (place / "engine.json").open("a") as file:
        file.write(" " * (1 << 20))
    refused(place, r"must have up to 1048576 bytes, got \d+")


@pytest.mark.parametrize("number", [0, 3, "1", None, True, 1.0])
def test_another_format_says_to_update(place, content, number):
    rewrite(place, content | {"format": number})
    refused(place, f"format {number!r}, this picme_rt reads 1 and 2; update picme_rt")


@pytest.mark.parametrize("kind", ["other", None, 1])
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


QUALITY = {"psnr": 50.0, "least_psnr": 40.0, "lpips": None, "pictures": 8}
GARBLED = {
    "size": [0, 8, 4097, 10**30, -64, 64.0, "64", True, None, []],
    "primitives": [0, 4097, 6.0],
    "latent": [0, 2**20 + 1, [128]],
    "framing": ["fixed", None, [], {}],
    "z_m": [1, None, "true"],
    "features": [
        5, [5], [[1, 1, 1]] * 65, [["a", "b", "c"]], [[48, 32]], [[48, 32, 0]], [[48, 32, 1e9]],
        [[1, 2, "a"]], "abc", [None],
    ],
    "variants": [{}, [], None, {"fp32": {}}, {"fp32": ["encoder", "decoder"]}, {"fp32": None}],
    "files": [{}, [], None, {"fp32/encoder.onnx": None}, {"fp32/encoder.onnx": {"bytes": 5}}],
    "provenance": [None, 3, "none", [], ["ab"], [1]],
    "crops": [
        None, {}, [], [{"side": 32}], [5], [{"side": 32, "before": 0, "after": 0, "halo": 0}] * 17,
        [{"side": 32, "before": 0, "after": 0, "halo": 0, "more": 0}],
        [{"side": 32, "before": -1, "after": 0, "halo": 0}],
        [{"side": 32, "before": 0, "after": 65, "halo": 0}],
        [{"side": 32, "before": 0, "after": 0, "halo": 1.0}],
        [{"side": 0, "before": 0, "after": 0, "halo": 0}],
        [{"side": 33, "before": 0, "after": 0, "halo": 0}],
        [{"side": "32", "before": 0, "after": 0, "halo": 0}],
    ],
    "quality": [
        None, [], 3, {"int8": None}, {"int8": {}}, {"../x": {}}, {"int8": QUALITY | {"more": 1}},
        *({"int8": QUALITY | change} for change in (
            {"psnr": 50}, {"psnr": -1.0}, {"psnr": "50"}, {"psnr": None}, {"least_psnr": 1001.0},
            {"lpips": True}, {"lpips": -0.1}, {"pictures": 0}, {"pictures": 2.0},
        )),
        {f"p{i}": QUALITY for i in range(17)},
    ],
    "name": [None, 3, "x" * 256, "a\n", "\x1b[2J"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "value"), [(entry, value) for entry, values in GARBLED.items() for value in values]
)
def test_an_absurd_entry_is_refused(place, content, entry, value):
    rewrite(place, content | {entry: value})
    refused(place, f"{entry} of|a crop of|lacks or garbles an entry|variant")


def test_an_engine_may_lack_what_was_measured_of_its_precisions(place, content):
    del content["quality"]
    rewrite(place, content)
    assert engines.load(place).quality == {}
    rewrite(place, content | {"quality": {"int8": QUALITY}})
    assert engines.load(place).quality["int8"] == Quality(50.0, 40.0, None, 8)
    assert not engines.load(place).quality["int8"].near  # LPIPS was not measured


@pytest.mark.parametrize("length", [0, -1, 2**29 + 1, 10**30, 1.5, "7", True, None])
def test_an_absurd_length_of_a_file_is_refused(place, content, length):
    content["files"]["fp32/decoder.onnx"]["bytes"] = length
    rewrite(place, content)
    refused(place, "length|bytes")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "fp32/../../x",
        "..",
        "",
        "C:x",
        "\\\\host\\x",
        "a\\..\\b",
        ".",
        "./x",
        "a//b",
        "a/",
        "a\n",
        "a\0",
        ".hidden",
        "x" * 256,
        "é",
    ],
)
def test_a_file_that_leaves_the_directory_is_refused(place, content, name):
    content["files"][name] = dict(content["files"]["fp32/encoder.onnx"])
    rewrite(place, content)
    refused(place, "not inside the engine")


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_a_variant_needs_both_graphs(place, content, role):
    missing = copy.deepcopy(content)
    del missing["variants"]["fp32"][role]
    rewrite(place, missing)
    refused(place, "needs the files of encoder and decoder")
    content["variants"]["fp32"][role] = "fp32/elsewhere.onnx"
    rewrite(place, content)
    refused(place, "needs the files of encoder and decoder")


@pytest.mark.parametrize("digest", ["", "0" * 63, "g" * 64, "A" * 64, None, 5, ["0" * 64]])
def test_a_digest_that_is_none_is_refused(place, content, digest):
    content["files"]["MODEL_CARD.md"] = {"sha256": digest, "bytes": 5}
    rewrite(place, content)
    refused(place, r"gives MODEL_CARD\.md the sha256")


def test_there_are_only_so_many_files_and_variants(place, content):
    more = {f"f{i}": content["files"]["fp32/encoder.onnx"] for i in range(64)}
    rewrite(place, content | {"files": content["files"] | more})
    refused(place, "files of .* must be up to 64, got 66")
    variants = {f"v{i}": content["variants"]["fp32"] for i in range(17)}
    rewrite(place, content | {"variants": variants})
    refused(place, "must have 1 to 16 variants, got 17")
    rewrite(place, content | {"variants": {"a b": content["variants"]["fp32"]}})
    refused(place, "has a variant 'a b'")


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
    refused(place, "outputs must be .*log_alpha")

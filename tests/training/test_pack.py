import io
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

from picme_rt.cli import main
from picme_rt.errors import InputError
from picme_training import data, pack, pictures
from picme_training.config import NetworkConfig, RunConfig, ScheduleConfig


@pytest.fixture(scope="module")
def packed(picture_folder, tmp_path_factory):
    """(place, what was said) of the photographs, packed at 64x64."""
    place = tmp_path_factory.mktemp("packs") / "photographs.pack"
    return place, pack.write(picture_folder, place, side=64, quality=90)


def read(place, side=64, smallest=64):
    return data.load_pictures(place, side, smallest=smallest)


def opened(place):
    """The parts of a pack: tensors, and what its metadata says."""
    length = int.from_bytes(place.read_bytes()[:8], "little")
    header = json.loads(place.read_bytes()[8 : 8 + length])
    return load_file(place), json.loads(header["__metadata__"]["picme_pack"])


def forge(place, tensors, about):
    """Writes a pack whose sha256 is right, whatever else is wrong."""
    text = about if isinstance(about, str) else json.dumps(about)
    digest = pack._digest(text, tensors["ends"], tensors["bytes"])
    save_file(tensors | {"sha256": digest}, place, {"picme_pack": text})


# What is packed


def test_a_pack_holds_the_pictures_of_its_folder_in_their_order(packed, picture_folder):
    found, folder = read(packed[0]), read(picture_folder)
    assert found.names == folder.names == packed[1].names
    lost = (found.pixels.float() - folder.pixels.float()).square().mean((2, 3)).mean(1)
    nearest = torch.cdist(found.pixels.flatten(1).float(), folder.pixels.flatten(1).float())
    assert nearest.argmin(1).tolist() == list(range(8))
    psnr = 10 * torch.log10(255**2 / lost)
    assert packed[1].psnr == pytest.approx((psnr.mean().item(), psnr.min().item()), abs=0.01)
    assert psnr.min() > 28


def test_a_packed_picture_is_what_pillow_makes_of_it_to_the_bit(packed, picture_folder):
    found = read(packed[0])
    for name, pixels in zip(found.names, found.pixels, strict=True):
        held = io.BytesIO()
        Image.open(picture_folder / name).convert("RGB").save(held, "WEBP", quality=90, method=4)
        expected = np.asarray(Image.open(held).convert("RGB"))
        assert (pixels.permute(1, 2, 0).numpy() == expected).all()


def test_a_pack_is_smaller_than_its_pixels_and_says_what_it_is(packed, picture_folder):
    place, said = packed
    _, about = opened(place)
    assert said.size == place.stat().st_size < 0.2 * 8 * 3 * 64 * 64
    assert about == {
        "format": 1, "side": 64, "codec": "webp", "quality": 90,
        "psnr": [round(value, 2) for value in said.psnr],
        "names": [f"{i}.png" for i in range(8)], "skipped": {}, "source": picture_folder.name,
    }  # fmt: skip


def test_a_higher_quality_loses_less_and_takes_more(packed, picture_folder, tmp_path):
    better = pack.write(picture_folder, tmp_path / "better.pack", side=64, quality=99)
    assert better.psnr[0] > packed[1].psnr[0] + 1
    assert better.size > packed[1].size


def test_packing_twice_gives_the_same_bytes_and_the_same_batches(packed, picture_folder, tmp_path):
    again = tmp_path / "again.pack"
    pack.write(picture_folder, again, side=64, quality=90)
    assert again.read_bytes() == packed[0].read_bytes()
    config = RunConfig(NetworkConfig("cats", 64), ScheduleConfig(steps=1, batch=4))
    one, two = (data.Batches(read(place).pixels, config) for place in (packed[0], again))
    for step in range(3):
        pairs = zip(one.batch(step), two.batch(step), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_what_cannot_be_learnt_from_is_not_packed(picture_folder, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "a.png").write_bytes((picture_folder / "0.png").read_bytes())
    (folder / "b.png").write_bytes(b"broken")
    Image.new("RGB", (63, 99), "red").save(folder / "c.png")
    Image.new("L", (64, 64)).save(folder / "d.png")
    said = pack.write(folder, tmp_path / "some.pack", side=64, quality=90)
    assert {s.name: s.reason for s in said.skipped} == {
        "b.png": "unreadable", "c.png": "tiny", "d.png": "grey",
    }  # fmt: skip
    assert read(tmp_path / "some.pack").names == ["a.png"]
    assert opened(tmp_path / "some.pack")[1]["skipped"] == {"unreadable": 1, "tiny": 1, "grey": 1}
    pack.write(folder, tmp_path / "grey.pack", side=64, quality=90, keep_grey=True)
    assert read(tmp_path / "grey.pack").names == ["a.png", "d.png"]


@pytest.mark.parametrize(("option", "value"), [
    ("side", 7), ("side", 1025), ("quality", 0), ("quality", 101),
])  # fmt: skip
def test_a_side_or_quality_out_of_range_is_refused(picture_folder, tmp_path, option, value):
    options = {"side": 64, "quality": 90, option: value}
    with pytest.raises(InputError, match=f"got {value}"):
        pack.write(picture_folder, tmp_path / "x.pack", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_pack_of_nothing_is_refused_and_not_written(tmp_path):
    folder = tmp_path / "grey"
    folder.mkdir()
    Image.new("L", (64, 64)).save(folder / "grey.png")
    with pytest.raises(InputError, match=r"1 grey \(grey\.png\)"):
        pack.write(folder, tmp_path / "x.pack", side=64, quality=90)
    assert [path.name for path in tmp_path.iterdir()] == ["grey"]


# What is read


@pytest.mark.parametrize("side", [40, 71])
def test_a_pack_is_resized_as_a_folder_is(packed, side):
    whole, found = read(packed[0]), read(packed[0], side, smallest=32)
    for one, other in zip(whole.pixels, found.pixels, strict=True):
        expected = pictures.resized(one.permute(1, 2, 0).numpy(), side)
        assert (other.permute(1, 2, 0).numpy() == expected).all()


def test_a_pack_of_smaller_pictures_than_the_network_s_is_refused(packed):
    with pytest.raises(InputError, match=r"pictures of 64 pixels.*have 65.*--size 80"):
        read(packed[0], side=80, smallest=65)


def test_a_pack_that_does_not_fit_the_memory_is_refused(packed, monkeypatch):
    monkeypatch.setattr(pictures, "available_memory", lambda: 8 * 3 * 64 * 64 - 1)
    with pytest.raises(InputError, match="8 pictures of 64x64 need"):
        read(packed[0])


@pytest.mark.parametrize("content", [b"", b"PK", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{}"])
def test_another_kind_of_file_is_no_pack(tmp_path, content):
    (tmp_path / "other.pack").write_bytes(content)
    with pytest.raises(InputError, match=r"other\.pack is no pack .*; name a folder of pictures"):
        read(tmp_path / "other.pack")


def test_another_safetensors_file_is_no_pack(tmp_path):
    save_file({"bytes": np.zeros(3, np.uint8)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="picme pack did not write it; name a folder"):
        read(tmp_path / "weights.safetensors")


def test_a_newer_pack_says_so(packed, tmp_path):
    tensors, about = opened(packed[0])
    forge(tmp_path / "new.pack", tensors, about | {"format": 2})
    with pytest.raises(InputError, match="format is 2, this version reads 1"):
        read(tmp_path / "new.pack")


@pytest.mark.parametrize("change", [
    {"side": 0}, {"side": 10**9}, {"side": "64"}, {"side": 32}, {"codec": "jxl"}, {"names": ["a"]},
    {"names": 8}, {"names": [1] * 8}, {"format": None},
])  # fmt: skip
def test_a_pack_that_says_what_it_does_not_hold_is_refused(packed, tmp_path, change):
    tensors, about = opened(packed[0])
    forge(tmp_path / "bad.pack", tensors, about | change)
    with pytest.raises(InputError, match=r"bad\.pack"):
        read(tmp_path / "bad.pack", side=16, smallest=16)


@pytest.mark.parametrize("about", ["[]", "3", "", "[" * 100_000, "{}"])
def test_a_description_that_is_none_is_refused(packed, tmp_path, about):
    forge(tmp_path / "bad.pack", opened(packed[0])[0], about)
    with pytest.raises(InputError, match=r"bad\.pack"):
        read(tmp_path / "bad.pack")


@pytest.mark.parametrize("ends", [
    [0] * 8, [-1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1], list(range(1, 9)),
    [2**63 - 1] * 8, [5, -(2**63) + 1, -1, 10, 11, 12, 13, None],
])  # fmt: skip
def test_ends_that_do_not_follow_one_another_are_refused(packed, tmp_path, ends):
    tensors, about = opened(packed[0])
    ends = [len(tensors["bytes"]) if end is None else end for end in ends]
    forge(tmp_path / "bad.pack", tensors | {"ends": np.array(ends, np.int64)}, about)
    with pytest.raises(InputError, match="ends do not follow"):
        read(tmp_path / "bad.pack")


@pytest.mark.parametrize("name", ["ends", "bytes"])
@pytest.mark.parametrize("change", [lambda x: x.astype(np.int32), lambda x: x[None]])
def test_tensors_of_another_type_or_shape_are_refused(packed, tmp_path, name, change):
    tensors, about = opened(packed[0])
    forge(tmp_path / "bad.pack", tensors | {name: np.ascontiguousarray(change(tensors[name]))},
          about)  # fmt: skip
    with pytest.raises(InputError, match=f"its {name} are"):
        read(tmp_path / "bad.pack")


def test_a_picture_in_a_pack_that_cannot_be_read_is_named(packed, tmp_path):
    tensors, about = opened(packed[0])
    content = tensors["bytes"].copy()
    content[tensors["ends"][2] : tensors["ends"][2] + 12] = 0
    forge(tmp_path / "bad.pack", tensors | {"bytes": content}, about)
    with pytest.raises(InputError, match=r"bad\.pack is damaged: 3\.png in it"):
        read(tmp_path / "bad.pack")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
def test_a_pack_with_any_byte_changed_or_cut_is_refused(packed, tmp_path, at, change, cut):
    content = bytearray(packed[0].read_bytes())
    # half of them in the header, which is small
    place = int(at * 2 * len(content)) if at < 0.5 else int((at - 0.5) * 2 * 1000)
    content[place] ^= change
    (tmp_path / "bad.pack").write_bytes(content[:place] if cut else content)
    with pytest.raises(InputError, match=r"bad\.pack"):
        read(tmp_path / "bad.pack")


# picme pack


@pytest.fixture
def command(picture_folder, tmp_path):
    def call(*flags, folder=picture_folder, out="cats.pack"):
        return main(["pack", str(folder), "-o", str(tmp_path / out), "--size", "64", *flags])

    return call


def test_picme_pack_packs_and_says_what_came_of_it(command, tmp_path, capsys):
    assert command() == 0
    assert f"{tmp_path / 'cats.pack'}: 8 pictures of 64x64" in capsys.readouterr().out
    assert len(read(tmp_path / "cats.pack").names) == 8


def test_picme_pack_speaks_json_and_names_what_was_left_out(
    command, picture_folder, tmp_path, capsys
):
    folder = tmp_path / "some"
    folder.mkdir()
    clear = Image.open(picture_folder / "0.png")
    clear.putalpha(0)
    clear.save(folder / "a.png")
    (folder / "b.png").write_bytes(b"broken")
    assert command("--json", "--quality", "50", folder=folder) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["pictures"] == 1
    assert said["quality"] == 50
    assert said["bytes"] == (tmp_path / "cats.pack").stat().st_size
    assert list(said["skipped"]["unreadable"]) == ["b.png"]
    assert "skipped 1 unreadable (b.png)" in captured.err
    assert "1 with transparent pixels, whose stored colours are learnt (a.png)" in captured.err


def test_picme_pack_replaces_a_pack_with_force_alone(command, tmp_path, capsys):
    (tmp_path / "cats.pack").write_bytes(b"mine")
    assert command() == 1
    assert "pass --force" in capsys.readouterr().err
    assert (tmp_path / "cats.pack").read_bytes() == b"mine"
    assert command("--force") == 0
    assert len(read(tmp_path / "cats.pack").names) == 8


@pytest.mark.parametrize(("out", "text"), [
    ("folder", "give a file's name"), ("nowhere/cats.pack", "in a folder that exists"),
])  # fmt: skip
def test_picme_pack_refuses_a_place_that_is_no_file_s_before_it_reads(
    command, tmp_path, out, text, capsys
):
    (tmp_path / "folder").mkdir()
    assert command("--force", out=out) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_a_pack_is_trained_from_and_measured_with(command, tmp_path, capsys):
    assert command() == 0
    (tmp_path / "run.toml").write_text(
        '[network]\npreset = "cats"\nsize = 64\nprimitives = 2\n[schedule]\nsteps = 1\nbatch = 2\n'
    )
    place = str(tmp_path / "cats.pack")
    capsys.readouterr()
    assert main(["train", str(tmp_path / "run.toml"), "--data", place, "--val", place,
                 "--out", str(tmp_path / "out"), "--json"]) == 0  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert said["pictures"] == 8
    assert said["skipped"] == 0
    assert said["step"] == said["val"]["step"] == 1
    assert said["checkpoint"] == str(tmp_path / "out" / "checkpoints" / "step_00000001")

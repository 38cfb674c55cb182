"""Picture files as users have them: one clear error, or a picture that is what a viewer shows."""

import contextlib
import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageCms, PngImagePlugin
from written_by_hand import png

from picme_rt import files
from picme_rt.errors import InputError
from picme_rt.files import Photograph

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), np.uint8)


# Reading pictures


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tif", "gif", "jpg"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK"])
def test_every_mode_of_every_format_is_read_as_a_viewer_shows_it(tmp_path, suffix, mode):
    path = tmp_path / f"picture.{suffix}"
    picture = Pillow.fromarray(RGB).convert(mode)
    try:
        picture.save(path)
    except (OSError, ValueError):  # no such file can exist
        assert (suffix, mode) in {
            *(("png", "CMYK"), ("bmp", "CMYK"), ("bmp", "LA"), ("gif", "CMYK")),
            *(("jpg", "P"), ("jpg", "RGBA"), ("jpg", "LA")),
        }
        return
    found = files.read_picture(path)
    assert found.dtype == np.uint8
    assert found.shape == RGB.shape
    with Pillow.open(path) as opened:
        assert (found == np.asarray(opened.convert("RGB"))).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photograph_is_upright_and_says_so(tmp_path, turn):
    exif = Pillow.Exif()
    exif[0x0112], exif[0x010F] = turn, "Maker"
    Pillow.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    found = files.read_photograph(tmp_path / "a.png")
    seen = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1],
        5: RGB.transpose(1, 0, 2), 6: np.rot90(RGB, -1),
        7: RGB.transpose(1, 0, 2)[::-1, ::-1], 8: np.rot90(RGB),
    }  # fmt: skip
    assert (found.pixels == seen[turn]).all()
    kept = Pillow.Exif()
    kept.load(found.exif)
    assert kept.get(0x0112, 1) == 1
    assert kept[0x010F] == "Maker"


def entries(orientation=None):
    """EXIF entries of a camera, with those of a place and of an exposure."""
    exif = Pillow.Exif()
    exif[0x010F], exif[0x8298], exif[0x013B] = "Maker", "(c) me", "Artist"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    if orientation:
        exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("turn", [None, 6])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "big.tif"])
def test_the_same_entries_survive_from_every_format(tmp_path, suffix, turn):
    path = tmp_path / f"a.{suffix}"
    more = {"big_tiff": True} if suffix == "big.tif" else {}
    Pillow.fromarray(RGB).save(path, exif=entries(turn).tobytes(), **more)
    photograph = files.read_photograph(path)
    assert photograph.pixels.shape == ((30, 20, 3) if turn else RGB.shape)
    kept = Pillow.Exif()
    kept.load(photograph.exif)
    want = entries()
    assert {tag: kept[tag] for tag in kept if tag not in (0x8769, 0x8825)} == dict(want)
    for tag in (0x8769, 0x8825):
        assert kept.get_ifd(tag) == want.get_ifd(tag)


def test_entries_that_are_damaged_are_one_error_with_the_cure(tmp_path):
    Pillow.fromarray(RGB).save(tmp_path / "a.jpg", exif=b"Exif\0\0none at all")
    with pytest.raises(InputError, match=r"a\.jpg has EXIF entries that cannot be read.*remove"):
        files.read_photograph(tmp_path / "a.jpg")
    assert files.read_mask(tmp_path / "a.jpg").shape == (20, 30)  # needs none


def test_a_tiff_gives_no_entries_that_are_about_its_file(tmp_path):
    plain, more = tmp_path / "a.tif", tmp_path / "b.tif"
    Pillow.fromarray(RGB).save(plain)
    assert files.read_photograph(plain).exif is None
    thumbnails = {34377: b"8BIM a thumbnail", 700: b"<x:xmpmeta/>", 37724: b"layers"}
    about = {"dpi": (300, 300), "description": "A cat", "compression": "tiff_lzw"}
    Pillow.fromarray(RGB).save(more, tiffinfo=thumbnails, **about)
    kept = Pillow.Exif()
    kept.load(files.read_photograph(more).exif)
    assert dict(kept) == {0x010E: "A cat", 0x011A: 300, 0x011B: 300, 0x0128: 2}


def test_cmyk_with_a_profile_becomes_srgb_and_loses_the_profile(tmp_path):
    cmyk = Pillow.fromarray(RGB).convert("CMYK")
    cmyk.save(tmp_path / "plain.jpg", quality=100)
    assert files.read_photograph(tmp_path / "plain.jpg").icc_profile is None
    cmyk.save(tmp_path / "damaged.jpg", icc_profile=b"no profile")
    with pytest.raises(InputError, match="colour profile that cannot be read"):
        files.read_picture(tmp_path / "damaged.jpg")


def test_a_profile_is_kept_for_the_values_that_it_is_of(tmp_path):
    Pillow.fromarray(RGB).convert("L").save(tmp_path / "grey.png", icc_profile=b"of grey")
    Pillow.fromarray(RGB).save(tmp_path / "colour.png", icc_profile=b"of colours")
    assert files.read_photograph(tmp_path / "colour.png").icc_profile == b"of colours"
    grey = files.read_photograph(tmp_path / "grey.png")
    for suffix in ("png", "jpg", "webp"):
        files.write_picture(tmp_path / f"a.{suffix}", grey)
        with Pillow.open(tmp_path / f"a.{suffix}") as found:  # a webp has red, green and blue
            expected = None if suffix == "webp" else b"of grey"
            assert found.info.get("icc_profile") == expected


def test_the_grey_of_three_equal_channels_is_their_value():
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    assert (np.asarray(Pillow.fromarray(ramp).convert("L")) == ramp[..., 0]).all()


@pytest.mark.parametrize(("mode", "grey"), [("1", True), ("L", True), ("LA", True), ("P", False)])
def test_a_photograph_without_colour_is_written_without(tmp_path, mode, grey):
    picture = Pillow.fromarray(RGB).convert(mode)
    if mode == "LA":
        picture.putalpha(Pillow.fromarray(RGB[..., 0]))
    picture.save(tmp_path / "a.png")
    found = files.read_photograph(tmp_path / "a.png")
    assert found.grey == grey
    assert found.pixels.shape == RGB.shape
    files.write_picture(tmp_path / "b.png", found)
    with Pillow.open(tmp_path / "b.png") as written:
        assert written.mode == {"1": "L", "P": "RGB"}.get(mode, mode)
        expected = np.asarray(picture.convert(written.mode))
        assert (np.asarray(written) == expected).all()
    coloured = found._replace(pixels=RGB, alpha=None)
    files.write_picture(tmp_path / "c.png", coloured)
    files.write_picture(tmp_path / "c.webp", coloured)
    seen = Pillow.fromarray(RGB).convert("L" if grey else "RGB").convert("RGB")
    for suffix in ("png", "webp"):
        assert (files.read_picture(tmp_path / f"c.{suffix}") == np.asarray(seen)).all()


def test_the_smallest_picture_is_read(tmp_path):
    Pillow.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "dot.png")
    assert files.read_picture(tmp_path / "dot.png").tolist() == [[[1, 2, 3]]]


def test_fifty_megapixels_are_read_and_ninety_without_a_warning(tmp_path):
    Pillow.new("1", (10_000, 9_500)).save(tmp_path / "large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert files.read_mask(tmp_path / "large.png").shape == (9_500, 10_000)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    bomb = png(1, 1, 8, 2, 3, np.zeros(3)).replace(
        struct.pack(">II", 1, 1), struct.pack(">II", 50_000, 50_000), 1
    )
    header = bomb[12:29]
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(header)) + bomb[33:]
    (tmp_path / "bomb.png").write_bytes(bomb)
    says = r"bomb\.png must have at most 178956970 pixels, got more;.*MAX_IMAGE_PIXELS.*an array"
    for read in (files.read_picture, files.read_mask):
        with pytest.raises(InputError, match=says):
            read(tmp_path / "bomb.png")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "empty", "text", "dangling"])
def test_what_is_no_picture_is_named(tmp_path, kind):
    path = tmp_path / "thing.png"
    {
        "missing": lambda: None,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text("a cat"),
        "dangling": lambda: path.symlink_to(tmp_path / "nowhere"),
    }[kind]()
    for read in (files.read_picture, files.read_mask):
        with pytest.raises(InputError, match=r"thing\.png"):
            read(path)


SAVED = {}
for suffix, mode in (("PNG", "RGB"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("GIF", "P"), ("TIFF", "L")):
    stream = io.BytesIO()
    exif = Pillow.Exif()
    exif[0x0112] = 6
    more = {} if suffix == "GIF" else {"exif": exif}
    Pillow.fromarray(RGB).convert(mode).save(stream, suffix, **more)
    SAVED[suffix] = stream.getvalue()


@given(kind=st.sampled_from(sorted(SAVED)), data=st.data())
def test_damaged_bytes_are_a_picture_or_one_error(tmp_path_factory, kind, data):
    content = bytearray(SAVED[kind])
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(1, 6), "changes")):
        if content:
            place = data.draw(st.integers(0, len(content) - 1))
            content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.png"
    path.write_bytes(content)
    for read in (files.read_picture, files.read_mask):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, of damaged TIFF entries
            with contextlib.suppress(InputError):  # anything else fails the test
                assert read(path).size > 0


# Reading masks


def test_grey_over_the_threshold_is_hole(tmp_path):
    Pillow.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "m.png")
    assert (files.read_mask(tmp_path / "m.png").ravel() == (np.arange(256) > 127)).all()


@pytest.mark.parametrize(
    ("mode", "value", "largest"), [("L", 1, 1), ("L", 127, 127), ("P", 1, 76), ("RGB", 9, 9)]
)
def test_a_mask_that_is_not_empty_but_reads_as_such_is_refused(tmp_path, mode, value, largest):
    mask = Pillow.fromarray(np.pad(np.full((2, 2), value, np.uint8), 3))
    if mode == "P":
        mask.putpalette([0, 0, 0, 255, 0, 0])  # the painted colour is a pure red
    (mask if mode == "P" else mask.convert(mode)).save(tmp_path / "m.png")
    says = rf"grey over 127.*got at most {largest} in .*m\.png; .*multiply .* by 255"
    with pytest.raises(InputError, match=says):
        files.read_mask(tmp_path / "m.png")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_mask_that_is_all_zero_is_empty(tmp_path, mode):
    Pillow.new("L", (5, 4)).convert(mode).save(tmp_path / "m.png")
    assert not files.read_mask(tmp_path / "m.png").any()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_a_mask_of_any_mode_is_read_by_its_grey_value(tmp_path, mode):
    hole = np.zeros((8, 8), np.uint8)
    hole[2:4, 3:7] = 255
    mask = Pillow.fromarray(hole).convert("RGB").convert(mode)
    mask.save(tmp_path / "m.tif")
    assert (files.read_mask(tmp_path / "m.tif") == (hole > 0)).all()


def test_a_mask_with_transparent_pixels_is_refused_with_the_cure(tmp_path):
    mask = Pillow.new("RGBA", (4, 4), (0, 0, 0, 255))
    mask.putpixel((1, 1), (0, 0, 0, 0))
    mask.save(tmp_path / "m.png")
    with pytest.raises(InputError, match=r"transparent pixels.*paint the hole white"):
        files.read_mask(tmp_path / "m.png")


def test_a_mask_of_another_size_names_both_files(tmp_path):
    Pillow.fromarray(RGB).save(tmp_path / "a.png")
    Pillow.new("L", (20, 10)).save(tmp_path / "m.png")
    says = r"height and width of img, \(20, 30\) of .*a\.png, got \(10, 20\) of .*m\.png"
    with pytest.raises(InputError, match=says) as caught:
        files.read_pair(tmp_path / "a.png", tmp_path / "m.png")
    assert "EXIF" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_mask_of_a_turned_photograph_as_it_lies_in_its_file_gets_a_hint(tmp_path, suffix):
    exif = Pillow.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{suffix}"
    Pillow.fromarray(RGB).save(path, exif=exif)
    Pillow.new("L", (20, 30), 255).save(tmp_path / "upright.png")
    Pillow.new("L", (30, 20), 255).save(tmp_path / "lying.png")
    assert files.read_pair(path, tmp_path / "upright.png")[1].shape == (30, 20)
    with pytest.raises(InputError, match=r"a\.\w+ is turned by its EXIF entry: draw the mask on"):
        files.read_pair(path, tmp_path / "lying.png")


# Alpha

ALPHA = RNG.integers(0, 256, (20, 30), np.uint8)
HOLE = np.zeros((20, 30), bool)
HOLE[4:9, 6:20] = True


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_png_and_webp_keep_alpha_and_what_it_hides(tmp_path, suffix):
    alpha = np.where(HOLE, np.uint8(0), ALPHA)
    path = tmp_path / f"a.{suffix}"
    files.write_picture(path, Photograph(RGB, None, None, alpha))
    found = files.read_photograph(path)
    assert (found.pixels == RGB).all()
    assert (found.alpha == alpha).all()


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_the_alpha_of_a_file_is_read(tmp_path, suffix, mode):
    picture = Pillow.fromarray(RGB).convert(mode)
    picture.putalpha(Pillow.fromarray(ALPHA))
    picture.save(tmp_path / f"a.{suffix}")
    found = files.read_photograph(tmp_path / f"a.{suffix}")
    assert (found.alpha == ALPHA).all()
    assert (
        found.pixels == np.asarray(Pillow.fromarray(RGB).convert(mode[:-1]).convert("RGB"))
    ).all()


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "bytes"])
def test_one_transparent_colour_or_a_palettes_alpha_is_read(tmp_path, mode):
    dark = np.pad(np.full((20, 10), 255, np.uint8), ((0, 0), (10, 10)))
    picture = Pillow.fromarray(dark).convert("P" if mode == "bytes" else mode)
    of_one = {"RGB": (0, 0, 0), "bytes": bytes([7, *[255] * 255])}.get(mode, 0)
    picture.save(tmp_path / "a.png", transparency=of_one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = files.read_photograph(tmp_path / "a.png")
    assert (found.pixels == dark[..., None]).all()
    assert (found.alpha == np.where(dark, 255, 7 if mode == "bytes" else 0)).all()


def test_alpha_that_is_opaque_everywhere_is_none(tmp_path):
    Pillow.fromarray(RGB).convert("RGBA").save(tmp_path / "a.png")
    assert files.read_photograph(tmp_path / "a.png").alpha is None


def test_the_hole_becomes_opaque_and_the_rest_stays_as_it_is():
    shown = Photograph(RGB, None, None, ALPHA).opaque_in(HOLE)
    assert (shown.alpha[HOLE] == 255).all()
    assert (shown.alpha[~HOLE] == ALPHA[~HOLE]).all()
    erased = np.where(HOLE, np.uint8(0), np.uint8(255))
    assert Photograph(RGB, None, None, erased).opaque_in(HOLE).alpha is None
    assert Photograph(RGB, None, None).opaque_in(HOLE).alpha is None


def test_on_white_is_what_a_viewer_shows():
    found = Photograph(RGB, None, None, ALPHA).on_white().astype(int)
    over = Pillow.new("RGBA", (30, 20), "white")
    over.alpha_composite(
        Pillow.merge("RGBA", [*Pillow.fromarray(RGB).split(), Pillow.fromarray(ALPHA)])
    )
    assert np.abs(found - np.asarray(over)[..., :3]).max() <= 1
    assert (found[ALPHA == 255] == RGB[ALPHA == 255]).all()
    assert (found[ALPHA == 0] == 255).all()


# Writing


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_png_and_webp_keep_every_pixel_the_exif_entries_and_the_profile(tmp_path, suffix):
    exif = Pillow.Exif()
    exif[0x013B] = "Artist"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photograph = Photograph(RGB, exif.tobytes(), profile)
    files.write_picture(tmp_path / f"a.{suffix}", photograph)
    found = files.read_photograph(tmp_path / f"a.{suffix}")
    assert (found.pixels == RGB).all()
    assert found.icc_profile == profile
    kept = Pillow.Exif()
    kept.load(found.exif)
    assert kept[0x013B] == "Artist"


def test_jpg_keeps_the_entries_and_nearly_the_pixels(tmp_path):
    smooth = np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None].repeat(64, 1).repeat(3, 2)
    exif = Pillow.Exif()
    exif[0x013B] = "Artist"
    files.write_picture(tmp_path / "a.jpg", Photograph(smooth, exif.tobytes(), b"profile"))
    found = files.read_photograph(tmp_path / "a.jpg")
    assert np.abs(found.pixels.astype(int) - smooth).max() <= 3
    assert found.icc_profile == b"profile"
    assert b"Artist" in found.exif


def test_the_thumbnail_that_shows_what_the_hole_hides_is_not_kept(tmp_path):
    exif = Pillow.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    thumbnail = io.BytesIO()
    Pillow.fromarray(RGB).save(thumbnail, "JPEG")
    # IFD1 by hand: Pillow writes none. Little-endian TIFF with IFD0 -> IFD1 -> thumbnail
    jpeg = thumbnail.getvalue()
    ifd0 = struct.pack("<H", 1) + struct.pack("<HHI4s", 0x010F, 2, 4, b"Abc\0")
    second = 8 + len(ifd0) + 4
    ifd1 = struct.pack("<H", 2)
    start = second + 2 + 2 * 12 + 4
    ifd1 += struct.pack("<HHII", 0x0201, 4, 1, start) + struct.pack(
        "<HHII", 0x0202, 4, 1, len(jpeg)
    )
    tiff = b"II*\0" + struct.pack("<I", 8) + ifd0 + struct.pack("<I", second) + ifd1
    tiff += struct.pack("<I", 0) + jpeg
    Pillow.fromarray(RGB).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + tiff)
    assert jpeg in (tmp_path / "a.jpg").read_bytes()
    found = files.read_photograph(tmp_path / "a.jpg")
    assert b"Abc" in found.exif
    assert jpeg not in found.exif
    assert b"\xff\xd8\xff" not in found.exif


def test_a_format_that_cannot_hold_the_picture_says_so(tmp_path):
    wide = np.zeros((1, 16_384, 3), np.uint8)
    with pytest.raises(InputError, match=r"at most 16383 pixels, got \(1, 16384\).*choose png"):
        files.write_picture(tmp_path / "a.webp", Photograph(wide, None, None))
    wide = np.zeros((1, 65_501, 3), np.uint8)
    with pytest.raises(InputError, match=r"a jpg must have sides of at most 65500 .*choose png"):
        files.write_picture(tmp_path / "a.jpg", Photograph(wide, None, None))
    with pytest.raises(InputError, match=r"a\.jpg cannot be written.*choose png"):
        files.write_picture(tmp_path / "a.jpg", Photograph(RGB, b"Exif\0\0" + bytes(70_000), None))
    with pytest.raises(InputError, match=r"jpg holds no alpha.*a\.jpg.*choose png or webp"):
        files.write_picture(tmp_path / "a.jpg", Photograph(RGB, None, None, ALPHA))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_the_resolution_of_a_file_is_kept(tmp_path, form):
    Pillow.new("RGB", (4, 4)).save(tmp_path / f"a.{form}", dpi=(300, 300))
    files.write_picture(tmp_path / f"b.{form}", files.read_photograph(tmp_path / f"a.{form}"))
    with Pillow.open(tmp_path / f"b.{form}") as opened:
        assert opened.info["dpi"] == pytest.approx((300, 300), abs=0.01)


def test_the_gamma_of_a_png_is_kept_unless_it_says_that_it_is_srgb(tmp_path):
    for name, extra in ("linear", None), ("srgb", (b"sRGB", b"\0")):
        chunks = PngImagePlugin.PngInfo()
        if extra is not None:
            chunks.add(*extra)
        chunks.add(b"gAMA", (100_000).to_bytes(4, "big"))
        Pillow.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=chunks)
        files.write_picture(tmp_path / "b.png", files.read_photograph(tmp_path / "a.png"))
        with Pillow.open(tmp_path / "b.png") as opened:
            assert opened.info.get("gamma") == (1.0 if name == "linear" else None)

"""Pictures and masks as users have them become arrays that can be trusted, or one clear error."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageOps
from PIL.ExifTags import Base

from picme_rt import files, images
from picme_rt.errors import InputError

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_a_picture_that_is_right_is_not_copied():
    assert np.shares_memory(images.read_image(RGB), RGB)


def test_a_picture_is_contiguous_whatever_came_in():
    for view in (RGB[:, ::-1], RGB[::2], np.asfortranarray(RGB), RGB[..., ::-1]):
        found = images.read_image(view)
        assert found.flags.c_contiguous
        assert (found == view).all()


def test_nested_lists_of_uint8_are_named_as_another_dtype():
    with pytest.raises(InputError, match=r"uint8 in 0\.\.255, got int64"):
        images.read_image(RGB.tolist())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr"])
def test_a_pil_image_becomes_rgb(mode):
    pil = Pillow.fromarray(RGB).convert(mode)
    assert (images.read_image(pil) == np.asarray(pil.convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "RGB", "P", "bytes"])
def test_a_pil_image_with_transparent_pixels_is_refused_with_a_cure_that_cures(mode):
    pil = Pillow.fromarray(np.zeros((4, 5), np.uint8)).convert("P" if mode == "bytes" else mode)
    if mode in ("RGBA", "LA"):
        pil.putpixel((1, 1), (*pil.getpixel((0, 0))[:-1], 254))
    else:
        pil.info["transparency"] = {"RGB": (0, 0, 0), "bytes": b"\0"}.get(mode, 0)
    with pytest.raises(InputError, match="img must be opaque, got transparent pixels") as caught:
        images.read_image(pil)
    cured = eval(str(caught.value).rpartition("drop its alpha with ")[2], {"img": pil})
    assert not images.read_image(cured).any()


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_a_pil_image_of_more_than_8_bits_is_refused(mode):
    with pytest.raises(InputError, match=f"8 bits a channel, got a PIL image of mode {mode}"):
        images.read_image(Pillow.new(mode, (5, 4)))


def test_a_file_of_16_bits_that_pil_would_cut_to_8_is_refused(tmp_path):
    path = tmp_path / "deep.ppm"
    path.write_bytes(b"P6 5 4 65535\n" + RGB.astype(">u2").tobytes())
    with Pillow.open(path) as opened:
        assert opened.mode == "RGB"
        with pytest.raises(InputError, match=r"mode RGB with more; PIL drops .*: img\.convert"):
            images.read_image(opened)
        assert not images.read_image(opened.convert("RGB")).any()  # values to 59 of 65535
    path.write_bytes(b"P6 5 4 255\n" + RGB.tobytes())
    with Pillow.open(path) as opened:
        assert (images.read_image(opened) == RGB).all()
        assert (images.read_image(opened) == RGB).all()  # loaded by now


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool, np.int8, np.uint16, np.int64])
def test_a_picture_of_another_dtype_is_refused_with_the_cure(dtype):
    with pytest.raises(InputError, match=f"got {np.dtype(dtype)}; convert it"):
        images.read_image(RGB.astype(dtype))


@pytest.mark.parametrize(
    ("given", "which", "expected"),
    [
        (RGB.astype(np.uint16), 0, RGB),
        (RGB.astype(np.uint16) * 257, 1, RGB),
        (RGB.tolist(), 0, RGB),
        (RGB / 255, 0, RGB),
        (RGB > 3, 0, np.where(RGB > 3, np.uint8(255), np.uint8(0))),
    ],
    ids=["levels", "16 bits", "a list", "floats", "bool"],
)
def test_the_cures_for_another_dtype_cure(given, which, expected):
    with pytest.raises(InputError, match="convert it, for instance with") as caught:
        images.read_image(given)
    cure = str(caught.value).partition("for instance with ")[2].split(", ")[which]
    cured = eval(cure.partition(" for ")[0], {"np": np, "img": given})
    assert (images.read_image(cured) == expected).all()


@pytest.mark.parametrize(
    "shape", [(4, 5), (4, 5, 1), (4, 5, 4), (3, 4, 5), (1, 4, 5, 3), (0, 5, 3), (4, 0, 3), (3,), ()]
)
def test_a_picture_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"\(H, W, 3\) RGB, got shape"):
        images.read_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("value", [None, object(), [[1, 2], [3]], {"a": 1}, lambda: 0])
def test_what_is_no_array_is_refused(value):
    with pytest.raises(InputError, match="img must be an array or a PIL image"):
        images.read_image(value)
    with pytest.raises(InputError, match="mask must be an array or a PIL image"):
        images.read_mask(value, (4, 5))


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int8, np.uint64, np.int32, np.float16, np.float32, np.float64]
)
def test_a_mask_of_any_number_is_hole_where_it_is_not_zero(dtype):
    hole = np.eye(4, 5, dtype=bool)
    values = hole.astype(dtype)
    for mask in (values, values[..., None], np.asfortranarray(values)):
        found = images.read_mask(mask, (4, 5))
        assert found.dtype == bool
        assert (found == hole).all()


def test_any_value_but_zero_is_hole():
    mask = np.array([[0, -1, 0.25, 255, -0.0]])
    assert images.read_mask(mask, (1, 5)).tolist() == [[False, True, True, True, False]]


def test_a_hole_is_never_a_view_of_the_mask():
    mask = np.zeros((4, 5), bool)
    hole = images.read_mask(mask, (4, 5))
    mask[:] = True
    assert not hole.any()


@pytest.mark.parametrize("mode", ["1", "L", "I", "F", "I;16"])
def test_a_pil_mask_of_one_channel_is_read(mode):
    pil = Pillow.new(mode, (5, 4))
    pil.putpixel((2, 1), 1)
    hole = images.read_mask(pil, (4, 5))
    assert np.argwhere(hole).tolist() == [[1, 2]]


def test_a_pil_mask_of_greys_is_the_hole_that_its_file_is(tmp_path):
    """Antialiased, or a JPEG once; an array of the same values is hole where it is not zero."""
    grey = np.array([[0, 1, 127, 128, 255]], np.uint8)
    pil = Pillow.fromarray(grey)
    pil.save(tmp_path / "m.png")
    assert images.read_mask(pil, (1, 5)).tolist() == [[False, False, False, True, True]]
    assert (images.read_mask(pil, (1, 5)) == files.read_mask(tmp_path / "m.png")).all()
    assert images.read_mask(grey, (1, 5)).tolist() == [[False, True, True, True, True]]
    labels = Pillow.fromarray(np.array([[0, 1, 2]], np.uint8))
    assert images.read_mask(labels, (1, 3)).tolist() == [[False, True, True]]


@pytest.mark.parametrize("orientation", [0, 1, 2, 6, 8, 9])
def test_a_pil_image_that_its_exif_entry_turns_is_refused_with_the_cure(orientation, tmp_path):
    exif = Pillow.Exif()
    exif[Base.Orientation] = orientation
    grey = Pillow.fromarray(RGB[..., 0])
    for name, pil in ("img", Pillow.fromarray(RGB)), ("mask", grey):
        pil.save(tmp_path / f"{name}.png", exif=exif)
    with Pillow.open(tmp_path / "img.png") as img, Pillow.open(tmp_path / "mask.png") as mask:
        if orientation not in range(2, 9):
            assert (images.read_image(img) == RGB).all()
            assert (images.read_mask(mask, (4, 5)) == (RGB[..., 0] > 0)).all()
            return
        for name, read in (
            ("img", lambda: images.read_image(img)),
            ("mask", lambda: images.read_mask(mask, (4, 5))),
        ):
            with pytest.raises(InputError, match=rf"orientation {orientation}; .*\({name}\)"):
                read()
        upright = ImageOps.exif_transpose(img)
        assert (images.read_image(upright) == np.asarray(upright)).all()


def test_an_error_without_a_text_is_named():
    class Torn:
        def __array__(self, *_, **__):
            raise AssertionError

    with pytest.raises(InputError, match=r"got Torn: AssertionError\(\); threads that share"):
        images.read_image(Torn())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK", "P"])
def test_a_pil_mask_of_several_channels_or_a_palette_is_refused(mode):
    with pytest.raises(InputError, match=f"one channel of values, got a PIL image of mode {mode}"):
        images.read_mask(Pillow.new(mode, (5, 4)), (4, 5))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("erased", [True, False])  # the hole; or all but the hole, which is painted
def test_the_cure_for_a_pil_mask_with_transparent_pixels_cures(mode, erased):
    hole = np.eye(4, 5, dtype=bool)
    alpha = np.where(hole == erased, np.uint8(0), np.uint8(255))
    mask = Pillow.fromarray(alpha)
    if mode == "P":
        mask = mask.convert("P")
        mask.info["transparency"] = 0
    else:
        mask = Pillow.new(mode, (5, 4))
        mask.putalpha(Pillow.fromarray(alpha))
    with pytest.raises(InputError, match="paint the hole white, everything else black") as caught:
        images.read_mask(mask, (4, 5))
    take, cures = str(caught.value).rpartition("its alpha, a = ")[2].split(": ")
    cure = re.match(r"(.*) if the hole is transparent, (.*) if it is painted", cures)
    cured = eval(cure[1 if erased else 2], {"a": eval(take, {"np": np, "mask": mask})})
    assert (images.read_mask(cured, (4, 5)) == hole).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_the_cure_for_an_opaque_pil_mask_is_what_the_command_line_does(mode):
    hole = np.eye(4, 5, dtype=bool)
    mask = Pillow.fromarray(np.where(hole, np.uint8(255), np.uint8(3))).convert("RGB").convert(mode)
    with pytest.raises(InputError, match=r"mask must have one channel") as caught:
        images.read_mask(mask, (4, 5))
    cured = eval(str(caught.value).rpartition("convert it with ")[2], {"np": np, "mask": mask})
    assert (images.read_mask(cured, (4, 5)) == hole).all()


@pytest.mark.parametrize("shape", [(5, 4), (4, 5, 3), (1, 4, 5), (4,), (), (0, 0)])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"height and width of img, \(4, 5\), got shape"):
        images.read_mask(np.zeros(shape), (4, 5))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_mask_with_nan_or_infinity_is_refused(value):
    mask = np.zeros((4, 5))
    mask[3, 4] = value
    with pytest.raises(InputError, match="finite"):
        images.read_mask(mask, (4, 5))


@pytest.mark.parametrize("dtype", [complex, "U1", "S1", "datetime64[s]"])
def test_a_mask_without_a_zero_is_refused(dtype):
    with pytest.raises(InputError, match="bool, integers or floats"):
        images.read_mask(np.zeros((4, 5), dtype), (4, 5))


def test_a_name_of_a_file_is_no_picture():
    for name in ("cat.png", b"cat.png", Path("cat.png")):
        with pytest.raises(InputError, match=r"open a file first, for instance with PIL"):
            images.read_image(name)


@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "PNG"), ("L", "PNG"), ("CMYK", "JPEG")])
def test_a_pil_image_whose_file_is_cut_short_is_refused(mode, suffix):
    stream = io.BytesIO()
    Pillow.fromarray(RGB.repeat(40, 0).repeat(40, 1)).convert(mode).save(stream, suffix)
    content = stream.getvalue()[: len(stream.getvalue()) * 2 // 3]
    with pytest.raises(InputError, match=r"img .*truncated"):
        images.read_image(Pillow.open(io.BytesIO(content)))
    if mode == "L":
        with pytest.raises(InputError, match=r"mask .*truncated"):
            images.read_mask(Pillow.open(io.BytesIO(content)), (160, 200))


def test_a_side_beyond_jpegs_limit_is_refused_before_any_table_is_made():
    longest = np.zeros((1, images.MAX_SIDE + 1, 3), np.uint8)
    with pytest.raises(InputError, match="sides of at most 65535 pixels"):
        images.read_image(longest)
    assert images.read_image(longest[:, 1:]).shape == (1, images.MAX_SIDE, 3)


@given(st.integers(0, 255))
def test_levels_come_back_from_the_networks_range(level):
    value = images.to_network(np.float32(level))
    assert -1 <= value <= 1
    assert abs(images.to_levels(value) - level) < 1e-4


def test_black_is_minus_one_and_white_is_one():
    assert images.to_network(np.float32([0, 127.5, 255])).tolist() == [-1, 0, 1]

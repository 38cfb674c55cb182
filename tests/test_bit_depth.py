"""Files of more than 8 bits a channel are refused, also where Pillow takes them for others."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from written_by_hand import png

from picme_rt import bit_depth, files, images
from picme_rt.errors import InputError

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def sgi(*, packed):
    """Two bytes a channel; packed, only its header is right."""
    header = bytes([1, 0xDA, packed, 2]) + np.array([3, 4, 4, 3], ">u2").tobytes()
    return header.ljust(2048, b"\0")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_is_refused_with_the_cure(tmp_path, colour, channels):
    path = tmp_path / "deep.png"
    path.write_bytes(png(3, 2, 16, colour, channels, np.arange(6 * channels) * 1000))
    with pytest.raises(InputError, match=r"8 bits a channel, got more .*-depth 8"):
        files.read_picture(path)
    with pytest.raises(InputError, match="8 bits a channel"):
        files.read_mask(path)


def planes(bits, order):
    """A TIFF of 4 x 2 with three planes that are not compressed, as Pillow writes none."""
    pixels = np.arange(24, dtype=f"{order}u{bits // 8}").reshape(3, 2, 4)
    plane = pixels[0].nbytes
    entries = [  # tag, type (3: 2 bytes, 4: 4 bytes), values
        *((256, 3, [4]), (257, 3, [2]), (258, 3, [bits] * 3), (259, 3, [1]), (262, 3, [2])),
        *((273, 4, [8 + i * plane for i in range(3)]), (277, 3, [3]), (278, 3, [2])),
        *((279, 4, [plane] * 3), (284, 3, [2])),
    ]
    place = 8 + pixels.nbytes
    more = place + 2 + 12 * len(entries) + 4
    table, data = struct.pack(f"{order}H", len(entries)), b""
    for tag, kind, values in entries:
        value = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(value) > 4:
            value, data = struct.pack(f"{order}I", more + len(data)), data + value
        table += struct.pack(f"{order}HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
    return pixels, head + pixels.tobytes() + table + bytes(4) + data


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_16_bit_planes_is_refused_though_pillow_takes_it_for_one_of_8(tmp_path, order):
    path = tmp_path / "a.tif"
    pixels, written = planes(8, order)
    path.write_bytes(written)
    assert (files.read_picture(path) == pixels.transpose(1, 2, 0)).all()
    path.write_bytes(planes(16, order)[1])
    with Pillow.open(path) as opened:
        assert opened.mode == "RGB"
        with pytest.raises(InputError, match="img"):
            images.read_image(opened)
    with pytest.raises(InputError, match="8 bits a channel"):
        files.read_picture(path)


def test_boxes_before_the_codestream_of_a_jpeg_2000_hide_no_bits(tmp_path):
    path = tmp_path / "a.jp2"
    Pillow.new("RGB", (8, 8)).save(path)
    written = bytearray(path.read_bytes())
    place = written.index(b"jp2c") - 4
    boxes = struct.pack(">I4s", 100_008, b"uuid") + bytes(100_000)
    boxes += struct.pack(">I4sQ", 1, b"uuid", 100_016) + bytes(100_000)
    for bits, deep in ((7, False), (15, True)):  # less 1
        written[written.index(b"\xff\x4f\xff\x51") + 42] = bits
        path.write_bytes(written[:place] + boxes + written[place:])
        with Pillow.open(path) as opened:
            assert bit_depth.is_deep(opened) == deep
    box = struct.pack(">I4s", 3, b"uuid")  # no length: the boxes end there
    path.write_bytes(written[:place] + box + written[place:])
    with Pillow.open(path) as opened:
        assert not bit_depth.is_deep(opened)


def test_an_avif_of_10_bits_is_refused(tmp_path):
    path = tmp_path / "a.avif"
    Pillow.fromarray(RGB).save(path)
    assert files.read_picture(path).shape == RGB.shape
    assert cv2.imwrite(str(path), RGB.astype(np.uint16) * 4, [cv2.IMWRITE_AVIF_DEPTH, 10])
    with pytest.raises(InputError, match="8 bits a channel"):
        files.read_picture(path)


def test_a_bmp_of_16_bits_a_pixel_is_no_picture_of_16_bits_a_channel(tmp_path):
    """5, 6 and 5 bits."""
    size = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    size += struct.pack("<III", 0xF800, 0x07E0, 0x001F) + struct.pack("<HH", 0xF800, 0x001F)
    path = tmp_path / "a.bmp"
    path.write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(size), 0, 0, 66) + size)
    assert files.read_picture(path).tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_other_files_of_16_bits_are_refused(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 2 1 65535\n" + bytes(12))
    (tmp_path / "b.pgm").write_bytes(b"P5 2 1 65535\n" + bytes(4))
    Pillow.new("I;16", (4, 4)).save(tmp_path / "c.tif")
    Pillow.new("F", (4, 4)).save(tmp_path / "d.tif")
    (tmp_path / "e.rgb").write_bytes(sgi(packed=False))
    with Pillow.open(io.BytesIO(sgi(packed=True))) as opened:
        assert bit_depth.is_deep(opened)
    for suffix in ("j2k", "jp2"):
        path = tmp_path / f"f.{suffix}"
        Pillow.new("RGB", (8, 8)).save(path)
        files.read_picture(path)
        written = bytearray(path.read_bytes())
        written[written.index(b"\xff\x4f\xff\x51") + 42] = 15  # bits of the first channel, less 1
        path.write_bytes(written)
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match="8 bits a channel"):
            files.read_picture(path)
    (tmp_path / "e.ppm").write_bytes(b"P6 2 1 100\n" + bytes(6))
    assert files.read_picture(tmp_path / "e.ppm").shape == (1, 2, 3)

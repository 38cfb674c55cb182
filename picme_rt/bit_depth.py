"""Whether a picture has over 8 bits a channel, also where Pillow is about to drop some unasked.

Pillow's mode says so of grey values alone; of most files with several channels it gives 8 bits and
tells nobody. So the file is asked, each format in its own way, while it is not loaded yet. Pillow
itself need not be imported.
"""

from typing import Any, BinaryIO

_BITS_PER_SAMPLE = 258  # TIFF's tag
_HEAD_BYTES = 1 << 20  # of an AVIF file: what describes its pictures comes first
_CODESTREAM = b"\xff\x4f\xff\x51"  # how one of JPEG 2000 begins


def is_deep(img: Any) -> bool:
    """Whether it has over 8 bits a channel.

    Args:
        img: A PIL image, best one of a file that is not loaded yet; of another its mode and, of a
            TIFF, its entries are all that is known.
    """
    if img.mode.startswith(("I", "F")):
        return True
    # Pillow takes planes of 16 bits that are not compressed for planes of 8
    if any(bits > 8 for bits in getattr(img, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())):
        return True
    if getattr(img, "format", None) == "AVIF" and _is_deep_avif(img):
        return True
    tiles = getattr(img, "tile", ())  # of a file that is not loaded yet: how it will be decoded
    return any(_drops_half(img, tile[0], tile[3]) for tile in tiles)


def _drops_half(img: Any, codec: str, arguments: object) -> bool:
    mode, *rest = arguments if isinstance(arguments, tuple) else (arguments,)
    if codec == "jpeg2k":
        return _bits_of_jpeg2000(img.fp) > 8
    if codec in ("SGI16", "sgi_rle"):
        return codec == "SGI16" or rest[-1] > 1
    if mode == "BGR;16":  # 5, 6 and 5 bits
        return False
    return ";16" in str(mode) or (codec.startswith("ppm") and rest[-1] > 255)


def _bits_of_jpeg2000(file: BinaryIO) -> int:
    """The most bits of its channels; 8 where there is no codestream, which Pillow then refuses."""
    place = file.tell()
    # the size segment of the codestream (ISO 15444-1, A.5.1) ends with 3 bytes for each channel
    file.seek(_codestream(file) + 40)
    channels = int.from_bytes(file.read(2), "big")
    bits = file.read(3 * channels)[::3]
    file.seek(place)
    return 1 + max((one & 0x7F for one in bits), default=7)


def _codestream(file: BinaryIO) -> int:
    """Where that of a JPEG 2000 file begins; the file's end where there is none.

    Profiles and other boxes, of any length, come before it (ISO 15444-1, I.4).
    """
    begin, end = 0, file.seek(0, 2)
    file.seek(0)
    if file.read(4) == _CODESTREAM:
        return 0
    while begin < end:
        file.seek(begin)
        length, kind, head = int.from_bytes(file.read(4), "big"), file.read(4), 8
        if length == 1:  # it is too long for 4 bytes
            length, head = int.from_bytes(file.read(8), "big"), 16
        if kind == b"jp2c":
            return begin + head
        if length < head:  # 0 is to the end; all else is no length
            break
        begin += length
    return end


def _is_deep_avif(img: Any) -> bool:
    """Whether a picture of the file has 10 or 12 bits."""
    file = getattr(img, "fp", None)
    if file is None:  # it was loaded before
        return False
    place = file.tell()
    file.seek(0)
    _, *configured = file.read(_HEAD_BYTES).split(b"av1C")
    file.seek(place)
    # AV1 in ISOBMFF, 2.3.3: the third byte has high_bitdepth after seq_tier_0
    return any(len(box) > 2 and box[2] & 0x40 for box in configured)

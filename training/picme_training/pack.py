"""A folder of pictures as one small file: squares of one side, encoded, in one safetensors file.

bytes                       (M,) uint8, the encoded pictures one after another
ends                        (N,) int64, where each of them ends in `bytes`
metadata `picme_pack`       JSON: format, side, codec, quality, PSNR, names, skipped, source
sha256                      (32,) uint8, of that JSON, `ends` and `bytes`
"""

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from picme_rt import atomic
from picme_rt.errors import InputError
from picme_rt.images import Image
from picme_training import pictures
from picme_training.pictures import Skipped, Square

FORMAT = 1
SIDES = range(8, 1025)
_WANTED = "name a folder of pictures, or a file of picme pack"


class Packed(NamedTuple):
    """What `write` made.

    Attributes:
        names: Of the pictures in the pack.
        skipped: Every file that was left out.
        size: Of the pack, in bytes.
        psnr: Mean and least of the pictures' PSNR in dB, against the squares before encoding.
        transparent: Names of packed pictures that have transparent pixels.
    """

    names: list[str]
    skipped: list[Skipped]
    size: int
    psnr: tuple[float, float]
    transparent: list[str]


def write(folder: Path, out: Path, *, side: int, quality: int, keep_grey: bool = False) -> Packed:
    """Packs every usable picture of a folder, in the order of names; replaces `out`.

    Args:
        folder: Read as `pictures.read_folder` reads it.
        out: The pack; appears whole or not at all.
        side: Of the packed squares; pictures whose shorter side is less are left out.
        quality: Of WebP, 1 to 100.
        keep_grey: Whether pictures without colour are packed.

    Raises:
        InputError: An argument is out of its range, or no picture can be used.
    """
    if side not in SIDES:
        raise InputError(f"size must be {SIDES[0]} to {SIDES[-1]} pixels, got {side}")
    if not 1 <= quality <= 100:
        raise InputError(f"quality must be 1 to 100, got {quality}")

    def encode(path: Path) -> Skipped | _Encoded:
        found = pictures.square(path, side, smallest=side, keep_grey=keep_grey)
        return found if isinstance(found, Skipped) else _encode(path.name, found, quality)

    results = pictures.in_threads(encode, pictures.listed(folder), "packing pictures")
    packed = [found for found in results if not isinstance(found, Skipped)]
    skipped = [found for found in results if isinstance(found, Skipped)]
    if not packed:
        raise pictures.nothing_left(folder, skipped)
    names, psnr = [one.name for one in packed], [one.psnr for one in packed]
    measured = float(np.mean(psnr)), min(psnr)
    about = {
        "format": FORMAT,
        "side": side,
        "codec": "webp",
        "quality": quality,
        "psnr": [round(value, 2) for value in measured],
        "names": names,
        "skipped": {name: len(found) for name, found in pictures.as_table(skipped).items()},
        "source": folder.resolve().name,
    }
    with atomic.file(out) as fresh:
        fresh.write_bytes(_contents(json.dumps(about), [one.content for one in packed]))
    transparent = [one.name for one in packed if one.transparent]
    return Packed(names, skipped, out.stat().st_size, measured, transparent)


class _Encoded(NamedTuple):
    name: str
    content: bytes
    psnr: float
    transparent: bool


def _encode(name: str, found: Square, quality: int) -> _Encoded:
    held, picture = io.BytesIO(), found.pixels
    Pillow.fromarray(picture).save(held, "WEBP", quality=quality, method=4)
    decoded = _decode(held.getvalue(), len(picture))
    lost = float(np.square(picture.astype(np.float64) - decoded).mean())
    # at most 99 dB, so that a picture that lost nothing leaves the mean finite
    psnr = min(99.0, 10 * math.log10(255**2 / lost)) if lost else 99.0
    return _Encoded(name, held.getvalue(), psnr, found.transparent)


def _contents(about: str, encoded: list[bytes]) -> bytes:
    data = np.frombuffer(b"".join(encoded), np.uint8)
    ends = np.cumsum([len(one) for one in encoded], dtype=np.int64)
    # of several metadata entries safetensors mixes the order: one leaves the file the same
    tensors: dict[str, NDArray[Any]] = {
        "bytes": data,
        "ends": ends,
        "sha256": _digest(about, ends, data),
    }
    return save(tensors, {"picme_pack": about})


def read(path: Path, side: int, *, smallest: int) -> tuple[NDArray[np.uint8], list[str]]:
    """The pictures of a pack, (N, 3, side, side), and their names.

    Raises:
        InputError: The file is damaged, newer or no pack, its pictures are smaller than
            `smallest`, or there is too little memory.
    """
    try:
        about, ends, data = _open(path)
    except SafetensorError as exc:  # of a picture, say, given in place of its folder
        raise InputError(f"{path} is no pack that can be read: {exc}; {_WANTED}") from exc
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise InputError(f"{path} is no pack that can be read: {str(exc) or repr(exc)}") from exc
    if about["side"] < smallest:
        raise InputError(
            f"{path} holds pictures of {about['side']} pixels, the network's have {smallest}; "
            f"pack them again with --size {side}"
        )
    pixels = pictures.empty(len(ends), side)
    starts = np.concatenate([[0], ends[:-1]])

    def place(row: int) -> None:
        try:
            picture = _decode(data[starts[row] : ends[row]].tobytes(), about["side"])
        except (OSError, ValueError) as exc:
            name = about["names"][row]
            raise InputError(f"{path} is damaged: {name} in it cannot be read: {exc}") from exc
        pixels[row] = pictures.resized(picture, side).transpose(2, 0, 1)

    pictures.in_threads(place, range(len(ends)), "reading pictures")
    return pixels, about["names"]


def _open(path: Path) -> tuple[dict[str, Any], NDArray[np.int64], NDArray[np.uint8]]:
    """What a pack says, its ends and its bytes, all checked; ValueError and others if not."""
    with safe_open(path, framework="numpy") as file:  # checks its header against its size
        metadata = file.metadata() or {}
        if "picme_pack" not in metadata:
            raise ValueError(f"picme pack did not write it; {_WANTED}")
        about = json.loads(metadata["picme_pack"])
        if about["format"] != FORMAT:
            raise ValueError(
                f"its format is {about['format']}, this version reads {FORMAT}; update picme_rt, "
                "or pack the folder again"
            )
        if type(about["side"]) is not int or about["side"] not in SIDES:
            raise ValueError(f"its side is {about['side']}")
        if about["codec"] != "webp":
            raise ValueError(f"its codec is {about['codec']}")
        for name, kind in (("bytes", "U8"), ("ends", "I64"), ("sha256", "U8")):
            found = file.get_slice(name)
            if found.get_dtype() != kind or len(found.get_shape()) != 1:
                raise ValueError(f"its {name} are {found.get_dtype()} {found.get_shape()}")
        data, ends, digest = (file.get_tensor(name) for name in ("bytes", "ends", "sha256"))
    if _digest(metadata["picme_pack"], ends, data).tobytes() != digest.tobytes():
        raise ValueError("its sha256 is another one")
    names = about["names"]
    if len(names) != len(ends) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"it has {len(names)} names and {len(ends)} pictures")
    ordered = len(ends) > 0 and ends[0] > 0 and (ends[1:] > ends[:-1]).all()
    if not ordered or ends[-1] != len(data):
        raise ValueError("its ends do not follow one another")
    return about, ends, data


def _decode(encoded: bytes, side: int) -> Image:
    with Pillow.open(io.BytesIO(encoded), formats=["WEBP"]) as opened:
        if opened.size != (side, side):  # before its pixels take memory
            raise ValueError(f"it has {opened.size} pixels, not {side}x{side}")
        return np.asarray(opened.convert("RGB"))


def _digest(about: str, ends: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    digest = hashlib.sha256(about.encode())
    digest.update(ends.astype("<i8").tobytes())
    digest.update(data.data)
    return np.frombuffer(digest.digest(), np.uint8)

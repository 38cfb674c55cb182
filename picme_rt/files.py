"""Pictures on disk: read and written with Pillow."""

from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from picme_rt import atomic
from picme_rt.errors import InputError
from picme_rt.images import Hole, Image, read_image

MASK_THRESHOLD = 127
"""A grey value of a mask file over this is hole: files are often antialiased or JPEG."""


def _open(path: Path) -> Pillow.Image:
    try:
        with Pillow.open(path) as opened:
            return ImageOps.exif_transpose(opened)
    except FileNotFoundError as exc:
        raise InputError(f"there is no picture {path}") from exc
    except (UnidentifiedImageError, OSError, SyntaxError) as exc:
        raise InputError(f"{path} is no picture that can be read: {exc}") from exc
    except Pillow.DecompressionBombError as exc:
        raise InputError(f"{path} is too large: {exc}") from exc


def read_picture(path: Path) -> Image:
    """A picture file as (H, W, 3) uint8 RGB, turned upright as its EXIF entry says.

    Raises:
        InputError: The file is missing, damaged or has more than 8 bits a channel.
    """
    return read_image(_open(path))


def read_mask(path: Path) -> Hole:
    """A mask file as (H, W) bool: True, the hole, where its grey value is over `MASK_THRESHOLD`.

    Raises:
        InputError: The file is missing or damaged.
    """
    return np.asarray(_open(path).convert("L")) > MASK_THRESHOLD


def write_picture(path: Path, pixels: Image) -> None:
    """Writes (H, W, 3) uint8 as PNG; the file appears whole or not at all."""
    with atomic.file(path) as fresh:
        Pillow.fromarray(pixels).save(fresh, "PNG")

"""Holes to train and to measure with: (S, S) bool arrays, True in the hole."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from picme_rt import files, images
from picme_rt.errors import InputError
from picme_rt.images import Hole
from picme_training import pictures
from picme_training.config import MaskConfig


def centre(size: int) -> Hole:
    """The centred square of half the side: the paper's centre mask."""
    hole = np.zeros((size, size), bool)
    hole[size // 4 : size - size // 4, size // 4 : size - size // 4] = True
    return hole


def rectangles(size: int, rng: np.random.Generator) -> Hole:
    """One to three rectangles, each side from an eighth to a half of the picture's."""
    hole = np.zeros((size, size), bool)
    for _ in range(rng.integers(1, 4)):
        height, width = rng.integers(size // 8, size // 2 + 1, 2)
        top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
        hole[top : top + height, left : left + width] = True
    return hole


def strokes(size: int, rng: np.random.Generator) -> Hole:
    """One to four brush strokes: random walks with round joints, 6 % to 20 % of the side wide."""
    canvas = Image.new("1", (size, size))
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 5)):
        at = rng.uniform(0, size, 2)
        angle = rng.uniform(0, 2 * np.pi)
        radius = rng.uniform(0.03, 0.1) * size
        for _ in range(rng.integers(2, 9)):
            angle += rng.normal(0, 1.0)
            step = rng.uniform(0.08, 0.25) * size * np.array([np.cos(angle), np.sin(angle)])
            to = np.clip(at + step, 0, size - 1)
            pen.line([*at, *to], fill=1, width=max(1, round(2 * radius)))
            for x, y in (at, to):
                pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1)
            at = to
    return np.array(canvas, bool)


def listed(folder: Path) -> list[Path]:
    """The masks of a folder, in the order of names.

    Raises:
        InputError: The folder holds none.
    """
    found = [
        path
        for path in sorted(folder.glob("*"))
        if path.suffix.lower() in files.SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise InputError(f"masks must be a folder with .png or .jpg masks, got {folder}")
    return found


def resized(hole: Hole, size: int) -> Hole:
    """A mask of any size as (size, size): the whole of it, to the nearest pixel."""
    return np.array(Image.fromarray(hole).resize((size, size), Image.Resampling.NEAREST))


def cropped(hole: Hole, size: int) -> Hole:
    """The centred square of a mask, `resized`: where `pictures.resized` has its picture."""
    return resized(hole[pictures.centred_square(*hole.shape)], size)


def check(folder: Path, found: dict[str, Hole]) -> None:
    """Checks the masks of a folder, by name, as they will be used.

    Raises:
        InputError: Some are empty or full; it names them.
    """
    flat = [
        pictures.Skipped(name, "full" if hole.any() else "empty", "")
        for name, hole in found.items()
        if not 0 < hole.sum() < hole.size
    ]
    if flat:
        height, width = found[flat[0].name].shape
        raise InputError(
            f"masks must have hole (grey over {images.GREY}) and known pixels at "
            f"{height}x{width}, got {', '.join(pictures.summary(flat))} in {folder}; "
            "repaint or remove them: what is thinner than a pixel of that size may vanish"
        )


def load_folder(folder: Path, size: int) -> dict[str, Hole]:
    """Every mask of a folder by its file's name, read as `picme complete` reads it, `resized`.

    Unlike photographs, which are gathered by the thousand, masks are made for the purpose: one that
    cannot be read, is empty or full is a mistake to be repaired, and ends the reading.

    Raises:
        InputError: The folder holds no mask, one that cannot be read, or one that is empty or full
            at this size.
    """
    found = {path.name: resized(files.read_mask(path), size) for path in listed(folder)}
    check(folder, found)
    return found


def draw(
    config: MaskConfig, size: int, rng: np.random.Generator, folder: list[Hole] | None = None
) -> Hole:
    """One training hole of a kind drawn by the weights of `config`; never empty, never full.

    Args:
        config: The weights.
        size: S.
        rng: What it is drawn with.
        folder: The masks of `load_folder`.

    Raises:
        InputError: The folder's weight is over 0, and there is none.
    """
    weights = np.array([config.centre, config.rectangles, config.strokes, config.folder])
    kind = rng.choice(4, p=weights / weights.sum())
    if kind == 0:
        return centre(size)
    if kind == 1:
        return rectangles(size, rng)
    if kind == 3:
        if not folder:
            raise InputError("masks.folder > 0 needs a folder of masks: pass --masks DIR")
        hole = folder[rng.integers(len(folder))]
        return hole[:, ::-1] if rng.random() < 0.5 else hole
    hole = strokes(size, rng)
    while not 0 < hole.sum() < hole.size:
        hole = strokes(size, rng)
    return hole

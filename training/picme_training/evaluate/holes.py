"""Which holes the pictures are measured with: `centre`, `random`, or the masks of a folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picme_rt.errors import InputError
from picme_rt.images import Hole
from picme_training import masks
from picme_training.config import MaskConfig


def choose(kind: str, names: Sequence[str], size: int, *, each: int, seed: int) -> list[Hole]:
    """The holes of pictures in their order, `each` for the first picture, then for the second.

    Args:
        kind: `centre` (the square of half the side), `random` (as training draws them by default),
            or a folder of masks: those named as the pictures are, else all of them in turn, in an
            order that the seed shuffles; resized to the nearest pixel.
        names: Of the pictures' files.
        size: S.
        each: Holes a picture.
        seed: 0 or more.

    Returns:
        len(names) * each holes (S, S), none of them empty or full.

    Raises:
        InputError: An unknown kind, a mask that is empty or full at this size, masks for some of
            the pictures by name, or several holes a picture of a kind that has one.
    """
    count = len(names) * each
    if kind == "random":
        generators = (np.random.default_rng([seed, 4, place]) for place in range(count))
        return [masks.draw(MaskConfig(), size, rng) for rng in generators]
    if kind == "centre":
        _one(each, "masks centre")
        return [masks.centre(size)] * count
    folder = Path(kind)
    if not folder.is_dir():
        raise InputError(f"masks must be centre, random or a folder of masks, got {kind}")
    found = masks.read_folder(folder, size)
    for name, hole in found.items():
        if not 0 < hole.sum() < hole.size:
            raise InputError(
                f"{folder / name} must have hole and known pixels, got one that is "
                f"{'full' if hole.any() else 'empty'} at {size}x{size}"
            )
    by_stem = {Path(name).stem: hole for name, hole in found.items()}
    stems = [Path(name).stem for name in names]
    lacking = [stem for stem in stems if stem not in by_stem]
    if not lacking:
        _one(each, "masks by the pictures' names")
        return [by_stem[stem] for stem in stems]
    if len(lacking) < len(stems):
        raise InputError(
            f"{folder} must have a mask for every picture's name or for none, "
            f"got none named {lacking[0]} and {len(stems) - len(lacking)} others"
        )
    order = np.random.default_rng([seed, 5]).permutation(len(found))
    in_turn = list(found.values())
    return [in_turn[order[place % len(order)]] for place in range(count)]


def _one(each: int, what: str) -> None:
    if each != 1:
        raise InputError(f"{what} give one hole a picture, got --holes {each}")

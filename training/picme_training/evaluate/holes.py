"""Which holes the pictures are measured with: `centre`, `random`, or the masks of a folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picme_rt import files
from picme_rt.errors import InputError
from picme_rt.images import Hole
from picme_training import masks, pictures
from picme_training.config import MaskConfig


def choose(
    kind: str, data: Path, names: Sequence[str], size: int, *, each: int, seed: int
) -> list[Hole]:
    """The holes of pictures in their order, `each` for the first picture, then for the second.

    Args:
        kind: `centre` (the square of half the side), `random` (as training draws them by default),
            or a folder of masks, resized to the nearest pixel: those named as the pictures are, of
            which the centred squares are taken, as of the pictures; else all of them, whole, in
            turn, in an order that the seed shuffles.
        data: The pictures' folder, or their pack, which does not know how large they were.
        names: Of the pictures' files.
        size: S.
        each: Holes a picture.
        seed: 0 or more.

    Returns:
        len(names) * each holes (S, S), none of them empty or full.

    Raises:
        InputError: An unknown kind, a mask that is empty or full at this size, masks for some of
            the pictures by name, two of one name, one of another size than the picture it is named
            as, several holes a picture of a kind that has one, or more than there are masks.
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
    by_stem: dict[str, Path] = {}
    for path in masks.listed(folder):
        if (first := by_stem.setdefault(path.stem, path)) != path:
            raise InputError(
                f"{folder} must hold one mask named {path.stem}, got {first.name} and {path.name}"
            )
    lacking = [name for name in names if Path(name).stem not in by_stem]
    if not lacking:
        _one(each, "masks by the pictures' names")
        return _by_name(folder, [by_stem[Path(name).stem] for name in names], data, names, size)
    if len(lacking) < len(names):
        raise InputError(
            f"{folder} must have a mask for every picture's name or for none, "
            f"got none named {Path(lacking[0]).stem} and {len(names) - len(lacking)} others"
        )
    in_turn = list(masks.load_folder(folder, size).values())
    if each > len(in_turn):
        raise InputError(
            f"--holes must be at most the {len(in_turn)} masks of {folder}, got {each}"
        )
    order = np.random.default_rng([seed, 5]).permutation(len(in_turn))
    return [in_turn[order[place % len(order)]] for place in range(count)]


def _by_name(
    folder: Path, paths: list[Path], data: Path, names: Sequence[str], size: int
) -> list[Hole]:
    def read(place: int) -> Hole:
        path = paths[place]
        if data.is_dir():
            return masks.cropped(files.read_pair(data / names[place], path)[1], size)
        return masks.cropped(files.read_mask(path), size)

    found = pictures.in_threads(read, range(len(paths)), "reading masks")
    masks.check(folder, {path.name: hole for path, hole in zip(paths, found, strict=True)})
    return found


def _one(each: int, what: str) -> None:
    if each != 1:
        raise InputError(f"{what} give one hole a picture, got --holes {each}")

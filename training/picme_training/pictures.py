"""Folders of pictures: read in threads into one array; what cannot be learnt from is left out."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from tqdm import tqdm

from picme_rt import files
from picme_rt.errors import InputError
from picme_rt.images import Image

NAMED = 5  # names of a summary's line; the whole list is the caller's to store


class Skipped(NamedTuple):
    """A file that is not learnt from.

    Attributes:
        name: Of the file.
        reason: `unreadable`, `tiny` or `grey`.
        detail: What was found.
    """

    name: str
    reason: str
    detail: str


class Square(NamedTuple):
    """A picture as it is learnt from.

    Attributes:
        pixels: (side, side, 3) uint8.
        transparent: Whether the file has transparent pixels there: `pixels` are what it stores.
    """

    pixels: Image
    transparent: bool


class Found(NamedTuple):
    """What a folder holds.

    Attributes:
        pixels: (N, 3, side, side) uint8, the channels of a place together in memory.
        names: Of the N files.
        skipped: Every file that was left out.
        transparent: Names of those of the N that have transparent pixels.
    """

    pixels: NDArray[np.uint8]
    names: list[str]
    skipped: list[Skipped]
    transparent: list[str]


def summary(skipped: list[Skipped]) -> list[str]:
    """One line a reason: how many, and the first names."""
    lines = []
    for reason in sorted({entry.reason for entry in skipped}):
        names = [entry.name for entry in skipped if entry.reason == reason]
        lines.append(f"{len(names)} {reason} ({_first(names)})")
    return lines


def note(transparent: list[str]) -> list[str]:
    """A line about pictures with transparent pixels, by their names; none if there are none."""
    if not transparent:
        return []
    return [
        f"{len(transparent)} with transparent pixels, whose stored colours are learnt "
        f"({_first(transparent)})"
    ]


def _first(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def as_table(skipped: list[Skipped]) -> dict[str, dict[str, str]]:
    """What was found by name, by reason: the whole list, to be stored as JSON."""
    table: dict[str, dict[str, str]] = {}
    for entry in skipped:
        table.setdefault(entry.reason, {})[entry.name] = entry.detail
    return table


def listed(folder: Path) -> list[Path]:
    """The files of a folder that are named as pictures are, in the order of names.

    Subfolders are not entered; names that begin with a dot are passed over.

    Raises:
        InputError: There is no folder, or none such in it.
    """
    if not folder.is_dir():
        raise InputError(f"data must be a folder of pictures or a pack, got {folder}")
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in files.SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise InputError(
            f"data must be a folder with {', '.join(files.SUFFIXES)} pictures, got {folder}; "
            "subfolders are not entered"
        )
    return sorted(found)


def resized(picture: Image, side: int) -> Image:
    """The centred square of a picture, resized to (side, side, 3) with Lanczos."""
    rows, columns = centred_square(picture.shape[0], picture.shape[1])
    box = (columns.start, rows.start, columns.stop, rows.stop)
    rgb = Pillow.fromarray(picture)
    return np.array(rgb.resize((side, side), Pillow.Resampling.LANCZOS, box=box))


def centred_square(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the centred square."""
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    return slice(top, top + edge), slice(left, left + edge)


def square(path: Path, side: int, *, smallest: int, keep_grey: bool) -> Square | Skipped:
    """A picture file as it is learnt from, or why it is left out."""
    try:
        photograph = files.read_photograph(path)
    except InputError as exc:
        return Skipped(path.name, "unreadable", str(exc))
    height, width = photograph.pixels.shape[:2]
    if min(height, width) < smallest:
        return Skipped(path.name, "tiny", f"{width}x{height}, less than {smallest}")
    found = resized(photograph.pixels, side)
    if not keep_grey and (found == found[:, :, :1]).all():
        return Skipped(path.name, "grey", "red, green and blue are equal everywhere")
    if photograph.alpha is None:
        return Square(found, transparent=False)
    inside = photograph.alpha[centred_square(height, width)]
    return Square(found, transparent=bool((inside < 255).any()))


def nothing_left(folder: Path, skipped: list[Skipped]) -> InputError:
    """The error of a folder of which every picture is left out."""
    cures = {
        "grey": "; --keep-grey takes grey ones",
        "tiny": "; tiny ones take a smaller size: --size, or network.size in training",
    }
    reasons = {entry.reason for entry in skipped}
    return InputError(
        f"data must hold a picture that can be used, got {folder} with "
        f"{'; '.join(summary(skipped))}"
        + "".join(cure for reason, cure in cures.items() if reason in reasons)
    )


def read_folder(folder: Path, side: int, *, smallest: int, keep_grey: bool) -> Found:
    """Every usable picture of a folder, and what was left out.

    Raises:
        InputError: There is no usable picture, or too little memory for all.
    """
    paths = listed(folder)
    pixels = empty(len(paths), side)

    def read(row: int) -> Skipped | bool:
        found = square(paths[row], side, smallest=smallest, keep_grey=keep_grey)
        if isinstance(found, Skipped):
            return found
        pixels[row] = found.pixels.transpose(2, 0, 1)
        return found.transparent

    results = in_threads(read, range(len(paths)), "reading pictures")
    kept = [row for row, found in enumerate(results) if not isinstance(found, Skipped)]
    skipped = [found for found in results if isinstance(found, Skipped)]
    if not kept:
        raise nothing_left(folder, skipped)
    for place, row in enumerate(kept):  # in place: a copy would need the memory twice
        if place != row:
            pixels[place] = pixels[row]
    names = [paths[row].name for row in kept]
    transparent = [paths[row].name for row in kept if results[row] is True]
    return Found(pixels[: len(kept)], names, skipped, transparent)


def empty(count: int, side: int) -> NDArray[np.uint8]:
    """Room for `count` pictures, (count, 3, side, side), the channels of a place together.

    Raises:
        InputError: It is more than the memory that is free.
    """
    needed, free = count * 3 * side * side, available_memory()
    if needed > free:
        raise InputError(
            f"{count} pictures of {side}x{side} need {needed / 1e9:.2f} GB of memory, "
            f"{free / 1e9:.2f} GB are free; train at a smaller size, with a larger augment.zoom, "
            "or from fewer pictures"
        )
    return np.empty((count, side, side, 3), np.uint8).transpose(0, 3, 1, 2)


def available_memory() -> int:
    """Bytes that this process may take without swapping, or within a container's limit."""
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    meminfo, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            free.append(int(lines["MemAvailable"].split()[0]) * 1024)
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        free.append(int(text))
    # torchrun says how many processes it started here; each has its own copy
    return min(free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(
    work: Callable[[_Item], _Result], items: Iterable[_Item], what: str
) -> list[_Result]:
    """`work` of every item, in order, on all cores; Pillow's decoders leave the interpreter free.

    An error of `work` ends the rest.
    """
    items = list(items)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(work, items)
        try:
            quiet = os.environ.get("RANK", "0") != "0"  # of several processes one shows a bar
            return list(
                tqdm(results, total=len(items), desc=what, unit="img", leave=False, disable=quiet)
            )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

"""Pictures on disk, completed: which mask, which files, what is there already."""

import dataclasses
import itertools
import os
import queue
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from picme_rt import files, pipeline, sheet
from picme_rt.encoded import Request
from picme_rt.errors import InputError
from picme_rt.images import Image
from picme_rt.pipeline import GoOn
from picme_rt.session import Session

MOST = 10_000
"""Results of one picture on disk."""
NAME_BYTES = 255
"""Of a file's name, on the file systems of today."""


class Task(NamedTuple):
    """One picture to complete.

    Attributes:
        image: The picture's file.
        mask: The mask's file.
        out: The folder of the results.
        k: Results.
        format: One of `files.FORMATS`.
    """

    image: Path
    mask: Path
    out: Path
    k: int
    format: str

    @property
    def name(self) -> str:
        """What the names of its files begin with."""
        return self.image.stem

    @property
    def results(self) -> list[Path]:
        """OUT/NAME_00.png ..., in the order of their indices."""
        return [self._result(i, self.format) for i in range(self.k)]

    @property
    def sheet(self) -> Path:
        """OUT/NAME_sheet.png, written last."""
        return self.out / f"{self.name}_sheet.png"

    @property
    def paths(self) -> list[Path]:
        """`results` and the sheet."""
        return [*self.results, self.sheet]

    def check_names(self) -> None:
        """Refuses a picture whose files could not be written.

        Raises:
            InputError: A name of theirs is too long.
        """
        name = max(self._result(self.k - 1, self.format).name, self.sheet.name, key=len)
        if (size := len(os.fsencode(name))) > NAME_BYTES:
            raise InputError(
                f"names of results must have at most {NAME_BYTES} bytes, got {size} in {name}; "
                "rename the picture"
            )

    def existing(self) -> list[Path]:
        """Those of its files that are there; a file that is there is whole (atomic.py)."""
        return [path for path in self.paths if path.exists()]

    def left(self) -> list[Path]:
        """What is there of the picture, to be deleted in this order.

        With its sheet, which only a run writes, the results of any k and format too; the sheet is
        the last, so that one who is killed meanwhile finds the rest again.
        """
        if not self.sheet.exists():
            return self.existing()
        found: list[Path] = []
        for form in files.FORMATS:
            every = (self._result(i, form) for i in itertools.count())
            found += itertools.takewhile(Path.exists, every)
        return list(dict.fromkeys([*reversed(found), *self.existing()]))

    def _result(self, index: int, form: str) -> Path:
        return self.out / f"{self.name}_{index:02d}.{form}"


class Failure(NamedTuple):
    """A picture that could not be completed, and why."""

    image: Path
    reason: str


@dataclasses.dataclass(frozen=True)
class Result:
    """One result on disk; the fields of `Completion` without its pixels."""

    path: Path
    index: int
    primitive: int | None
    log_prob: float | None


class Finished(NamedTuple):
    """One picture whose files are all there; `results` are those that were made this time."""

    task: Task
    results: list[Result]
    seconds: float


def pair(image: Path, masks: Path) -> Path:
    """The mask of a picture: `masks` itself, or in a folder the one of the picture's name.

    Raises:
        InputError: There is no such picture or mask; or the folder has no mask of that name, or
            several.
    """
    _check_there(image, masks)
    return _mask_of(image, masks, _by_stem(masks)) if masks.is_dir() else masks


def _check_there(images: Path, masks: Path) -> None:
    for what, place in (("picture", images), ("mask file", masks)):
        if not place.exists():
            raise InputError(f"there is no {what} or folder {place}")


def _by_stem(masks: Path) -> dict[str, list[Path]]:
    """The masks of a folder by what their names begin with, listed once."""
    found: dict[str, list[Path]] = {}
    for place in sorted(masks.iterdir()):
        if place.suffix.lower() in files.SUFFIXES and place.is_file():
            found.setdefault(place.stem, []).append(place)
    return found


def _mask_of(image: Path, masks: Path, by_stem: dict[str, list[Path]]) -> Path:
    found = by_stem.get(image.stem, [])
    if len(found) != 1:
        names = f"{len(found)}: " + ", ".join(p.name for p in found) if found else "none"
        raise InputError(
            f"{masks} must hold one mask named {image.stem} (.png, .jpg, ...), got {names}"
        )
    return found[0]


def tasks(images: Path, masks: Path, out: Path, k: int, form: str) -> list[Task | Failure]:
    """Every picture of a folder with its mask, in the order of names; subfolders are left out.

    A picture is a file that ends with one of `files.SUFFIXES`.

    Raises:
        InputError: The folder or `masks` is not there; it holds no picture, or is also the folder
            of results; or the one mask of all cannot be read.
    """
    _check_there(images, masks)
    if not masks.is_dir():
        files.read_mask(masks)
    for place in (images, masks):
        if out.exists() and place.exists() and out.samefile(place):
            raise InputError(f"--out must be another folder than {place}; results go there")
    names = sorted(
        p.name
        for p in images.iterdir()
        if p.suffix.lower() in files.SUFFIXES and not p.name.startswith(".")
    )
    if not names:
        raise InputError(f"{images} holds no picture ({', '.join(files.SUFFIXES)})")
    stems = Counter(Path(name).stem for name in names)
    by_stem = _by_stem(masks) if masks.is_dir() else None
    found: list[Task | Failure] = []
    for name in names:
        image = images / name
        if stems[image.stem] > 1:
            reason = f"{stems[image.stem]} pictures are named {image.stem}: rename all but one"
            found.append(Failure(image, reason))
            continue
        try:
            mask = masks if by_stem is None else _mask_of(image, masks, by_stem)
            task = Task(image, mask, out, k, form)
            task.check_names()
            found.append(task)
        except InputError as exc:
            found.append(Failure(image, str(exc)))
    return found


def left_out(images: Path) -> list[Path]:
    """The files of a folder that `tasks` takes for no pictures, hidden ones aside, by name."""
    return sorted(
        p
        for p in images.iterdir()
        if p.suffix.lower() not in files.SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def complete(
    session: Session, task: Task, request: Request, *, keep: bool, go_on: GoOn
) -> Finished:
    """Completes one picture; each file appears whole, each result as soon as it is ready.

    Args:
        session: The engine.
        task: The picture and its files.
        request: What is asked; `request.k` is `task.k`.
        keep: Whether the results that are there already stay and count as done; else what is left
            of the picture goes before the first is written.
        go_on: Called after each result: it may raise, to end early (pipeline.py).

    Raises:
        InputError: The picture or its mask cannot be used.
        OSError: A file cannot be written.
    """
    began = time.perf_counter()
    photograph, hole = files.read_pair(task.image, task.mask)
    img = photograph.pixels
    paths = task.results
    shown = photograph.opaque_in(hole)
    files.check_format(paths[0], shown)
    encoded = session.encode(img, hole)
    done = next((i for i, p in enumerate(paths) if not p.exists()), task.k) if keep else 0
    made: list[Result] = []

    def pictures() -> Iterator[Image]:
        for path in paths[:done]:
            kept = files.read_photograph(path).on_white()
            if kept.shape != img.shape:
                raise InputError(
                    f"{path} must have the size of {task.image}, {img.shape[:2]}, got "
                    f"{kept.shape[:2]}: the picture has changed since; delete its results"
                )
            yield kept
        if done == task.k:
            return
        rest = request._replace(k=task.k - done, first=done)
        for path, one in zip(paths[done:], encoded.stream(**rest._asdict()), strict=True):
            result = shown._replace(pixels=one.image)
            files.write_picture(path, result)
            made.append(Result(path, one.index, one.primitive, one.log_prob))
            yield result.on_white()
            go_on()

    for path in [] if keep else task.left():
        path.unlink()
    task.out.mkdir(parents=True, exist_ok=True)
    page = sheet.sheet(shown.on_white(), hole, pictures(), task.k)
    files.write_picture(task.sheet, shown._replace(pixels=page, exif=None, alpha=None))
    return Finished(task, made, time.perf_counter() - began)


def complete_all(
    sessions: Sequence[Session],
    planned: Sequence[Task],
    request: Request,
    *,
    keep: bool,
    at_once: int,
) -> Generator[Finished | Failure, None, None]:
    """Completes pictures, several at once; what became of each, in their order (pipeline.py).

    While one is read, written or waits for the disk, others are encoded, decoded and pasted.

    Args:
        sessions: One engine, on a device each; best opened with one thread a run. A picture goes
            to one that is free, and its bytes do not depend on which (`agree`).
        planned: What to complete.
        request: As in `complete`.
        keep: As in `complete`.
        at_once: Most pictures in work, on all sessions together; each takes memory.

    Raises:
        OSError: A file cannot be written: of the first picture of which that is so.
    """
    free: queue.SimpleQueue[Session] = queue.SimpleQueue()
    for place in range(at_once):  # so nobody waits, and sessions differ by one picture at most
        free.put(sessions[place % len(sessions)])

    def work(task: Task, go_on: GoOn) -> Finished | Failure:
        session = free.get()
        try:
            return complete(session, task, request, keep=keep, go_on=go_on)
        except InputError as exc:
            return Failure(task.image, str(exc))
        finally:
            free.put(session)

    return pipeline.in_order(work, planned, at_once=at_once)

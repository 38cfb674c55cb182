"""Files of an engine's directory as they are read: plain ones of a known length, strict JSON."""

import json
import math
import os
import reprlib
import stat
from pathlib import Path
from typing import Any, NoReturn

from picme_rt.errors import EngineError, one_line

MANIFEST = "engine.json"
_MANIFEST_BYTES = 1 << 20
_MANIFEST_DEPTH = 32
# a pipe does not wait for its writer, a link is not followed; Windows has neither flag
_OPEN = os.O_RDONLY | sum(getattr(os, f, 0) for f in ("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY"))


def read_file(root: Path, name: str, least: int, most: int) -> bytes:
    """A plain file of an engine, of least to most bytes; links, pipes and devices are not read."""
    path = root / name
    try:
        inside = (path, *path.parents[: name.count("/")])
        handle = -1 if any(p.is_symlink() for p in inside) else os.open(path, _OPEN)
    except (OSError, ValueError) as exc:  # ValueError: the path holds what no path can
        why = exc.strerror if isinstance(exc, OSError) else "no path has such characters"
        raise EngineError(f"engine {root} lacks the file {name}: {why}; export it again") from exc
    if handle < 0:
        raise EngineError(f"engine {root} lacks the file {name}: a link in it is not followed")
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise EngineError(f"engine {root} lacks the file {name}: there is no plain file")
    with open(handle, "rb") as file:
        if not least <= status.st_size <= most:
            expected = most if least == most else f"up to {most}"
            raise EngineError(
                f"{path} must have {expected} bytes, got {status.st_size}; export it again"
            )
        try:
            content = file.read(status.st_size + 1)  # the one more: it may grow meanwhile
        except OSError as exc:
            raise EngineError(f"{path} cannot be read: {exc.strerror}") from exc
    if len(content) != status.st_size:
        raise EngineError(f"{path} was changed while it was read; try again")
    return content


def manifest_of(path: Path) -> dict[str, Any]:
    """The entries of a manifest, as JSON strictly read; what they are is not looked at.

    Raises:
        EngineError: The directory or its manifest is missing or damaged.
    """
    place = path / MANIFEST
    try:
        here = os.path.lexists(place)
    except ValueError:  # the path holds what no path can
        here = False
    if not here:
        raise EngineError(
            f"{path} is not an engine: it has no {MANIFEST}; `picme export` makes one, "
            "the repository ships some in engines/"
        )
    try:
        content = json.loads(
            read_file(path, MANIFEST, 0, _MANIFEST_BYTES),
            object_pairs_hook=_object,
            parse_float=_finite,
            parse_constant=_no_number,
        )
        level = [content]
        for _ in range(_MANIFEST_DEPTH):
            level = [
                value
                for one in level
                if isinstance(one, (dict, list))
                for value in (one.values() if isinstance(one, dict) else one)
            ]
        if level:
            raise ValueError(f"entries lie in each other more than {_MANIFEST_DEPTH} deep")
        json.dumps(content, ensure_ascii=False).encode()  # half a character is no text
    except EngineError:
        raise
    except (ValueError, RecursionError) as exc:
        raise EngineError(f"{place} is damaged: {one_line(exc)}") from exc
    if not isinstance(content, dict):
        raise EngineError(f"{place} must hold one JSON object, got {type(content).__name__}")
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an entry is given twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        _no_number(text)
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{short(text)} is no finite number")


def short(value: object) -> str:
    """What an entry holds, in one line of bounded length."""
    return reprlib.repr(value)

"""Directories and files that appear whole or not at all: written beside their place, renamed."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from picme_rt.errors import InputError


@contextlib.contextmanager
def directory(place: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary directory that becomes `place` when the block ends without an error.

    Args:
        place: Where the directory shall be; its parents are made.
        force: Whether an existing `place` is replaced; the old one stays until the new is whole.

    Yields:
        The temporary directory, on the same file system.

    Raises:
        InputError: `place` exists and `force` is not set.
    """
    if place.exists() and not force:
        raise InputError(f"{place} exists; pass --force (force=True) to replace it")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as name:
        fresh = Path(name) / "new"
        fresh.mkdir()
        yield fresh
        for path in fresh.rglob("*"):
            _sync(path)
        old = Path(name) / "old"
        if place.exists() and not force:
            raise InputError(f"{place} appeared meanwhile; pass --force (force=True) to replace it")
        if place.exists():
            place.rename(old)
        try:
            fresh.rename(place)
        except BaseException:
            if old.exists():
                old.rename(place)
            raise
        _sync(place.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def file(place: Path) -> Iterator[Path]:
    """A temporary file beside `place` that takes its name when the block ends without an error.

    Yields:
        The temporary path, with the suffix of `place`.
    """
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as name:
        fresh = Path(name) / place.name
        yield fresh
        _sync(fresh)
        fresh.replace(place)
        _sync(place.parent)


def remove(place: Path) -> None:
    """Deletes a directory; its name goes first, so that no half of it is ever taken for whole."""
    doomed = place.with_name(f".{place.name}.removed")
    place.rename(doomed)
    shutil.rmtree(doomed)

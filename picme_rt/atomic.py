"""Directories and files that appear whole or not at all: written beside their place, then renamed.

FOLDER/.picme-x7f2k9qd.tmp/   a writer's own directory, under flock as long as the writer lives
    new, or a file's name     what is being written
    old/NAME                  what it replaces, where a system cannot swap two names in one step

The kernel drops the lock of a writer that is killed: so `sweep` knows what may go. Where there are
no such locks (Windows, some network file systems) leftovers stay until somebody deletes them.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from picme_rt.errors import InputError

if sys.platform != "win32":
    import fcntl

_PREFIX, _SUFFIX = ".picme-", ".tmp"
_NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}
_NO_SWAP = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


@contextlib.contextmanager
def directory(place: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary directory that becomes `place` when the block ends without an error.

    Args:
        place: Where the directory shall be; its parents are made, what killed writers left beside
            it is swept.
        force: Whether an existing `place` is replaced; the old one stays until the new is whole.

    Yields:
        The temporary directory, on the same file system.

    Raises:
        InputError: `place` exists and `force` is not set.
        OSError: Something cannot be written; its filename is `place`.
    """
    with named(place):
        sweep(place.parent)
        if place.exists() and not force:
            raise InputError(f"{place} exists; pass --force (force=True) to replace it")
        place.parent.mkdir(parents=True, exist_ok=True)
        with _own_directory(place.parent) as own:
            fresh = own / "new"
            fresh.mkdir()
            yield fresh
            for path in (*fresh.rglob("*"), fresh):
                _sync(path)
            if not place.exists():
                fresh.rename(place)
            elif not force:
                raise InputError(f"{place} appeared meanwhile; pass --force (force=True)")
            elif not _swap(fresh, place):
                _put_away(place, own)
                fresh.rename(place)
            _sync(place.parent)


@contextlib.contextmanager
def file(place: Path) -> Iterator[Path]:
    """A temporary file beside `place` that takes its name when the block ends without an error.

    Yields:
        The temporary path, with the suffix of `place`.

    Raises:
        OSError: It cannot be written; its filename is `place`.
    """
    with named(place), _own_directory(place.parent) as own:
        fresh = own / place.name
        yield fresh
        _sync(fresh)
        fresh.replace(place)
        _sync(place.parent)


def remove(place: Path) -> None:
    """Deletes a directory; its name goes first, so that no half of it is ever taken for whole."""
    with named(place), _own_directory(place.parent) as own:
        place.rename(own / "doomed")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One at a time in the block, of all processes and threads that ask with the same folder.

    Where there are no such locks nobody waits.
    """
    handle = None
    if sys.platform != "win32":
        with named(folder):
            handle = os.open(folder, os.O_RDONLY)
    try:
        if handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as exc:
                if exc.errno not in _NO_LOCKS:
                    raise
        yield
    finally:
        if handle is not None:
            os.close(handle)


def sweep(folder: Path) -> None:
    """Deletes what killed writers left in `folder`; a living writer's own directory stays.

    A folder that does not exist holds nothing.
    """
    for own in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        try:
            lock = _lock(own)
        except (BlockingIOError, FileNotFoundError, PermissionError):
            continue  # its writer lives, or has just finished, or is another user
        if lock is None:
            continue
        try:
            _clear(own)
        finally:
            os.close(lock)


@contextlib.contextmanager
def named(place: Path) -> Iterator[None]:
    """Gives an OSError that names no file, or a temporary one, the name of `place`."""
    try:
        yield
    except OSError as exc:
        parts = Path(str(exc.filename)).parts
        temporary = any(p.startswith(_PREFIX) and p.endswith(_SUFFIX) for p in parts)
        if exc.filename is None or temporary:
            exc.strerror = exc.strerror or str(exc)  # a library's own may have a text alone
            exc.filename = str(place)
        raise


@contextlib.contextmanager
def _own_directory(folder: Path) -> Iterator[Path]:
    """A new locked directory in `folder`, deleted when the block ends."""
    while True:
        own = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=folder))
        try:
            lock = _lock(own)
            break
        except (BlockingIOError, FileNotFoundError):
            continue  # a sweep came before the lock and took it for a dead writer's
        except BaseException:  # Ctrl-C
            shutil.rmtree(own, ignore_errors=True)
            raise
    try:
        yield own
    finally:
        try:
            _clear(own)
        except KeyboardInterrupt:  # in the middle of it: what is left would lie there until a sweep
            if own.exists():
                _clear(own)
            raise
        finally:
            if lock is not None:
                os.close(lock)


def _clear(own: Path) -> None:
    """Deletes a writer's own directory; what it has put away and not replaced gets its name back.

    That is how a kill or an interrupt between the two renames of `directory` is made good.
    """
    for old in own.glob("old/*"):
        if not (own.parent / old.name).exists():
            old.rename(own.parent / old.name)
    shutil.rmtree(own)


def _lock(own: Path) -> int | None:
    """Locks a writer's directory until the handle is closed or this process ends.

    Returns:
        The handle; None where there are no such locks.

    Raises:
        BlockingIOError: Somebody else holds it.
        FileNotFoundError: It is gone.
    """
    if sys.platform != "win32":
        handle = os.open(own, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(own)  # whoever held the lock before may have deleted it
            return handle
        except BaseException as exc:
            os.close(handle)
            if not isinstance(exc, OSError) or exc.errno not in _NO_LOCKS:
                raise
    return None


def _swap(one: Path, other: Path) -> bool:
    """Exchanges two names in one step; False where the system or the file system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, 2)  # RENAME_SWAP
        else:
            here = -100  # AT_FDCWD
            failed = library.renameat2(here, names[0], here, names[1], 2)  # RENAME_EXCHANGE
    except (AttributeError, TypeError):  # a C library without the call; Windows
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in _NO_SWAP:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _put_away(place: Path, own: Path) -> None:
    (own / "old").mkdir()
    place.rename(own / "old" / place.name)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on disk."""
    is_folder = path.is_dir()
    if sys.platform == "win32" and is_folder:
        return  # has no such call
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as exc:
        if not is_folder or exc.errno != errno.EINVAL:  # a file system that keeps names by itself
            raise
    finally:
        os.close(handle)

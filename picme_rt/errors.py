"""Everything that picme_rt raises on purpose.

PicmeError
├── InputError (ValueError)              an argument is not what the function takes
├── EngineError (ValueError)             an engine directory is missing, damaged, newer or foreign
├── ClosedError (RuntimeError)           a session was used after close()
├── UnavailableError (RuntimeError)      a backend, device or compiled kernel asked for is not here
└── MissingPackageError (ImportError)    an optional package is missing; the message names the extra
"""


class PicmeError(Exception):
    """Base of every error that picme_rt raises on purpose."""


class InputError(PicmeError, ValueError):
    """An argument is not what the function takes."""


class EngineError(PicmeError, ValueError):
    """An engine directory is missing, damaged, newer or foreign."""


class ClosedError(PicmeError, RuntimeError):
    """A session was used after `close()`."""


class UnavailableError(PicmeError, RuntimeError):
    """A backend, device or compiled kernel that was asked for is not here."""


class MissingPackageError(PicmeError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


def one_line(exc: Exception) -> str:
    """What another package's error says, in one line of bounded length."""
    return " ".join(str(exc).split())[:300]

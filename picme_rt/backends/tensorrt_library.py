"""TensorRT and TensorRT-RTX behind one loader: nearly the same Python interface, two packages."""

import functools
import importlib
from types import ModuleType
from typing import Any, NamedTuple

from picme_rt.errors import InputError, MissingPackageError, UnavailableError, one_line

LIBRARIES = ("tensorrt", "tensorrt-rtx")
"""By the names that `--target` and plans give them; the backend tries them in this order."""
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_CURES = {
    "tensorrt": "'picme_rt[tensorrt]' (its libraries come from NVIDIA's own package index)",
    "tensorrt-rtx": "'picme_rt[rtx]'",
}
_LEAST = {"tensorrt": 11, "tensorrt-rtx": 1}
_KEPT = 20  # messages


class Library(NamedTuple):
    """One of the two, imported.

    Attributes:
        name: `tensorrt` or `tensorrt-rtx`.
        version: As its package says it.
        module: The package.
        logger: The only logger of this process, as the library wants it.
        said: The last errors and warnings that it was told.
    """

    name: str
    version: str
    module: Any
    logger: Any
    said: list[str]

    def why(self) -> str:
        """What it said last, in one line."""
        return one_line(Exception(self.said[-1] if self.said else "it does not say why"))


@functools.cache  # a process has one logger: a second would be ignored
def load(name: str) -> Library:
    """Imports one of `LIBRARIES`.

    Raises:
        InputError: It is none of them.
        MissingPackageError: It is not installed; the message says how to get it.
        UnavailableError: It is too old.
    """
    if name not in LIBRARIES:
        raise InputError(f"library must be one of {LIBRARIES}, got {name!r}")
    try:
        module = importlib.import_module(_MODULES[name])
    except ImportError as exc:
        raise MissingPackageError(
            f"{name} is not installed or cannot be imported ({one_line(exc)}); "
            f"pip install {_CURES[name]}"
        ) from exc
    version = str(module.__version__)
    if int(version.split(".")[0]) < _LEAST[name]:
        raise UnavailableError(
            f"{name} must be {_LEAST[name]} or later, got {version}; "
            f"pip install --upgrade {_CURES[name]}"
        )
    said: list[str] = []
    return Library(name, version, module, _logger(module, said), said)


def installed() -> Library:
    """The first of the two that can be imported.

    Raises:
        MissingPackageError: Neither; the message says how to get them.
        UnavailableError: One is there and too old.
    """
    for name in LIBRARIES:
        try:
            return load(name)
        except MissingPackageError:
            continue
    raise MissingPackageError(
        "backend tensorrt needs TensorRT or TensorRT-RTX, of which neither is installed; "
        "pip install 'picme_rt[tensorrt]' for data-centre GPUs, 'picme_rt[rtx]' for GeForce and RTX"
    )


def _logger(module: ModuleType, said: list[str]) -> object:
    """Keeps warnings and errors for messages of ours; prints nothing."""

    class Logger(module.ILogger):  # type: ignore[misc, name-defined]  # the module is found late
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            if severity in (
                module.ILogger.INTERNAL_ERROR,
                module.ILogger.ERROR,
            ):
                said.append(message)
                del said[:-_KEPT]

    return Logger()

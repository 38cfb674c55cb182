"""The compiled module of the kernels: whether it is taken, and on how many threads."""

import operator
from types import ModuleType
from typing import Literal

from picme_rt.errors import InputError, UnavailableError

Impl = Literal["auto", "ref", "native"]

NAME = "picme_rt._kernels"

_IMPLS = ("auto", "ref", "native")
_MOST_THREADS = 1024


def find(impl: Impl) -> ModuleType | None:
    """`picme_rt._kernels`, or None for the reference.

    Raises:
        InputError: impl is none of the three.
        UnavailableError: impl is "native" and the module is not built.
    """
    if impl not in _IMPLS:
        raise InputError(f"impl must be one of {', '.join(_IMPLS)}, got {impl!r}")
    if impl == "ref":
        return None
    try:
        import picme_rt._kernels as native
    except ModuleNotFoundError as exc:  # not built; one that is there and broken: ImportError
        if impl == "native":
            raise UnavailableError(
                "impl='native' needs the compiled module picme_rt._kernels, which is not built: "
                "run `pip install .` with a C++17 compiler, or use impl='auto' or 'ref'"
            ) from exc
        return None
    return native


def thread_count(threads: int | None) -> int:
    """As the compiled module takes it: 0 for as many as the work pays for."""
    return 0 if threads is None else check_integer("threads", threads, 1, _MOST_THREADS)


def check_integer(name: str, value: object, low: int, high: int) -> int:
    """The value as int, if it is an integer in low..high.

    Raises:
        InputError: It is not; the message calls it `name`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # it is what index() looks at
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise InputError(f"{name} must be an integer from {low} to {high}, got {value!r}")
    return number

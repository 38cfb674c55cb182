"""Attempts: what fails is a failed check, for what comes after it is still worth having."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Result = dict[str, Any]


def said(why: Exception) -> str:
    """An exception in a line."""
    return f"{type(why).__name__}: {why}"[-500:]


def failed(name: str, why: Exception) -> Result:
    """The check that an exception fails."""
    return {"name": name, "pass": False, "said": said(why)}


@contextmanager
def attempt(name: str, checks: list[Result]) -> Iterator[None]:
    """Adds a failed check to `checks` where the block raises, which ends the block alone."""
    try:
        yield
    except Exception as exc:
        checks.append(failed(name, exc))

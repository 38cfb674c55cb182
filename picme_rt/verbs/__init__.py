"""The verbs of the command line that need the runtime alone."""

from pathlib import Path

from picme_rt.session import PATCH

DEFAULT_ENGINE = Path("engines/cats256")
"""Of a checkout of the repository, which ships it; elsewhere, name one with --engine."""


def engine(text: str) -> str | Path:
    """What a session takes for an engine: the word `patch` as it is, a directory as a path."""
    return PATCH if text == PATCH else Path(text)

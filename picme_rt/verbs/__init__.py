"""The verbs of the command line that need the runtime alone."""

from pathlib import Path

DEFAULT_ENGINE = Path("engines/cats256")
"""Of a checkout of the repository, which ships it; elsewhere, name one with --engine."""

"""Draws a trained network's likelier primitives oftener, as a checkpoint to be exported.

python training/sharpen.py OUT FROM --power 1.5
"""

import argparse
import sys
from pathlib import Path

from picme_rt.errors import PicmeError
from picme_training import sharpening


def main(argv: list[str] | None = None) -> int:
    """Writes OUT/checkpoints and says where; errors are one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new checkpoint")
    parser.add_argument("source", type=Path, metavar="FROM", help="a run, checkpoint or engine")
    parser.add_argument(
        "--power", type=float, required=True, metavar="POWER",
        help="alpha becomes alpha^POWER, its sum 1: above 1 sharper, below 1 flatter",
    )  # fmt: skip
    given = parser.parse_args(argv)
    try:
        print(sharpening.write(given.out, given.source, given.power))
    except (PicmeError, OSError) as exc:
        print(f"sharpen.py: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

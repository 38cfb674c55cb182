"""Draws primitives of a trained network nearer to others of it, as a checkpoint to be exported.

python training/truncate.py OUT FROM --keep 0.8 1 0.4 ... --towards 1 3
"""

import argparse
import sys
from pathlib import Path

from picme_rt.errors import PicmeError
from picme_training import truncation


def main(argv: list[str] | None = None) -> int:
    """Writes OUT/checkpoints and says where; errors are one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new checkpoint")
    parser.add_argument("source", type=Path, metavar="FROM", help="a run, checkpoint or engine")
    parser.add_argument(
        "--keep", nargs="+", type=float, required=True, metavar="SHARE",
        help="of each primitive: 1, its mean stays, to 0, it becomes that of --towards",
    )  # fmt: skip
    parser.add_argument(
        "--towards", nargs="+", type=int, required=True, metavar="PRIMITIVE",
        help="primitives, from 0, towards whose mean the others are drawn",
    )  # fmt: skip
    given = parser.parse_args(argv)
    try:
        print(truncation.write(given.out, given.source, given.keep, given.towards))
    except (PicmeError, OSError) as exc:
        print(f"truncate.py: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

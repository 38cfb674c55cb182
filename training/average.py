"""Averages the weights of runs that began with the same ones: a model soup, as a run of its own.

python training/average.py OUT RUN=SHARE RUN=SHARE ...
"""

import argparse
import sys
from pathlib import Path

from picme_rt.errors import InputError, PicmeError
from picme_training import averaging, checkpoint


def main(argv: list[str] | None = None) -> int:
    """Writes OUT/checkpoints and says where; errors are one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new checkpoint")
    parser.add_argument("parts", nargs="+", metavar="RUN=SHARE", help="a run or checkpoint, 0 to 1")
    arguments = parser.parse_args(argv)
    try:
        parts = [_part(text) for text in arguments.parts]
        places = [checkpoint.find(Path(run)) for run, _ in parts]
        print(averaging.average(arguments.out, places, [share for _, share in parts]))
    except (PicmeError, OSError) as exc:
        print(f"average.py: {exc}", file=sys.stderr)
        return 1
    return 0


def _part(text: str) -> tuple[str, float]:
    run, _, share = text.rpartition("=")
    try:
        return run, float(share)
    except ValueError:
        raise InputError(f"a part must be RUN=SHARE, got {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())

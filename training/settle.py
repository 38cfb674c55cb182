"""Moves the means of a trained mixture to where its completions look more like originals.

python training/settle.py CONFIG OUT FROM --data cats256/train --lpips-weights lpips.safetensors

Needs torchmetrics: pip install '.[train]'.
"""

import argparse
import sys
from collections.abc import Generator

from picme_training import data, fine_tuning, settling


def main(argv: list[str] | None = None) -> int:
    """Writes OUT/checkpoints and says where; errors are one line."""
    parser = fine_tuning.parser(__doc__)
    parser.add_argument(
        "--similarity", type=float, default=1.0, metavar="WEIGHT",
        help="of 1 - SSIM beside LPIPS (default: 1)",
    )  # fmt: skip
    return fine_tuning.run("settle.py", _steps, parser.parse_args(argv))


def _steps(
    begun: fine_tuning.Begun, given: argparse.Namespace
) -> Generator[settling.Step, None, None]:
    batches, schedule = data.Batches(begun.pixels, begun.settings), begun.settings.schedule
    return settling.settle(begun.model, batches, begun.lpips, schedule, given.similarity)


if __name__ == "__main__":
    sys.exit(main())

"""Teaches a trained network the pictures that it completes worst; on others it stays as it is.

python training/mend.py CONFIG OUT FROM --data cats256/train --lpips-weights lpips.safetensors

Of each kind of picture, the taught and the kept, CONFIG's `batch` are in a step.
Needs torchmetrics: pip install '.[train,evaluate]'.
"""

import argparse
import sys
from collections.abc import Iterator

import torch
from tqdm import tqdm

from picme_rt.errors import InputError
from picme_training import data, fine_tuning, mending


def main(argv: list[str] | None = None) -> int:
    """Writes OUT/checkpoints and says where; errors are one line."""
    parser = fine_tuning.parser(__doc__)
    parser.add_argument(
        "--worst", type=int, default=700, metavar="COUNT",
        help="of the pictures that are taught, the others keep (default: 700)",
    )  # fmt: skip
    return fine_tuning.run("mend.py", _steps, parser.parse_args(argv))


def _steps(begun: fine_tuning.Begun, given: argparse.Namespace) -> Iterator[mending.Step]:
    settings, model, pixels, lpips = begun.settings, begun.model, begun.pixels, begun.lpips
    count = len(pixels)
    if not 1 <= given.worst < count:
        raise InputError(
            f"--worst must be 1 to {count - 1}, fewer than pictures, got {given.worst}"
        )
    seen = mending.distances(model, pixels, lpips, settings.schedule.seed)
    looks = tqdm(seen, "looking for the worst", -(-count // mending.LOOK), unit="batch")
    order = torch.cat(list(looks)).argsort(descending=True)
    worst, others = (
        data.Batches(pixels[rows], settings)
        for rows in (order[: given.worst], order[given.worst :])
    )
    return mending.mend(model, worst, others, lpips, settings.schedule)


if __name__ == "__main__":
    sys.exit(main())

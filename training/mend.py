"""Teaches a trained network, before a D, the pictures that it completes worst; on others it stays.

python training/mend.py CONFIG OUT FROM --data cats256/train --lpips-weights lpips.safetensors

Of the worst, of all the others turned, and of these upright, which it keeps drawing as before,
CONFIG's `batch` are in a step each. Needs torchmetrics: pip install '.[train]'.
"""

import argparse
import dataclasses
import sys
from collections.abc import Generator
from pathlib import Path

import torch
from tqdm import tqdm

from picme_rt.errors import InputError
from picme_training import checkpoint, data, discriminator, fine_tuning, mending

UPRIGHT = 5.0
"""Degrees by which a picture that is kept as it was is turned at most."""


def main(argv: list[str] | None = None) -> int:
    """Writes OUT/checkpoints and says where; errors are one line."""
    parser = fine_tuning.parser(__doc__)
    parser.add_argument(
        "--worst", type=int, default=700, metavar="COUNT",
        help="pictures completed worst; a step has as many of them as of the others (default: 700)",
    )  # fmt: skip
    parser.add_argument(
        "--judge", type=Path, metavar="RUN",
        help="a run or checkpoint with a D to go on from (default: a new one)",
    )  # fmt: skip
    return fine_tuning.run("mend.py", _steps, parser.parse_args(argv))


def _steps(
    begun: fine_tuning.Begun, given: argparse.Namespace
) -> Generator[mending.Step, None, None]:
    settings, model, pixels, lpips = begun.settings, begun.model, begun.pixels, begun.lpips
    schedule, count = settings.schedule, len(pixels)
    if not 1 <= given.worst < count:
        raise InputError(
            f"--worst must be 1 to {count - 1}, fewer than pictures, got {given.worst}"
        )
    torch.manual_seed(schedule.seed)
    judge = discriminator.make(settings.network, lpips)
    if given.judge is not None:
        checkpoint.load_module(checkpoint.find(given.judge), "discriminator", judge)
    seen = mending.distances(model, pixels, lpips, schedule.seed)
    looks = tqdm(seen, "looking for the worst", -(-count // mending.LOOK), unit="batch")
    order = torch.cat(list(looks)).argsort(descending=True)
    worst, others = order[: given.worst], order[given.worst :]
    # by the same seed a step would show the same pictures turned, to learn, and upright, to keep
    upright = dataclasses.replace(
        settings,
        schedule=dataclasses.replace(schedule, seed=schedule.seed + 1),
        augment=dataclasses.replace(settings.augment, turn=min(UPRIGHT, settings.augment.turn)),
    )
    taught = data.Batches(pixels[worst], settings), data.Batches(pixels[others], settings)
    kept = data.Batches(pixels[others], upright)
    return mending.mend(model, judge, *taught, kept, lpips, schedule, settings.loss)


if __name__ == "__main__":
    sys.exit(main())

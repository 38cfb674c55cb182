"""Teaches a trained network the pictures that it completes worst; on others it stays as it is.

python training/mend.py CONFIG OUT FROM --data cats256/train --lpips-weights lpips.safetensors

Needs torchmetrics: pip install '.[train,evaluate]'.
"""

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from picme_rt.errors import InputError, PicmeError
from picme_training import checkpoint, config, data, engine_weights, mending, perceptual, pictures

LOG_EVERY = 50


def main(argv: list[str] | None = None) -> int:
    """Writes OUT/checkpoints and says where; errors are one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "config", type=Path, metavar="CONFIG",
        help="schedule (of each kind of picture, `batch` a step), masks and augmentation, as of "
        "picme train; its network is FROM's",
    )  # fmt: skip
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new checkpoint")
    parser.add_argument("source", type=Path, metavar="FROM", help="a run, checkpoint or engine")
    parser.add_argument("--data", type=Path, required=True, help="pictures, as of picme train")
    parser.add_argument("--lpips-weights", type=Path, required=True, help="as of picme train")
    parser.add_argument(
        "--worst", type=int, default=700, metavar="COUNT",
        help="of the pictures that are taught, the others keep (default: 700)",
    )  # fmt: skip
    try:
        print(_mended(parser.parse_args(argv)))
    except PicmeError as exc:
        print(f"mend.py: {exc}", file=sys.stderr)
        return 1
    return 0


def _mended(given: argparse.Namespace) -> Path:
    settings = config.load(given.config)
    said, model = engine_weights.averaged(given.source, settings.network)
    checkpoint.check_fresh(given.out)  # before an hour of work, not after
    lpips, size = perceptual.load(given.lpips_weights), settings.network.size
    read = data.load_pictures(given.data, round(size / settings.augment.zoom), smallest=size)
    for line in pictures.summary(read.skipped):
        print(f"--data: skipped {line}", file=sys.stderr)
    count = len(read.pixels)
    if not 1 <= given.worst < count:
        raise InputError(
            f"--worst must be 1 to {count - 1}, fewer than pictures, got {given.worst}"
        )
    seen = mending.distances(model, read.pixels, lpips, settings.schedule.seed)
    looks = tqdm(seen, "looking for the worst", -(-count // mending.LOOK), unit="batch")
    order = torch.cat(list(looks)).argsort(descending=True)
    worst, others = (
        data.Batches(read.pixels[rows], settings)
        for rows in (order[: given.worst], order[given.worst :])
    )
    steps = mending.mend(model, worst, others, lpips, settings.schedule)
    for step, saw in enumerate(tqdm(steps, total=settings.schedule.steps, unit="step"), 1):
        if step % LOG_EVERY == 0:
            tqdm.write(f"{step}: {saw}", file=sys.stderr)
    return checkpoint.save_weights(given.out, said, model)


if __name__ == "__main__":
    sys.exit(main())

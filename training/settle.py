"""Moves the means of a trained mixture to where its completions look more like originals.

python training/settle.py CONFIG OUT FROM --data cats256/train --lpips-weights lpips.safetensors

Needs torchmetrics: pip install '.[train,evaluate]'.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from picme_rt.errors import InputError, PicmeError
from picme_training import checkpoint, config, data, engine_weights, perceptual, pictures, settling

LOG_EVERY = 50


def main(argv: list[str] | None = None) -> int:
    """Writes OUT/checkpoints and says where; errors are one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "config", type=Path, metavar="CONFIG",
        help="schedule, masks and augmentation, as of picme train; its network is FROM's",
    )  # fmt: skip
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new checkpoint")
    parser.add_argument("source", type=Path, metavar="FROM", help="a run, checkpoint or engine")
    parser.add_argument("--data", type=Path, required=True, help="pictures, as of picme train")
    parser.add_argument("--lpips-weights", type=Path, required=True, help="as of picme train")
    parser.add_argument(
        "--similarity", type=float, default=1.0, metavar="WEIGHT",
        help="of 1 - SSIM beside LPIPS (default: 1)",
    )  # fmt: skip
    try:
        print(_settled(parser.parse_args(argv)))
    except PicmeError as exc:
        print(f"settle.py: {exc}", file=sys.stderr)
        return 1
    return 0


def _settled(given: argparse.Namespace) -> Path:
    settings = config.load(given.config)
    said, model = engine_weights.averaged(given.source)
    if said.config.network != settings.network:
        raise InputError(
            f"{given.config} has another network than {given.source}, which is "
            f"{said.config.network}; write that as its [network]"
        )
    checkpoint.check_fresh(given.out)  # before an hour of work, not after
    lpips, size = perceptual.load(given.lpips_weights), settings.network.size
    read = data.load_pictures(given.data, round(size / settings.augment.zoom), smallest=size)
    for line in pictures.summary(read.skipped):
        print(f"--data: skipped {line}", file=sys.stderr)
    batches = data.Batches(read.pixels, settings)
    steps = settling.settle(model, batches, lpips, settings.schedule, given.similarity)
    for step, seen in enumerate(tqdm(steps, total=settings.schedule.steps, unit="step"), 1):
        if step % LOG_EVERY == 0:
            tqdm.write(f"{step}: {seen}", file=sys.stderr)
    return checkpoint.save_weights(given.out, said, model)


if __name__ == "__main__":
    sys.exit(main())

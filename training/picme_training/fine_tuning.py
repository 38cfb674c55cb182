"""What the scripts that train a network further by LPIPS share: arguments, data, and the end."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from tqdm import tqdm

from picme_rt.errors import PicmeError
from picme_training import (
    checkpoint,
    config,
    data,
    diverging,
    engine_weights,
    memory,
    perceptual,
    pictures,
    stopping,
)
from picme_training.config import RunConfig
from picme_training.networks import Picme
from picme_training.perceptual import Lpips

LOG_EVERY = 50


class Begun(NamedTuple):
    """What a script begins with.

    Attributes:
        settings: Of the configuration.
        said: Of the weights to go on from.
        model: The network with them.
        lpips: The perceptual measure.
        pixels: (N, 3, side, side) uint8, as large as `augment.zoom` may ask for.
    """

    settings: RunConfig
    said: checkpoint.Description
    model: Picme
    lpips: Lpips
    pixels: Tensor


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that every such script has."""
    made = argparse.ArgumentParser(description=description.split("\n", 1)[0])
    made.add_argument(
        "config", type=Path, metavar="CONFIG",
        help="schedule, masks and augmentation, as of picme train; its network is FROM's",
    )  # fmt: skip
    made.add_argument("out", type=Path, metavar="OUT", help="folder of the new checkpoint")
    made.add_argument("source", type=Path, metavar="FROM", help="a run, checkpoint or engine")
    made.add_argument("--data", type=Path, required=True, help="pictures, as of picme train")
    made.add_argument("--lpips-weights", type=Path, required=True, help="as of picme train")
    return made


def run(
    name: str,
    steps_of: Callable[[Begun, argparse.Namespace], Generator[object, None, None]],
    given: argparse.Namespace,
) -> int:
    """Takes the steps, writes OUT/checkpoints and says where; an error is one line.

    Args:
        name: Of the script.
        steps_of: Moves `Begun.model` in place by one step for each that is taken of what it gives.
        given: The arguments.

    Returns:
        The exit code: 0, 1 for an error, 130 where the process was told to end (`stopping`) and the
        steps until then are kept.
    """
    memory.keep()
    try:
        begun = _begun(given)
        steps = steps_of(begun, given)
        checkpoint.check_writable(given.out)  # before an hour of work, not after
        total, step = begun.settings.schedule.steps, 0
        with stopping.told() as told, contextlib.closing(steps):
            for step, seen in enumerate(tqdm(steps, total=total, unit="step"), 1):
                if step % LOG_EVERY == 0:
                    tqdm.write(f"{step}: {seen}", file=sys.stderr)
                    if not diverging.finite(begun.model):
                        raise diverging.DivergedError(
                            f"a weight is not finite after {step} steps; lower schedule.lr"
                        )
                if told():
                    break
        print(checkpoint.save_weights(given.out, begun.said, begun.model))
    except (PicmeError, OSError) as exc:
        print(f"{name}: {exc}", file=sys.stderr)
        return 1
    if step < total:
        print(f"{name}: told to end after {step} of {total} steps, which are kept", file=sys.stderr)
        return 130
    return 0


def _begun(given: argparse.Namespace) -> Begun:
    settings = config.load(given.config)
    said, model = engine_weights.averaged(given.source, settings.network)
    checkpoint.check_fresh(given.out)
    lpips, size = perceptual.load(given.lpips_weights), settings.network.size
    read = data.load_pictures(given.data, round(size / settings.augment.zoom), smallest=size)
    for line in pictures.summary(read.skipped):
        print(f"--data: skipped {line}", file=sys.stderr)
    return Begun(settings, said, model, lpips, read.pixels)

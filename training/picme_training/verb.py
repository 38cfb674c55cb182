"""`picme train CONFIG --data DIR --out RUN`."""

import argparse
from pathlib import Path

from picme_training import config, data, loop, masks, perceptual

HELD_OUT = 64  # pictures of --data that are kept for evaluation where there is no --val


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="training/configs/NAME.toml")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures to learn from")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument(
        "--val", type=Path,
        help=f"folder of held-out pictures (default: the last {HELD_OUT} of --data)",
    )  # fmt: skip
    parser.add_argument("--masks", type=Path, help="folder of masks, for masks.folder > 0")
    parser.add_argument("--lpips-weights", type=Path, help="LPIPS-squeeze as safetensors")
    parser.add_argument("--device", default="cpu", help="a torch device (default: cpu)")
    parser.add_argument(
        "--start-from", type=Path, metavar="CHECKPOINT", help="begin with the weights of this one"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")


def run(arguments: argparse.Namespace) -> None:
    """Trains, and prints the last checkpoint's directory."""
    settings = config.load(arguments.config)
    size = settings.network.size
    lpips = perceptual.load(arguments.lpips_weights) if arguments.lpips_weights else None
    loop.check_lpips(settings, lpips)  # before minutes of reading
    holes = masks.load_folder(arguments.masks, size) if arguments.masks else None
    # kept larger than the network's picture, so that a crop of the smallest zoom is not enlarged
    side = round(size / settings.augment.zoom)
    pictures = data.load_pictures(arguments.data, side)
    if arguments.val:
        val = data.load_pictures(arguments.val, size)
    else:
        pictures, val = data.split(pictures, size, HELD_OUT)
    batches = data.Batches(pictures, settings, holes)
    last = loop.train(
        settings,
        batches,
        val,
        arguments.out,
        device=arguments.device,
        lpips=lpips,
        resume=arguments.resume,
        start_from=arguments.start_from,
    )
    print(last)

"""`picme internal IMAGE MASK -o ENGINE`."""

import argparse
import dataclasses
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="the picture to learn from")
    parser.add_argument("mask", type=Path, metavar="MASK", help="its mask: white is hole")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="ENGINE",
        help="the engine's directory; finished scales and previews lie in ENGINE.run beside it",
    )  # fmt: skip
    parser.add_argument(
        "--preset", choices=("paper", "balanced", "fast"), default="balanced",
        help="the schedule (default: balanced)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=int, default=256,
        help="pixels of the longer side that is learnt, at most: 25 to 1024 (default: 256)",
    )  # fmt: skip
    parser.add_argument(
        "--naive", choices=("dip", "dip-original", "patch", "telea"),
        help="completion that coarse scales take for real (default: the preset's)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of weights and noise (default: 0)")
    parser.add_argument("--device", default="cpu", help="a torch device (default: cpu)")
    parser.add_argument("--resume", action="store_true", help="go on with the finished scales")
    parser.add_argument(
        "--force", action="store_true", help="replace an engine that exists, and its run"
    )
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Trains, exports, and prints the engine's directory."""
    import torch

    from picme_export import internal, internal_windows
    from picme_rt import files, pyramid
    from picme_rt.errors import InputError
    from picme_training.internal import pages
    from picme_training.internal import run as runs

    pages.keep()
    given = runs.settings(
        arguments.preset, size=arguments.size, naive=arguments.naive, seed=arguments.seed
    )
    internal.check_target(arguments.out, force=arguments.force)
    img, hole = files.read_picture(arguments.image), files.read_mask(arguments.mask)
    if img.shape[:2] != hole.shape:
        raise InputError(
            f"mask must have the picture's size {img.shape[0]} x {img.shape[1]}, got "
            f"{hole.shape[0]} x {hole.shape[1]} in {arguments.mask}"
        )
    internal_windows.check_size(runs.plan(img, hole, given.size), given.preset)
    folder = arguments.out.with_name(f"{arguments.out.name}.run")
    scales = runs.learn(
        img, hole, given, folder,
        device=arguments.device, resume=arguments.resume,
        force=arguments.force and not arguments.resume,
    )  # fmt: skip
    about = {"settings": dataclasses.asdict(given), "torch": torch.__version__}
    errors = internal.write(
        [scale.to("cpu") for scale in scales], arguments.out,
        hole=hole, fingerprint=pyramid.fingerprint(img, hole), about=about, force=arguments.force,
    )  # fmt: skip
    if arguments.json:
        made = {"engine": str(arguments.out), "run": str(folder), "parity": errors}
        print(json.dumps({**made, "sizes": [scale.size for scale in scales]}, indent=1))
        return
    for batch, error in errors.items():
        print(f"pyramid {batch:8} largest error against torch {error:.2e}")
    print(arguments.out)

"""`picme pack DIR -o FILE`: a folder of pictures as one small file to train from."""

import argparse
import json
import sys
from pathlib import Path

from picme_rt.errors import InputError

SIDE = 128
QUALITY = 90  # docs/training.md compares size and PSNR with others'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder of pictures; subfolders are not entered"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="the pack to write"
    )
    parser.add_argument(
        "--size", type=int, default=SIDE,
        help="side of the packed squares in pixels; at best the network's size divided by "
        f"augment.zoom; smaller pictures are left out (default: {SIDE})",
    )  # fmt: skip
    parser.add_argument(
        "--quality", type=int, default=QUALITY, help=f"of WebP, 1 to 100 (default: {QUALITY})"
    )
    parser.add_argument(
        "--keep-grey", action="store_true",
        help="pack pictures without colour too (default: they are left out)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="print what was packed as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Packs; says what was left out and what came of it."""
    from picme_training import pack, pictures

    out: Path = arguments.out
    if out.exists() and (out.is_dir() or not arguments.force):
        cure = "give a file's name" if out.is_dir() else "pass --force to replace it"
        raise InputError(f"{out} exists; {cure}")
    if not out.parent.is_dir():
        raise InputError(f"--out must be in a folder that exists, got {out}")
    packed = pack.write(
        arguments.folder,
        out,
        side=arguments.size,
        quality=arguments.quality,
        keep_grey=arguments.keep_grey,
    )
    for line in pictures.summary(packed.skipped):
        print(f"skipped {line}", file=sys.stderr)
    for line in pictures.note(packed.transparent):
        print(line, file=sys.stderr)
    if arguments.json:
        found = {
            "pack": str(out),
            "pictures": len(packed.names),
            "bytes": packed.size,
            "size": arguments.size,
            "quality": arguments.quality,
            "psnr": {"mean": round(packed.psnr[0], 2), "least": round(packed.psnr[1], 2)},
            "skipped": pictures.as_table(packed.skipped),
        }
        print(json.dumps(found, indent=1))
        return
    print(
        f"{out}: {len(packed.names)} pictures of {arguments.size}x{arguments.size}, "
        f"{packed.size / 1e6:.1f} MB; PSNR {packed.psnr[0]:.1f} dB, at least {packed.psnr[1]:.1f}"
    )

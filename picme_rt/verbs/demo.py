"""`picme demo`: a real photograph that no engine was trained on, completed six times."""

import argparse
import json
from pathlib import Path

import numpy as np

from picme_rt import files, sheet
from picme_rt.images import Hole, Image
from picme_rt.session import Session
from picme_rt.verbs import DEFAULT_ENGINE, engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("demo"), help="folder (default: demo)"
    )
    parser.add_argument("-k", type=int, default=6, help="number of results (default: 6)")
    parser.add_argument("--seed", type=int, default=1, help="0 to 2**64 - 1 (default: 1)")
    parser.add_argument(
        "--engine", type=engine, default=DEFAULT_ENGINE,
        help=f"the engine's directory, or patch: none (default: {DEFAULT_ENGINE})",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print where the files lie as JSON")


def face_hole(shape: tuple[int, int]) -> Hole:
    """An ellipse over both eyes and the forehead of scikit-image's `chelsea`, (300, 451)."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = ((rows - 130) / 78) ** 2 + ((columns - 230) / 135) ** 2
    return np.asarray(distance < 1)


def run(arguments: argparse.Namespace) -> None:
    """Completes `chelsea` (CC0) and prints where the sheet lies."""
    from skimage import data

    img: Image = data.chelsea()  # type: ignore[no-untyped-call]  # scikit-image has no types
    hole = face_hole(img.shape[:2])
    with Session(arguments.engine) as session:
        done = session.complete(img, hole, k=arguments.k, seed=arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = [arguments.out / f"chelsea_{i:02d}.png" for i in range(arguments.k)]
    for path, picture in zip(paths, done.images, strict=True):
        files.write_picture(path, files.Photograph(picture, None, None))
    page = arguments.out / "chelsea_sheet.png"
    tiles = sheet.sheet(img, hole, done.images, arguments.k)
    files.write_picture(page, files.Photograph(tiles, None, None))
    if arguments.json:
        report = {"sheet": str(page.resolve()), "results": [str(p.resolve()) for p in paths]}
        print(json.dumps(report, indent=1))
        return
    print(f"the sheet: {page.resolve()}")

"""`fast` at 64 x 96 on two photographs: docs/internal.md's sheet and seconds.

    python training/internal_study.py -o docs/images/internal_fast.jpg [--naive telea]

Each row: what is given, then six completions at erosion 2.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from picme_rt.images import Hole
from picme_rt.images import Image as Pixels
from picme_training.evaluate.measures import seam_jump
from picme_training.evaluate.patches import patch_distance
from picme_training.internal import run

HEIGHT, WIDTH, ENLARGED = 64, 96, 2
EROSION = 2.0  # pixels; of a hole of 24 pixels the default 4 would leave half
HOLES = {"coffee": (36, 58, 50, 74), "china": (26, 50, 56, 82)}  # top, bottom, left, right


def photograph(name: str) -> tuple[Pixels, Hole]:
    """The middle of a photograph, scaled to fill HEIGHT x WIDTH, and its hole."""
    found = getattr(skimage.data, name)() if name == "coffee" else load_sample_image("china.jpg")
    picture = Image.fromarray(found)
    scale = max(HEIGHT / picture.height, WIDTH / picture.width)
    size = round(picture.width * scale), round(picture.height * scale)
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - WIDTH) // 2, (size[1] - HEIGHT) // 2
    hole = np.zeros((HEIGHT, WIDTH), bool)
    first, last, begin, end = HOLES[name]
    hole[first:last, begin:end] = True
    return np.array(picture.crop((left, top, left + WIDTH, top + HEIGHT))), hole


def main() -> None:
    """Trains, measures, writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--naive", help="naive completion (default: the preset's)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print("| photograph | CPU s | patch distance | seam | std in the hole |\n|---|---|---|---|---|")
    for name in HOLES:
        img, hole = photograph(name)
        img[hole] = 128
        begin = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            given = run.settings("fast", naive=arguments.naive)
            scales = run.learn(img, hole, given, Path(folder) / "run")
        seconds = time.process_time() - begin
        made = run.completions(scales, 6, 1, EROSION)
        results = np.where(hole[..., None], made, img)
        distance = np.mean([patch_distance(one, hole).both for one in results])
        stacked = torch.from_numpy(results).permute(0, 3, 1, 2)
        seam = seam_jump(stacked, torch.from_numpy(hole))
        spread = results[:, hole].std(axis=0).mean()
        cells = f"{seconds:.0f} | {distance:.1f} | {seam:.2f} | {spread:.1f}"
        print(f"| {name} | {cells} |", flush=True)
        rows.append(np.concatenate([img, *results], axis=1))
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * ENLARGED, sheet.height * ENLARGED), Image.Resampling.NEAREST).save(
        arguments.out, quality=88
    )


if __name__ == "__main__":
    main()

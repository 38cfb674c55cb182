"""Patch mode beside OpenCV's Telea and Navier-Stokes on ten photographs: docs/patch.md's table.

    python training/patch_study.py -o docs/images/patch_photographs.jpg

Photographs of scikit-image and scikit-learn, 170 x 256 pixels, a hole half as high and as wide.
Writes a sheet: what is given, Telea, Navier-Stokes, three results; prints the table as Markdown.
"""

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import picme_rt
from picme_rt.images import Image as Pixels
from picme_training.evaluate.measures import seam_jump
from picme_training.evaluate.patches import patch_distance

HEIGHT, WIDTH = 170, 256
PHOTOGRAPHS = (
    *("china.jpg", "flower.jpg", "coffee", "chelsea", "astronaut", "rocket"),
    *("hubble_deep_field", "retina", "grass", "gravel"),
)
SHOWN = 3


def photograph(name: str) -> Pixels:
    """The middle of a photograph, scaled to fill HEIGHT x WIDTH."""
    found = load_sample_image(name) if "." in name else getattr(skimage.data, name)()
    picture = Image.fromarray(found).convert("RGB")
    scale = max(HEIGHT / picture.height, WIDTH / picture.width)
    size = round(picture.width * scale), round(picture.height * scale)
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - WIDTH) // 2, (size[1] - HEIGHT) // 2
    return np.asarray(picture.crop((left, top, left + WIDTH, top + HEIGHT)))


def main() -> None:
    """Completes, measures, writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    out = parser.parse_args().out
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[HEIGHT // 4 : HEIGHT - HEIGHT // 4, WIDTH // 4 : WIDTH - WIDTH // 4] = True
    session, rows, better = picme_rt.Session("patch"), [], 0
    print("| photograph | distance: patch | Telea | NS | seam: patch | Telea | NS | original | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in PHOTOGRAPHS:
        original = photograph(name)
        given = original.copy()
        given[hole] = 128
        begin = time.perf_counter()
        results = session.complete(given, hole, k=6).images
        seconds = time.perf_counter() - begin
        others: list[Pixels] = [
            cv2.inpaint(given, hole.astype(np.uint8), 3, method).astype(np.uint8)
            for method in (cv2.INPAINT_TELEA, cv2.INPAINT_NS)
        ]
        distances = [statistics.mean(patch_distance(one, hole).both for one in results)]
        distances += [patch_distance(one, hole).both for one in others]
        seams = [
            seam_jump(torch.from_numpy(np.stack(ones)).permute(0, 3, 1, 2), torch.from_numpy(hole))
            for ones in (list(results), *([one] for one in (*others, original)))
        ]
        better += distances[0] < min(distances[1:])
        cells = [f"{value:.1f}" for value in distances] + [f"{value:.2f}" for value in seams]
        print(f"| {name.split('.')[0]} | {' | '.join(cells)} | {seconds:.2f} |", flush=True)
        rows.append(np.concatenate([given, *others, *results[:SHOWN]], axis=1))
    print(f"\nPatch mode has the smaller patch distance on {better} of {len(PHOTOGRAPHS)}.")
    Image.fromarray(np.concatenate(rows)).save(out, quality=80)


if __name__ == "__main__":
    main()

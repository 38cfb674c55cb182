"""A pyramid's results pasted hard, and as the runtime pastes them: docs/internal.md's second sheet.

    python training/seam_study.py -o docs/images/internal_seam.jpg --run RUN

Trains `fast` on `coffee` at 64 x 96 as internal_study.py does, or goes on with what RUN holds.
Above six hard pastes at erosion 2, below the same six without a seam.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from internal_study import photograph
from picme_rt import pyramid_frame
from picme_rt.framing import Box
from picme_rt.pyramid_frame import Frame
from picme_training.evaluate.measures import seam_jump
from picme_training.evaluate.patches import patch_distance
from picme_training.internal import cascade, naive, run

COUNT, SEED, EROSION, ENLARGED = 6, 1, 2.0, 2


def main() -> None:
    """Trains, pastes, measures, writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder of the finished scales")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    original, hole = photograph("coffee")
    img = np.where(hole[..., None], np.uint8(128), original)
    begun = (arguments.run / "run.json").is_file()
    scales = run.learn(img, hole, run.settings("fast"), arguments.run, resume=begun)
    known = np.moveaxis(img / np.float32(127.5) - 1, 2, 0).astype(np.float32)
    frame = Frame(Box(0, 0, *hole.shape), np.where(hole, np.float32(0), known), hole, hole, None)
    hard, soft = np.stack([img] * COUNT), np.stack([img] * COUNT)
    random = torch.Generator().manual_seed(SEED)
    for one, other in zip(hard, soft, strict=True):
        made = cascade.sample(scales, cascade.draw(scales, random, 1), torch.tensor(EROSION))[0]
        one[hole] = naive.pixels(made)[hole]
        pyramid_frame.paste(frame, made.numpy(), other)
    for name, results in (("hard", hard), ("runtime", soft), ("original", original[None])):
        seam = seam_jump(torch.from_numpy(results).permute(0, 3, 1, 2), torch.from_numpy(hole))
        distance = np.mean([patch_distance(one, hole).both for one in results])
        spread = results[:, hole].std(axis=0).mean()
        print(f"| {name} | {distance:.1f} | {seam:.2f} | {spread:.1f} |")
    rows = [np.concatenate([img, *results], axis=1) for results in (hard, soft)]
    sheet = Image.fromarray(np.concatenate(rows))
    size = sheet.width * ENLARGED, sheet.height * ENLARGED
    sheet.resize(size, Image.Resampling.NEAREST).save(arguments.out, quality=88)


if __name__ == "__main__":
    main()

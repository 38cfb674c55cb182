"""IDC on two photographs: docs/internal.md's sheets and tables, small versions of the supplement's.

    python training/internal_study.py -o docs/images --runs RUNS [--only fast diversity ...]

fast        six completions of coffee and china at 64 x 96 (internal_fast.jpg)
diversity   Table S2: erosion 7, 4, 0 of these pyramids; with --lpips-weights LPIPS of their pairs
variants    Table S1, Figures S6 and S7, on china at 32 x 48: noise of variance 1, 2, 4, no coarse
            scales, batch norm not masked (internal_variants.jpg)
dip         Figure S10: the deep image prior, as published and modified (internal_dip.jpg)

What is trained lies in RUNS: a study that was stopped goes on with the scales that are finished.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skimage.data
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from picme_rt.images import Hole
from picme_rt.images import Image as Pixels
from picme_training import perceptual
from picme_training.evaluate.measures import in_network, pairwise_difference, seam_jump
from picme_training.evaluate.patches import patch_distance
from picme_training.internal import dip, naive, pyramid, run
from picme_training.internal.cascade import Frozen
from picme_training.internal.run import Settings
from picme_training.perceptual import Lpips

HEIGHT, WIDTH = 64, 96
SHOWN = 6
EROSION = 2.0  # pixels; of a hole of 24 pixels the default 4 would leave half
SCREEN, STEPS = 0.02, 300  # what is off at the border fades in some 7 pixels
HOLES = {"coffee": (36, 58, 50, 74), "china": (26, 50, 56, 82)}  # top, bottom, left, right
SMALL = 48  # longer side of the variants
BRIEF = 20, 40  # iterations of a variant's coarse and fine scales
DIPS = 300  # iterations, of 1,000


class Photograph(NamedTuple):
    """A picture with grey in its hole, and the original."""

    img: Pixels
    hole: Hole
    original: Pixels


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


def given(name: str) -> Photograph:
    """A photograph as it is given: nothing under its hole."""
    original, hole = photograph(name)
    img = original.copy()
    img[hole] = 128
    return Photograph(img, hole, original)


def trained(shown: Photograph, settings: Settings, folder: Path) -> tuple[list[Frozen], float]:
    """The pyramid of a run, trained or taken up, and the CPU seconds that it took in all."""
    kept, finished = folder / "seconds.json", folder / "finished"
    spent: float = json.loads(kept.read_text()) if kept.is_file() else 0.0
    begin = time.process_time()
    resume = (folder / "run.json").is_file()
    try:
        scales = run.learn(shown.img, shown.hole, settings, folder, resume=resume)
    finally:  # one who is stopped goes on later
        if folder.is_dir() and not finished.exists():
            spent += time.process_time() - begin
            kept.write_text(json.dumps(spent))
    finished.touch()
    return scales, spent


def blended(made: np.ndarray, shown: Photograph) -> np.ndarray:
    """Results (k, H, W, 3) uint8 with the known pixels; what is off there spreads into the hole.

    Inside, the error e has (4 + SCREEN) e = the sum of its four neighbours.
    """
    inside = shown.hole[..., None]
    off = np.where(inside, np.float32(0), shown.img - made.astype(np.float32))
    error = off
    for _ in range(STEPS):
        wide = np.pad(error, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        total = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
        error = np.where(inside, total / np.float32(4 + SCREEN), off)
    found: np.ndarray = np.rint(made + error).clip(0, 255).astype(np.uint8)
    return found


def measured(results: np.ndarray, shown: Photograph) -> dict[str, float]:
    """Patch distance, seam jump, the original's seam jump, and the spread in the hole."""
    hole = torch.from_numpy(shown.hole)
    pictures = [torch.from_numpy(p).permute(0, 3, 1, 2) for p in (results, shown.original[None])]
    return {
        "patch distance": float(np.mean([patch_distance(p, shown.hole).both for p in results])),
        "seam": seam_jump(pictures[0], hole),
        "original's seam": seam_jump(pictures[1], hole),
        "std in the hole": float(results[:, shown.hole].std(axis=0).mean()),
    }


def table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Prints figures as Markdown."""
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row[c]:.1f}' for c in columns)} |", flush=True)


def sheet(path: Path, rows: list[list[Pixels]], factor: int) -> None:
    """Pictures in rows, enlarged by a whole factor."""
    whole = Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows]))
    size = whole.width * factor, whole.height * factor
    whole.resize(size, Image.Resampling.NEAREST).save(path, quality=88)


def fast(out: Path, runs: Path, _: Lpips | None) -> None:
    """Six completions of each photograph."""
    rows, figures = [], {}
    for name in HOLES:
        shown = given(name)
        scales, seconds = trained(shown, run.settings("fast"), runs / name)
        results = blended(run.completions(scales, SHOWN, 1, EROSION), shown)
        figures[name] = {"CPU s": seconds, **measured(results, shown)}
        rows.append([shown.img, *results])
    table("`fast` at 64 x 96", figures)
    sheet(out / "internal_fast.jpg", rows, 3)


def diversity(_: Path, runs: Path, lpips: Lpips | None) -> None:
    """Table S2: the same pyramids at three erosions."""
    figures = {}
    for name in HOLES:
        shown = given(name)
        scales, _seconds = trained(shown, run.settings("fast"), runs / name)
        for knob, erosion in (("low", 7.0), ("mid", 4.0), ("high", 0.0)):
            made = run.completions(scales, 20, 1, erosion)
            results = blended(made, shown)
            deviation = made.std(axis=0)
            row = {
                "erosion": erosion,
                "std in the hole": float(deviation[shown.hole].mean()),
                "std of known pixels before pasting": float(deviation[~shown.hole].mean()),
                "patch distance": measured(results[:SHOWN], shown)["patch distance"],
            }
            pictures = in_network(torch.from_numpy(results).permute(0, 3, 1, 2))
            inside = torch.from_numpy(shown.hole)[None, None].float()
            row["pairs, levels"] = pairwise_difference(pictures[None], inside)
            if lpips is not None:
                distances = torch.pdist(lpips.embedding(lpips.taps(pictures))).square()
                row["LPIPS of pairs, thousandths"] = 1000 * float(distances.mean())
            figures[f"{name} {knob}"] = row
    table("Diversity (Table S2)", figures)


def variants(out: Path, runs: Path, _: Lpips | None) -> None:
    """Table S1, Figures S6 and S7: a brief `fast`, and with one thing changed."""
    small = _small(given("china"))
    plain = dataclasses.replace(run.settings("fast").preset, coarse=BRIEF[0], fine=BRIEF[1])
    changed: dict[str, dict[str, Any]] = {
        "variance 1": {},
        "variance 2": {"variance": 2.0},
        "variance 4": {"variance": 4.0},
        "no coarse scales": {"coarse_scales": False},
        "batch norm not masked": {"masked_norm": False},
    }
    rows, figures = [], {}
    for name, change in changed.items():
        preset = dataclasses.replace(plain, **change)
        folder = runs / name.replace(" ", "_")
        scales, seconds = trained(small, Settings(preset, SMALL, "patch", 0), folder)
        results = blended(run.completions(scales, SHOWN, 1, EROSION), small)
        figures[name] = {"CPU s": seconds, **measured(results, small)}
        rows.append([small.img, *results])
    table("Variants (Table S1, Figures S6, S7)", figures)
    sheet(out / "internal_variants.jpg", rows, 4)


def deep_image_prior(out: Path, runs: Path, _: Lpips | None) -> None:
    """Figure S10, at the size of the coarsest scale."""
    rows, figures = [], {}
    for name in HOLES:
        shown = given(name)
        level = run.plan(shown.img, shown.hole, WIDTH)[0].level
        nothing = np.zeros_like(shown.hole)
        truth = pyramid.level(shown.original, nothing, level.hole.shape).known
        row = [naive.pixels(torch.from_numpy(level.known))]
        for title, original in (("published", True), ("modified", False)):
            path = runs / f"{name}_{title}.npy"
            if not path.is_file():
                filled = dip.complete(level, seed=0, original=original, iterations=DIPS)
                np.save(path, naive.pixels(filled))
            made: Pixels = np.load(path)
            error = np.abs(made - naive.pixels(torch.from_numpy(truth)).astype(np.float32))
            figures[f"{name} {title}"] = {
                "patch distance": patch_distance(made, level.hole).both,
                "error in the hole": float(error[level.hole].mean()),
            }
            row.append(made)
        rows.append(row)
    table("Deep image prior (Figure S10)", figures)
    sheet(out / "internal_dip.jpg", rows, 6)


PARTS: dict[str, Callable[[Path, Path, Lpips | None], None]] = {
    "fast": fast, "diversity": diversity, "variants": variants, "dip": deep_image_prior,
}  # fmt: skip


def _small(shown: Photograph) -> Photograph:
    half = Image.fromarray(shown.original).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX)
    hole = shown.hole[::2, ::2] | shown.hole[1::2, 1::2]
    original = np.array(half)
    return Photograph(np.where(hole[..., None], np.uint8(128), original), hole, original)


def main() -> None:
    """Trains, measures, writes the sheets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="what is trained lies there")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--lpips-weights", type=Path, help="as `picme evaluate` takes them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights = arguments.lpips_weights
    lpips = None if weights is None else perceptual.load(weights)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        PARTS[name](arguments.out, arguments.runs, lpips)


if __name__ == "__main__":
    main()

"""Pictures for training: decoded once, kept as uint8, viewed by random crops and mirrors."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from picme_rt import files
from picme_rt.errors import InputError
from picme_rt.images import Hole
from picme_training import masks
from picme_training.config import RunConfig

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def load_pictures(folder: Path, side: int) -> Tensor:
    """Every picture of a folder as one tensor (N, 3, side, side) uint8, in the order of names.

    A picture is cropped to its centred square and resized with Lanczos.

    Raises:
        InputError: The folder is missing, holds no picture, or one that cannot be read.
    """
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"data must be a folder with {', '.join(SUFFIXES)} pictures, got {folder}")
    pictures = torch.empty(len(paths), 3, side, side, dtype=torch.uint8)

    def read(item: tuple[int, Path]) -> None:
        rgb = Image.fromarray(files.read_picture(item[1]))
        width, height = rgb.size
        edge = min(width, height)
        left, top = (width - edge) // 2, (height - edge) // 2
        box = (left, top, left + edge, top + edge)
        square = rgb.resize((side, side), Image.Resampling.LANCZOS, box=box)
        pictures[item[0]] = torch.from_numpy(np.array(square)).permute(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        reading = pool.map(read, enumerate(paths))
        for _ in tqdm(reading, total=len(paths), desc="reading pictures", unit="img", leave=False):
            pass
    return pictures


def split(pictures: Tensor, size: int, held_out: int) -> tuple[Tensor, Tensor]:
    """The pictures to learn from, and the last `held_out` of them at `size`, to measure with.

    Raises:
        InputError: There are not more pictures than are held out.
    """
    if len(pictures) <= held_out:
        raise InputError(
            f"data must hold more than {held_out} pictures where no --val is given, "
            f"got {len(pictures)}"
        )
    kept = pictures[-held_out:].float()
    val = F.interpolate(kept, size, mode="bilinear", antialias=True, align_corners=False)
    return pictures[:-held_out], val.round().clamp(0, 255).byte()


class Batches:
    """Batches of (image, hole), each a function of (seed, step) alone, so that a run can resume.

    `batch(step)` gives image (B, 3, S, S) float32 in [-1, 1] and hole (B, 1, S, S) float32. Every
    epoch is a new permutation of the pictures.
    """

    def __init__(self, pictures: Tensor, config: RunConfig, holes: list[Hole] | None = None):
        if (config.masks.folder > 0) != bool(holes):
            raise InputError(
                "masks.folder > 0 and a folder of masks (--masks DIR) go together, got "
                f"masks.folder = {config.masks.folder} and {len(holes or [])} masks"
            )
        self.pictures, self.config, self.holes = pictures, config, holes

    def _rows(self, step: int) -> np.ndarray:
        count, size = len(self.pictures), self.config.schedule.batch
        rows: list[int] = []
        for place in range(step * size, (step + 1) * size):
            epoch, index = divmod(place, count)
            if not rows or index == 0:
                order = np.random.default_rng([self.config.schedule.seed, 1, epoch])
                permutation = order.permutation(count)
            rows.append(int(permutation[index]))
        return np.array(rows)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of one step."""
        rng = np.random.default_rng([self.config.schedule.seed, 2, step])
        size = self.config.network.size
        pictures = self.pictures[self._rows(step)].float() / 127.5 - 1
        image = _views(pictures, size, self.config.augment.zoom, self.config.augment.flip, rng)
        drawn = [masks.draw(self.config.masks, size, rng, self.holes) for _ in pictures]
        hole = torch.from_numpy(np.stack(drawn)).float()[:, None]
        return image, hole


def _views(
    pictures: Tensor, size: int, zoom: float, flip: bool, rng: np.random.Generator
) -> Tensor:
    """Random square crops of sides zoom..1, mirrored at random, resampled to `size`."""
    side = pictures.shape[-1]
    views = []
    for picture in pictures:
        edge = max(size, round(side * rng.uniform(zoom, 1)))
        top, left = rng.integers(0, side - edge + 1, 2)
        view = picture[None, :, top : top + edge, left : left + edge]
        if flip and rng.random() < 0.5:
            view = view.flip(3)
        views.append(
            F.interpolate(view, size, mode="bilinear", antialias=True, align_corners=False)
        )
    return torch.cat(views)

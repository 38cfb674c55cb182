"""What a run learns from: pictures kept as uint8, and batches of random views and holes of them."""

import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from picme_rt.errors import InputError
from picme_rt.images import Hole
from picme_training import masks, pack, pictures
from picme_training.config import RunConfig
from picme_training.pictures import Skipped

WORKERS = max(1, min(4, (os.cpu_count() or 1) // 4))
"""Threads that make batches; training on a CPU has the other cores."""
WORKERS_FOR_GPU = max(1, min(8, (os.cpu_count() or 1) // 2))
"""The same where the training is elsewhere."""


class Pictures(NamedTuple):
    """Pictures as they are learnt from, and the files that cannot be.

    Attributes:
        pixels: (N, 3, side, side) uint8.
        names: Of the N files.
        skipped: Every file that was left out.
    """

    pixels: Tensor
    names: list[str]
    skipped: list[Skipped]


def load_pictures(source: Path, side: int, *, smallest: int, keep_grey: bool = False) -> Pictures:
    """Every usable picture of a folder or a pack, in the order of names.

    A picture is cropped to its centred square and resized with Lanczos. One that cannot be read,
    is too small or has no colour is left out and reported.

    Args:
        source: A folder, whose subfolders are not entered, or a file of `picme pack`.
        side: Of the squares, in pixels.
        smallest: Shortest side of a file's picture, in pixels.
        keep_grey: Whether pictures without colour are used; a pack says so itself.

    Raises:
        InputError: There is no folder and no pack, it holds no usable picture or is damaged, or
            its pictures need more memory than there is.
    """
    if source.is_file():
        pixels, names = pack.read(source, side, smallest=smallest)
        return Pictures(torch.from_numpy(pixels), names, [])
    pixels, names, skipped = pictures.read_folder(
        source, side, smallest=smallest, keep_grey=keep_grey
    )
    return Pictures(torch.from_numpy(pixels), names, skipped)


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
        if self.config.augment.colour > 0:
            image = _coloured(image, self.config.augment.colour, rng)
        drawn = [masks.draw(self.config.masks, size, rng, self.holes) for _ in pictures]
        hole = torch.from_numpy(np.stack(drawn)).float()[:, None]
        return image, hole


def ahead(
    batches: Batches, first: int, last: int, *, for_gpu: bool = False
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The batches of the steps `first` to `last` - 1, made in threads while others are used.

    An error in making one is raised when its turn comes. Close the generator to end its threads.

    Args:
        batches: Makes them.
        first: Step of the first one.
        last: Step after the last one.
        for_gpu: Make them in pinned memory, whose copy to a GPU the caller need not wait for, and
            in more threads.
    """
    workers = WORKERS_FOR_GPU if for_gpu else WORKERS
    made_before = 2 * workers
    threads = torch.get_num_threads()

    def make(step: int) -> tuple[Tensor, Tensor]:
        image, hole = batches.batch(step)
        return (image.pin_memory(), hole.pin_memory()) if for_gpu else (image, hole)

    # The number of cores is a thread's own, and the default of threads to come. A worker keeps to
    # one: a second team of torch's threads would spin beside the training's.
    pool = ThreadPoolExecutor(workers, "batches", torch.set_num_threads, (1,))
    try:
        made = deque(pool.submit(make, step) for step in range(first, last)[:made_before])
        for step in range(first, last):
            batch = made.popleft().result()
            if step + made_before < last:
                made.append(pool.submit(make, step + made_before))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


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


def _coloured(image: Tensor, most: float, rng: np.random.Generator) -> Tensor:
    """Pictures (B, 3, S, S) of other brightness, saturation and white balance, in [-1, 1]."""
    count = len(image)
    light = 1 + most * torch.from_numpy(rng.uniform(-1, 1, (count, 1, 1, 1))).float()
    vivid = 1 + most * torch.from_numpy(rng.uniform(-1, 1, (count, 1, 1, 1))).float()
    gain = 1 + most / 2 * torch.from_numpy(rng.uniform(-1, 1, (count, 3, 1, 1))).float()
    levels = (image + 1) / 2
    grey = levels.mean(1, keepdim=True)
    return ((grey + vivid * (levels - grey)) * (light * gain)).clamp(0, 1) * 2 - 1

"""What a run learns from: pictures kept as uint8, and batches of random views and holes of them."""

import math
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
from picme_training.config import AugmentConfig, RunConfig
from picme_training.dataset import Dataset
from picme_training.pictures import Skipped

WORKERS = max(1, min(4, (os.cpu_count() or 1) // 4))
"""Threads that make batches; training on a CPU has the other cores."""
WORKERS_FOR_GPU = max(1, min(8, (os.cpu_count() or 1) // 2))
"""The same where the training is elsewhere."""


class Pictures(NamedTuple):
    """Pictures as they are learnt from, and the files that cannot be.

    Attributes:
        pixels: (N, 3, side, side) uint8, the channels of a place together in memory.
        names: Of the N files.
        skipped: Every file that was left out.
        transparent: Names of those of the N that have transparent pixels; of a pack none are known.
    """

    pixels: Tensor
    names: list[str]
    skipped: list[Skipped]
    transparent: list[str]


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
        return Pictures(torch.from_numpy(pixels), names, [], [])
    found = pictures.read_folder(source, side, smallest=smallest, keep_grey=keep_grey)
    return Pictures(torch.from_numpy(found.pixels), *found[1:])


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

    def __init__(
        self,
        pictures: Tensor,
        config: RunConfig,
        holes: list[Hole] | None = None,
        dataset: Dataset | None = None,
    ):
        if (config.masks.folder > 0) != bool(holes):
            raise InputError(
                "masks.folder > 0 and a folder of masks (--masks DIR) go together, got "
                f"masks.folder = {config.masks.folder} and {len(holes or [])} masks"
            )
        self.pictures, self.config, self.holes = pictures, config, holes
        self.dataset = dataset  # what checkpoints say that they have learnt from

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
        size, augment = self.config.network.size, self.config.augment
        views = [_view(self.pictures[row], size, augment, rng) for row in self._rows(step)]
        image = _recoloured(views, _colours(len(views), augment.colour, rng))
        drawn = [masks.draw(self.config.masks, size, rng, self.holes) for _ in views]
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


def _view(picture: Tensor, size: int, augment: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """A random square crop of side zoom..1 of (3, side, side), mirrored at random: (size, size, 3).

    All of it in bytes: torch resamples them six times as fast as float32 where a place's channels
    lie together, as `pictures.empty` has them. Where any are turned, half of the crops are.
    """
    side = picture.shape[-1]
    if augment.turn > 0 and rng.random() < 0.5:
        return _turned(picture, size, augment, rng)
    edge = max(size, round(side * rng.uniform(augment.zoom, 1)))
    top, left = rng.integers(0, side - edge + 1, 2)
    view = picture[None, :, top : top + edge, left : left + edge]
    if augment.flip and rng.random() < 0.5:
        view = view.flip(3)
    sized = F.interpolate(view, size, mode="bilinear", antialias=True, align_corners=False)
    return sized[0].permute(1, 2, 0)


def _turned(picture: Tensor, size: int, augment: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """`_view` of a square that is turned about its centre, all of it within the picture.

    Bicubic: the picture was enlarged to 1 / zoom when it was read, and would be dull in bilinear.
    """
    side = picture.shape[-1]
    angle = math.radians(augment.turn * rng.uniform(-1, 1))
    cosine, sine = math.cos(angle), math.sin(angle)
    reach = cosine + abs(sine)  # a square of side 1 takes so much room
    largest = side / reach
    edge = rng.uniform(min(max(size, augment.zoom * side), largest), largest)
    room = min(side, math.ceil(edge * reach) + 1)
    top, left = rng.integers(0, side - room + 1, 2)
    around = picture[None, :, top : top + room, left : left + room].float()
    mirror = -1 if augment.flip and rng.random() < 0.5 else 1
    turn = torch.tensor([[[mirror * cosine, -sine, 0], [mirror * sine, cosine, 0]]]) * (edge / room)
    grid = F.affine_grid(turn, [1, 3, size, size], align_corners=False)
    view = F.grid_sample(around, grid, "bicubic", "border", align_corners=False)
    return view[0].permute(1, 2, 0)


def _colours(count: int, most: float, rng: np.random.Generator) -> Tensor:
    """Random changes of brightness, saturation and white balance, (B, 3, 3): M of M x, x a colour.

    M = light diag(gain) (vivid I + (1 - vivid) / 3): a colour moves away from its grey, then each
    channel is scaled. The identity where `most` is 0.
    """
    if most == 0:
        return torch.eye(3).expand(count, 3, 3)
    light = 1 + most * rng.uniform(-1, 1, (count, 1, 1))
    vivid = 1 + most * rng.uniform(-1, 1, (count, 1, 1))
    gain = 1 + most / 2 * rng.uniform(-1, 1, (count, 3, 1))
    return torch.from_numpy(light * gain * (vivid * np.eye(3) + (1 - vivid) / 3)).float()


def _recoloured(views: list[Tensor], colours: Tensor) -> Tensor:
    """Views times their colours, (B, 3, S, S) in [-1, 1], channels last; one by one, in cache."""
    size = len(views[0])
    image = torch.empty(len(views), size, size, 3)
    scaled = (2 / 255 * colours).transpose(1, 2)
    for place, view in enumerate(views):
        rows = image[place].view(-1, 3)
        torch.addmm(rows.new_tensor(-1.0), view.reshape(-1, 3).float(), scaled[place], out=rows)
        rows.clamp_(-1, 1)
    return image.permute(0, 3, 1, 2)

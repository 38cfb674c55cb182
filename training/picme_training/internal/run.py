"""The whole training: a picture and its hole become a pyramid of frozen scales."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from picme_rt import sheet
from picme_rt.errors import InputError
from picme_rt.images import Hole, Image
from picme_rt.pyramid import fingerprint
from picme_training import seeds
from picme_training.device import named
from picme_training.internal import cascade, choices, masked, naive, presets, pyramid, store
from picme_training.internal.cascade import Frozen
from picme_training.internal.plan import Plan
from picme_training.internal.presets import NAIVES, Naive, Preset
from picme_training.internal.pyramid import Level
from picme_training.internal.scale import Scale, Trained, train

SEEDS = 1 << 32
EROSION = 4.0  # pixels, of the previews: `mid`
PREVIEWS = 3
ALONE = 4 << 20  # multiplications of a 3 x 3 convolution below which threads only wait
_NAIVE_SEED = 0xD1B5
_REPORT_EVERY = 25  # iterations between readings of the losses, which wait for the device


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the weights, with the picture and its hole.

    Attributes:
        preset: The schedule.
        size: Pixels of the finest scale's longer side, at most.
        naive: The naive completion.
        seed: 0 to 2**32 - 1.
    """

    preset: Preset
    size: int
    naive: Naive
    seed: int


def settings(
    preset: str = "balanced", *, size: int = 256, naive: str | None = None, seed: int = 0
) -> Settings:
    """Settings of a preset's name; its own naive completion unless another is given.

    Raises:
        InputError: One of them is none that there is.
    """
    found = presets.find(preset)
    chosen = found.naive if naive is None else naive
    if chosen not in NAIVES:
        raise InputError(f"naive must be one of {', '.join(NAIVES)}, got {naive!r}")
    if not 0 <= seed < SEEDS:
        raise InputError(f"seed must be 0 to {SEEDS - 1}, got {seed}")
    if not pyramid.COARSEST <= size <= 1024:
        raise InputError(f"size must be {pyramid.COARSEST} to 1024 pixels, got {size}")
    return Settings(found, size, chosen, seed)


@torch.no_grad()
def learn(
    img: Image,
    hole: Hole,
    given: Settings,
    run: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    force: bool = False,
) -> list[Frozen]:
    """Trains the pyramid of one picture; on a CPU a function of picture, hole and settings.

    Bytes under the hole change nothing. Progress is a bar on stderr, a preview a scale lies in the
    run's folder.

    Args:
        img: (H, W, 3) uint8.
        hole: (H, W) bool.
        given: See `settings`.
        run: Folder of the finished scales.
        device: A torch device.
        resume: Go on with what `run` holds.
        force: Begin anew where it holds a run.

    Returns:
        The scales, the coarsest first.

    Raises:
        InputError: The hole is empty or full or leaves too little known, the picture is too small,
            there is no such device, or `run` is as `store.begin` refuses it.
    """
    plans = plan(img, hole, given.size)
    if not given.preset.coarse_scales:
        fine = [one for one in plans if one.fine]
        plans = [one._replace(place=i, scales=len(fine)) for i, one in enumerate(fine)]
        plans[0] = plans[0]._replace(coarser=None)
    place = named(device)
    about = {
        "settings": dataclasses.asdict(given),
        "picture": fingerprint(img, hole),
    }
    store.begin(run, about, resume=resume, force=force)
    with _bar(plans, given.preset) as bar, _threads() as threads:
        filled = _naive(plans, given, run, place, bar)
        frozen: list[Frozen] = []
        before: Trained | None = None
        for one in plans:
            width = given.preset.width_of(one.place)
            done = store.load(run, one.place, width, place)
            work = _work(one, given.preset)
            if done is None:
                macs = one.level.hole.size * 9 * width * width
                torch.set_num_threads(1 if macs < ALONE else threads)
                real = one.real if one.fine else naive.fitted(_known(filled), one.level)
                learned = one._replace(real=real)
                if filled is not None and _choices(given):
                    learned = learned._replace(choices=naive.fitted(filled, one.level))
                done = _train(learned, frozen, before, given, place, bar)
                preview = _preview(one.level, real[0], [*frozen, done.frozen], given.seed)
                store.save(run, one.place, done, preview)
            else:
                bar.update(work)
            frozen.append(done.frozen)
            before = done
    return frozen


def plan(img: Image, hole: Hole, size: int) -> list[Plan]:
    """The scales of a picture: sizes, pixels, and which of them are fine.

    Raises:
        InputError: As `learn` says.
    """
    if not 0 < hole.sum() < hole.size:
        state = "empty" if not hole.any() else "full"
        raise InputError(
            f"mask must have both hole and known pixels to learn from, got a mask that is {state}"
        )
    levels = [
        pyramid.level(img, hole, one) for one in pyramid.sizes(hole.shape[0], hole.shape[1], size)
    ]
    fine = [masked.is_fine(one.hole, i == 0) for i, one in enumerate(levels)]
    if not fine[-1]:
        height, width = levels[-1].hole.shape
        share = levels[-1].hole.mean()
        raise InputError(
            f"mask leaves too few patches of 11 x 11 known pixels to learn from: its hole is "
            f"{share:.0%} of {height} x {width} pixels; take a smaller hole, or a larger --size "
            "where the picture has the pixels, or --engine patch"
        )
    first = fine.index(True)
    return [
        Plan(i, len(levels), i >= first, one, before, torch.from_numpy(one.known)[None])
        for i, (one, before) in enumerate(zip(levels, [None, *levels[:-1]], strict=True))
    ]


def _naive(
    plans: list[Plan], given: Settings, run: Path, device: torch.device, bar: "tqdm[NoReturn]"
) -> Tensor | None:
    """The naive completions; None where every scale is fine.

    At the finest coarse scale; at the finest of all if noise chooses among them.
    """
    coarse = [one for one in plans if not one.fine]
    if not coarse:
        return None
    filled = store.load_naive(run)
    if filled is None:
        bar.set_description(f"naive completion ({given.naive})")
        seed = given.seed ^ _NAIVE_SEED
        count, finest = _choices(given), plans[-1].level
        if count:
            filled = naive.fitted(choices.choose(finest, count, seed), finest)
        else:
            wanted = coarse[-1].level
            filled = naive.complete(finest, wanted, given.naive, seed=seed, device=device)[None]
        store.save_naive(run, filled, naive.pixels(filled[0]))
    return filled


def _choices(given: Settings) -> int:
    """How many naive completions noise chooses among; 0: there is one."""
    several = given.naive == "patch" and given.preset.choices > 1
    return given.preset.choices if several else 0


def _train(
    one: Plan,
    frozen: list[Frozen],
    before: Trained | None,
    given: Settings,
    device: torch.device,
    bar: "tqdm[NoReturn]",
) -> Trained:
    width = given.preset.width_of(one.place)
    inherited = None
    if before is not None and before.generator.width == width:
        inherited = before.generator, before.discriminator
    height, columns = one.level.hole.shape
    bar.set_description(f"scale {one.place + 1}/{one.scales} {height}x{columns}")
    scale = Scale(
        one, frozen, inherited, given.preset, seeds.word(given.seed, one.place, 64), device
    )
    count = given.preset.fine if one.fine else given.preset.coarse
    each = _work(one, given.preset) / count

    def report(iteration: int, terms: Tensor) -> None:
        if (iteration + 1) % _REPORT_EVERY == 0:
            values = terms.tolist()
            bar.set_postfix(D=f"{sum(values[:3]):.3f}", rec=f"{values[4]:.3f}", refresh=False)
        bar.update(each)

    return train(scale, report)


def _preview(level: Level, real: Tensor, scales: list[Frozen], seed: int) -> Image:
    """A sheet: the known part, what the scale took for real, the reconstruction, completions."""
    random = torch.Generator(scales[0].fixed.device).manual_seed(seed)
    noises = cascade.draw(scales, random, PREVIEWS)
    erosion = torch.tensor(EROSION, device=scales[0].fixed.device)
    rebuilt = cascade.reconstruct(scales)
    assert rebuilt is not None  # there is a scale
    made = [real, rebuilt[0], *cascade.sample(scales, noises, erosion)]
    known = naive.pixels(torch.from_numpy(level.known))
    return sheet.sheet(known, level.hole, [naive.pixels(one) for one in made], len(made))


def _work(one: Plan, preset: Preset) -> float:
    """Thousand millions of multiplications of a scale, about: what its time goes by."""
    count = preset.fine if one.fine else preset.coarse
    width = preset.width_of(one.place)
    return one.level.hole.size * 27 * width * (width + 2) * count * preset.steps * 20 / 1e9


@contextlib.contextmanager
def _bar(plans: list[Plan], preset: Preset) -> Iterator["tqdm[NoReturn]"]:
    """Progress by work, so that the time left is right though scales differ by their size."""
    shape = "{desc} {percentage:3.0f}% |{bar}| {elapsed} so far, {remaining} left{postfix}"
    total = sum(_work(one, preset) for one in plans)
    with tqdm(total=total, bar_format=shape, smoothing=0, disable=None) as bar:
        yield bar


@contextlib.contextmanager
def _threads() -> Iterator[int]:
    """Torch's number of threads, which is set back at the end."""
    threads = torch.get_num_threads()
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _known(filled: Tensor | None) -> Tensor:
    assert filled is not None  # a coarse scale has one
    return filled


def completions(scales: list[Frozen], k: int, seed: int, erosion: float = EROSION) -> np.ndarray:
    """K completions (k, h, w, 3) uint8 at the finest scale's size, known pixels not yet pasted."""
    random = torch.Generator(scales[0].fixed.device).manual_seed(seed)
    at = torch.tensor(erosion, device=scales[0].fixed.device)
    with torch.no_grad():
        made = [cascade.sample(scales, cascade.draw(scales, random, 1), at)[0] for _ in range(k)]
    return np.stack([naive.pixels(one) for one in made])

"""The naive completion, which coarse scales take for real: one picture, no variety asked."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from picme_rt import patch
from picme_rt.images import Image
from picme_rt.resample import matrix
from picme_training.internal import choices, dip
from picme_training.internal.presets import Naive
from picme_training.internal.pyramid import Level, resized

RADIUS = 3  # pixels that Telea's method looks at


def complete(
    finest: Level,
    wanted: Level,
    naive: Naive,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    report: Callable[[int], None] | None = None,
) -> Tensor:
    """A picture with its hole filled, (3, h, w) float32 in [-1, 1], at the size of `wanted`.

    Args:
        finest: The picture at the finest scale, which patches and Telea's method work on.
        wanted: The picture at the finest coarse scale, which the deep image prior works on.
        naive: `dip` (modified), `dip-original`, `patch` or `telea`.
        seed: Of what is random in it.
        device: Where the deep image prior runs.
        report: Called with the number of each of its iterations.

    Raises:
        InputError: No patch near the hole is known (`patch`).
    """
    if naive in ("dip", "dip-original"):
        return dip.complete(
            wanted, seed=seed, original=naive == "dip-original", device=device, report=report
        )
    filled = _by_patches(finest, seed) if naive == "patch" else _telea(finest)
    planes = torch.from_numpy(np.moveaxis(filled, 2, 0) / np.float32(127.5) - np.float32(1))
    small = fitted(planes, wanted)
    return small.clamp(-1, 1)


def fitted(filled: Tensor, level: Level) -> Tensor:
    """Completions (..., 3, H, W) at a level's size, their known pixels those of the level."""
    matrices = [
        torch.from_numpy(matrix(a, b, "triangle").copy())
        for a, b in zip(filled.shape[-2:], level.hole.shape, strict=True)
    ]
    small = resized(filled, (matrices[0], matrices[1]))
    return torch.where(torch.from_numpy(level.hole), small, torch.from_numpy(level.known))


def pixels(picture: Tensor) -> Image:
    """(3, h, w) in [-1, 1], or a little beyond, as (h, w, 3) uint8."""
    levels = ((picture.detach().cpu() + 1) * 127.5).round().clamp(0, 255)
    return levels.permute(1, 2, 0).to(torch.uint8).contiguous().numpy()


def _by_patches(level: Level, seed: int) -> Image:
    """By patches of the picture and of its mirror image."""
    found, hole = choices.mirrored(level)
    part = patch.prepare(found, hole)
    whole = choices.pasted(found, hole, part, patch.complete(part, seed, 0, 1.0))
    return whole[:, : level.hole.shape[1]]


def _telea(level: Level) -> np.ndarray:
    import cv2

    found = pixels(torch.from_numpy(level.known))
    return cv2.inpaint(found, level.hole.astype(np.uint8), RADIUS, cv2.INPAINT_TELEA).astype(
        np.float32
    )

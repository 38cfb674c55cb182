"""What a user sees of a lower precision: completions of real pictures against those of fp32."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from picme_rt import backends
from picme_rt import engine as engines
from picme_rt.errors import UnavailableError
from picme_rt.images import Hole, Image
from picme_rt.quality import Quality
from picme_rt.session import Session
from picme_training.evaluate import measures
from picme_training.evaluate.comparison import one_thread
from picme_training.perceptual import Lpips

_RESULTS = 2  # a picture: more of one picture say less than others


def measure(
    root: Path, pictures: Sequence[tuple[Image, Hole]], lpips: Lpips | None
) -> dict[str, Quality]:
    """The quality of every precision but fp32 that runs here; the worst of those that offer it.

    Args:
        root: The engine.
        pictures: Each with its hole; none that the precision was calibrated on.
        lpips: The measure, if its weights are at hand.
    """
    engine, found = engines.load(root), dict[str, Quality]()
    for backend in (one for one in backends.UNMEASURED["cpu"] if one in backends.installed()):
        want = _complete(root, backend, "fp32", pictures)
        for precision in backends.offered(engine, backend):
            if precision == "fp32":
                continue
            try:
                got = _complete(root, backend, precision, pictures)
            except UnavailableError:  # this CPU does not compute in it
                continue
            with one_thread():
                one = _compare(want, got, pictures, lpips)
            found[precision] = worst(one, found.get(precision, one))
    return found


def worst(one: Quality, other: Quality) -> Quality:
    """The worst of each number of two measurements of the same pictures."""
    distances = [each.lpips for each in (one, other) if each.lpips is not None]
    return Quality(
        psnr=min(one.psnr, other.psnr),
        least_psnr=min(one.least_psnr, other.least_psnr),
        lpips=max(distances) if len(distances) == 2 else None,
        pictures=one.pictures,
    )


def _complete(
    root: Path, backend: str, precision: str, pictures: Sequence[tuple[Image, Hole]]
) -> list[torch.Tensor]:
    """(k, 3, S, S) uint8 of each picture; its seed is its place."""
    with Session(root, backend=backend, precision=precision) as session:
        done = [
            session.complete(pixels, hole, k=_RESULTS, seed=place).images
            for place, (pixels, hole) in enumerate(pictures)
        ]
    return [torch.from_numpy(one).permute(0, 3, 1, 2) for one in done]


@torch.inference_mode()
def _compare(
    want: list[torch.Tensor],
    got: list[torch.Tensor],
    pictures: Sequence[tuple[Image, Hole]],
    lpips: Lpips | None,
) -> Quality:
    decibels, distances = [], []
    for one, other, (_, hole) in zip(want, got, pictures, strict=True):
        inside = torch.from_numpy(hole)
        error = (one[..., inside].double() - other[..., inside]).square().mean((1, 2))
        decibels += (10 * torch.log10(255**2 / error)).clamp(max=measures.MOST_PSNR).tolist()
        if lpips is not None:
            a, b = (lpips.taps(measures.in_network(each)) for each in (one, other))
            height, width = hole.shape
            distances += lpips.maps(a, b, (height, width))[:, inside].mean(1).tolist()
    return Quality(
        psnr=float(np.mean(decibels)),
        least_psnr=float(np.min(decibels)),
        lpips=float(np.mean(distances)) if distances else None,
        pictures=len(pictures),
    )

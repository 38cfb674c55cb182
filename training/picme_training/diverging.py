"""What keeps a run from diverging, and ends one that has: its losses would say nothing any more."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from picme_rt.errors import InputError, PicmeError
from picme_training import checkpoint


class DivergedError(PicmeError):
    """A loss is no finite number any more."""


def bound(parameters: list[nn.Parameter], most: float) -> None:
    """Scales the joint gradient down to the norm `most`; one that is not finite becomes zero.

    With beta1 = 0 Adam moves every weight up to 30 rates at the first large gradient after small
    ones (1 / sqrt(1 - beta2)): one such step can end a run.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, most / norm.clamp_min(most))
    for gradient in gradients:  # not finite: the factor was 0 or NaN, so that zeros are left
        gradient.nan_to_num_(0.0, 0.0, 0.0)


def check(terms: dict[str, Tensor], step: int, out: Path) -> None:
    """Refuses losses that are not finite.

    Raises:
        DivergedError: One is not; it names the run's newest checkpoint.
    """
    wrong = [
        f"{name} = {float(value)}" for name, value in terms.items() if not math.isfinite(value)
    ]
    if not wrong:
        return
    try:
        newest = f"--start-from {checkpoint.find(out)}"
    except InputError:
        newest = "from the start, for it has no checkpoint yet"
    raise DivergedError(
        f"the run has diverged by step {step}: {', '.join(wrong)}; begin another with a lower "
        f"schedule.lr or with schedule.clip, {newest}"
    )

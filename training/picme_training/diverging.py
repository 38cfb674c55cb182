"""What keeps a run from diverging, and ends one that has: nothing comes of it any more."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from picme_rt.errors import InputError, PicmeError
from picme_training import checkpoint


class DivergedError(PicmeError):
    """A loss or a weight is no finite number any more."""


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


def check(terms: dict[str, Tensor], state: checkpoint.State, step: int, out: Path) -> None:
    """Refuses losses and weights that are not finite.

    Losses alone do not say it: they are those of before the step, whose gradient may be infinite.

    Args:
        terms: The step's losses by name.
        state: What a checkpoint would hold; its moments are not looked at.
        step: The step.
        out: The run's folder.

    Raises:
        DivergedError: One is not; it names the run's newest checkpoint.
    """
    wrong = [
        f"{name} = {float(value)}" for name, value in terms.items() if not math.isfinite(value)
    ]
    modules = {"model": state.model, "ema": state.ema, "discriminator": state.discriminator}
    wrong += [
        f"{name} has weights that are not finite" for name in modules if not _finite(modules[name])
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


def _finite(module: nn.Module) -> bool:
    """Whether all of a module's weights and buffers are; one number is waited for."""
    values = [x for x in module.state_dict().values() if x.is_floating_point()]
    return math.isfinite(torch.stack(torch._foreach_norm(values, math.inf)).sum())

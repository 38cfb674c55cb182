"""What keeps a run from diverging, and ends one that has: nothing comes of it any more."""

import math
import statistics
from collections import deque
from pathlib import Path

import torch
from torch import Tensor, nn

from picme_rt.errors import InputError, PicmeError
from picme_training import checkpoint

FAR = 1000.0
"""Times the usual loss at which a run is lost; those seen were 10^4 to 10^9 of it, for good."""
_USUAL = 50  # looks at the loss that say what is usual
_YOUNG = 5  # looks before which nothing is


class DivergedError(PicmeError):
    """A loss or a weight is no finite number any more, or the loss is far from what it was."""


def descend(optimizer: torch.optim.Optimizer, most: float) -> None:
    """One step of an optimiser that moves no tensor by more than `most` rates, as its RMS.

    Adam's step of a tensor is about one rate, RMS. But with beta1 = 0 it is up to 30 of them,
    1 / sqrt(1 - beta2), at the first large gradient after small ones: the second moments are those
    of before. One such step can end a run, and the norm of the gradient does not tell it. So the
    step is scaled (Shazeer and Stern, Adafactor, section 6; there and in StableAdamW `most` is 1).
    Gradients of which one is not finite count as zero.
    """
    group = optimizer.param_groups[0]
    moved = [p for p in group["params"] if p.grad is not None]
    gradients = [p.grad for p in moved]
    norm = nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, torch.where(norm.isfinite(), 1.0, math.nan))
    for gradient in gradients:
        gradient.nan_to_num_(0.0, 0.0, 0.0)
    with torch.no_grad():
        before = torch._foreach_mul(moved, 1.0)  # copies
        optimizer.step()
        moves = torch._foreach_sub(moved, before)
        roots = [math.sqrt(p.numel()) for p in moved]  # numbers: a GPU waits for no copy
        rms = torch.stack(torch._foreach_div(torch._foreach_norm(moves), roots))
        shares = (most * group["lr"] / rms.clamp_min(1e-30)).clamp_max(1.0)
        for weight, start, move, share in zip(moved, before, moves, shares, strict=True):
            # one that is within the bound keeps the bits that the optimiser gave it
            weight.copy_(torch.where(share < 1.0, start + share * move, weight))


class Watch:
    """Looks at a run from time to time, and ends it where nothing comes of it any more.

    Args:
        out: The run's folder.
    """

    def __init__(self, out: Path):
        self.out = out
        self._losses: deque[float] = deque(maxlen=_USUAL)

    def check(self, terms: dict[str, Tensor], state: checkpoint.State, step: int) -> None:
        """Refuses losses and weights that are not finite, and a loss that has exploded.

        Losses alone do not say it: they are those of before the step, whose gradient may be
        infinite.

        Args:
            terms: The step's losses by name; the whole one is `loss`.
            state: What a checkpoint would hold; its moments are not looked at.
            step: The step.

        Raises:
            DivergedError: One is not, or `loss` is `FAR` times the median of those looked at
                before; it names the run's newest checkpoint.
        """
        wrong = [
            f"{name} = {float(value)}" for name, value in terms.items() if not math.isfinite(value)
        ]
        modules = {"model": state.model, "ema": state.ema, "discriminator": state.discriminator}
        wrong += [
            f"{name} has weights that are not finite"
            for name in modules
            if not finite(modules[name])
        ]
        if not wrong and "loss" in terms:
            wrong = self._exploded(float(terms["loss"]))
        if not wrong:
            return
        try:
            newest = f"--start-from {checkpoint.find(self.out)}"
        except InputError:
            newest = "from the start, for it has no checkpoint yet"
        raise DivergedError(
            f"the run has diverged by step {step}: {', '.join(wrong)}; begin another with a lower "
            f"schedule.lr or with schedule.clip, {newest}"
        )

    def _exploded(self, loss: float) -> list[str]:
        usual = statistics.median(self._losses) if len(self._losses) >= _YOUNG else math.inf
        self._losses.append(loss)
        return [f"loss = {loss:.3g} where {usual:.3g} was usual"] * (loss > FAR * abs(usual))


def finite(module: nn.Module) -> bool:
    """Whether all of a module's weights and buffers are; one number is waited for."""
    values = [x for x in module.state_dict().values() if x.is_floating_point()]
    return math.isfinite(torch.stack(torch._foreach_norm(values, math.inf)).sum())

"""Rows of a batch whose memory layout stays: channels last, as convolutions read and write maps.

torch's `repeat`, and its slices on their way back, give maps whose channels lie first; what they
meet is then read and written place by place, at a fraction of the speed.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor


def repeated(x: Tensor, times: int) -> Tensor:
    """All rows of (B, ...), then all again: (times B, ...)."""
    return torch.cat([x] * times) if times > 1 else x


def parted(x: Tensor, at: int) -> tuple[Tensor, Tensor]:
    """The first `at` rows and the rest, neither to be changed in place."""
    return _parted(x, at) if at < len(x) else (x, x[at:])


class _Parted(torch.autograd.Function):
    """Two views; back, one map of their gradients in the layout of these."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, at: int) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.at, ctx.shape = at, x.shape
        return x[:at], x[at:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        known = [one for one in grads if one is not None]
        if not known:
            return None, None
        last = known[0].dim() == 4 and known[0].is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        whole = torch.empty(
            ctx.shape, dtype=known[0].dtype, device=known[0].device, memory_format=layout
        )
        for part, one in zip((whole[: ctx.at], whole[ctx.at :]), grads, strict=True):
            if one is None:
                part.zero_()
            else:
                part.copy_(one)
        return whole, None


_parted = cast(Callable[[Tensor, int], tuple[Tensor, Tensor]], _Parted.apply)

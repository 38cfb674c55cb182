"""`F.pixel_unshuffle` on a CPU, channels last at once and a run of pixels at a time.

torch moves one number after the other; r neighbours of a row stay neighbours, and as one word of
r numbers they move several times as fast. In mixed precision they are rounded before, not after.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}  # by bytes


def unshuffled(x: Tensor, factor: int) -> Tensor:
    """(B, C, r h, r w) as (B, C r^2, h, w), as a convolution after it takes it."""
    if not x.is_cpu or torch.compiler.is_compiling():  # an export is one
        return F.pixel_unshuffle(x, factor)
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    if factor * x.element_size() not in _WORDS:
        return F.pixel_unshuffle(x, factor)
    return _gathered(x, factor)


class _Gathered(torch.autograd.Function):
    """Rows of r pixels become runs of channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        count, channels, height, width = x.shape
        h, w = height // factor, width // factor
        words = x.contiguous().view(_WORDS[factor * x.element_size()])
        cells = words.view(count, channels, h, factor, w).permute(0, 2, 4, 1, 3).contiguous()
        return cells.view(count, h, w, channels * factor).view(x.dtype).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _scattered(grads[0], ctx.factor), None


class _Scattered(torch.autograd.Function):
    """The way back, which is `F.pixel_shuffle`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        count, wide, h, w = x.shape
        channels = wide // factor**2
        last = x.permute(0, 2, 3, 1).contiguous().view(_WORDS[factor * x.element_size()])
        cells = last.view(count, h, w, channels, factor).permute(0, 3, 1, 4, 2).contiguous()
        return cells.view(count, channels, h * factor, w).view(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _gathered(grads[0], ctx.factor), None


_gathered = cast(Callable[[Tensor, int], Tensor], _Gathered.apply)
_scattered = cast(Callable[[Tensor, int], Tensor], _Scattered.apply)

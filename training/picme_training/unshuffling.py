"""`F.pixel_unshuffle`, channels last at once, and on a CPU a run of pixels at a time.

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
    if torch.compiler.is_exporting():
        return F.pixel_unshuffle(x, factor)
    if x.is_cpu and x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    if x.is_cpu and not torch.compiler.is_compiling() and factor * x.element_size() in _WORDS:
        return _gathered(x, factor)
    count, channels, height, width = x.shape
    rows, columns = height // factor, width // factor
    cells = x.reshape(count, channels, rows, factor, columns, factor).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(count, rows, columns, -1).permute(0, 3, 1, 2)


class _Gathered(torch.autograd.Function):
    """Rows of r pixels become runs of channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        count, channels, height, width = x.shape
        h, w = height // factor, width // factor
        words = x.contiguous().flatten().view(_WORDS[factor * x.element_size()])
        cells = words.view(count, channels, h, factor, w).permute(0, 2, 4, 1, 3).contiguous()
        last = cells.flatten().view(x.dtype).view(count, h, w, channels * factor**2)
        return last.permute(0, 3, 1, 2)

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
        last = x.permute(0, 2, 3, 1).contiguous().flatten()
        words = last.view(_WORDS[factor * x.element_size()])
        cells = words.view(count, h, w, channels, factor).permute(0, 3, 1, 4, 2).contiguous()
        return cells.flatten().view(x.dtype).view(count, channels, h * factor, w * factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _gathered(grads[0], ctx.factor), None


_gathered = cast(Callable[[Tensor, int], Tensor], _Gathered.apply)
_scattered = cast(Callable[[Tensor, int], Tensor], _Scattered.apply)

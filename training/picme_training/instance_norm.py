"""Instance norm and the LeakyReLU after it, in training by the compiled kernels of the masked norm.

torch's own wants a map's channels first in memory: a copy before and after, each way.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from picme_rt import compiled
from picme_training import norms


class _LeakyNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, slope: float) -> Tensor:
        kept = norms.forward(x, x, _norm(x, gamma, beta, slope), impl="native")
        ctx.slope = slope
        ctx.save_for_backward(kept.a, kept.mean, kept.inverse, gamma, beta)
        return kept.y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        a, mean, inverse, gamma, beta = ctx.saved_tensors
        kept = norms.Normed(a, a, mean, inverse, a)  # the kernels need no y
        norm = _norm(a, gamma, beta, ctx.slope)
        back = norms.backward(
            kept, norm, grads[0].contiguous(memory_format=torch.channels_last), impl="native"
        )
        of_gamma, of_beta = (back.along * inverse).sum((0, 1)), back.total.sum((0, 1))
        return back.before_norm, of_gamma, of_beta, None


_leaky_norm = cast(Callable[[Tensor, Tensor, Tensor, float], Tensor], _LeakyNorm.apply)


def _norm(x: Tensor, gamma: Tensor, beta: Tensor, slope: float) -> norms.Norm:
    places = x.shape[2] * x.shape[3]
    share = torch.full((1, 1, places), 1 / places, dtype=torch.float32)
    return norms.Norm(share, gamma.view(1, 1, -1), beta.view(1, 1, -1), slope)


class LeakyNorm(nn.InstanceNorm2d):
    """Affine instance norm of maps, then LeakyReLU."""

    def __init__(self, channels: int, slope: float):
        super().__init__(channels, affine=True)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) of float32 or bfloat16, which the result keeps."""
        if self.training and x.is_cpu and self._is_kernels(x) and compiled.find("auto"):
            return _leaky_norm(x, self.weight, self.bias, self.slope)
        return F.leaky_relu(super().forward(x), self.slope)

    def _is_kernels(self, x: Tensor) -> bool:
        """Whether the kernels have an answer; to ask fixes the batch of a graph being exported."""
        whole = x.dtype in (torch.float32, torch.bfloat16) and self.weight.dtype == torch.float32
        fits = x.ndim == 4 and x.shape[1] == self.num_features
        return whole and fits and len(x) > 0 and x.shape[2] * x.shape[3] > 1

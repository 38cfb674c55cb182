"""Batch norm of each picture over weighted places, and LeakyReLU: forward, back, tangent.

With one picture a batch, batch norm takes its statistics over places alone. Here these are weighted
sums, so that places can be left out, and pictures of one batch keep statistics of their own:

    c = a - E[a],  i = 1 / sqrt(E[c^2] + epsilon),  y = LeakyReLU(gamma i c + beta)

On a CPU each pass is one of the compiled kernels, which reads and writes a map as seldom as can be;
else, and where they are not built, it is torch's operations, one after the other.

Maps are (B, C, h, w) with channels last in memory, seen here as places (B, h w, C), of float32 or
bfloat16; sums and statistics are float32.
"""

from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from picme_rt import compiled
from picme_rt.compiled import Impl

SLOPE = 0.2
EPSILON = 1e-5


class Norm(NamedTuple):
    """A norm besides its map.

    Attributes:
        share: (B, 1, h w), or (1, 1, h w) for all: the places' weights w, sum 1 for each picture.
        gamma: (1, 1, C).
        beta: (1, 1, C).
        slope: Of LeakyReLU below 0.
    """

    share: Tensor
    gamma: Tensor
    beta: Tensor
    slope: float = SLOPE


class Normed(NamedTuple):
    """One block's pass, kept for the way back.

    Attributes:
        x: (B, C', h + 2, w + 2), what came into the convolution.
        a: (B, C, h, w), its result.
        mean: (B, 1, C), E[a].
        inverse: (B, 1, C), i.
        y: (B, C, h, w).
    """

    x: Tensor
    a: Tensor
    mean: Tensor
    inverse: Tensor
    y: Tensor


class Deltas(NamedTuple):
    """One block's way back.

    Attributes:
        before_norm: (B, C, h, w), the gradient for a.
        gradient: (B, C, h, w), that for y; before LeakyReLU it is g.
        total: (B, 1, C), the sum of g over the places.
        along: (B, 1, C), that of g c.
    """

    before_norm: Tensor
    gradient: Tensor
    total: Tensor
    along: Tensor


class Tangent(NamedTuple):
    """What <grad_x D, v> says of a norm, and v carried through it.

    Attributes:
        onward: (B, C, h, w), the tangent of y.
        pull: (B, C, h, w), the gradient for a.
        gamma: (B, 1, C), that for gamma.
    """

    onward: Tensor
    pull: Tensor
    gamma: Tensor


def forward(x: Tensor, a: Tensor, norm: Norm, *, impl: Impl = "auto") -> Normed:
    """The norm of a convolution's result.

    Args:
        x: What came into the convolution.
        a: (B, C, h, w), its result.
        norm: Weights of the places, and parameters.
        impl: `native` kernels, `ref` for torch's operations.
    """
    a = a.contiguous(memory_format=torch.channels_last)
    if module := _module(a, impl):
        mean, inverse = (a.new_empty(len(a), 1, a.shape[1], dtype=torch.float32) for _ in range(2))
        y = torch.empty_like(a)
        at, *rest = _arrays(a, mean, inverse, y)
        module.norm_forward(
            at, _arrays(*norm[:3]), *rest, slope=norm.slope, threads=torch.get_num_threads()
        )
        return Normed(x, a, mean, inverse, y)
    share = norm.share.expand(len(a), -1, -1)
    c = places(a).float()
    mean = torch.bmm(share, c)
    c = c - mean
    inverse = torch.bmm(share, c * c).add_(EPSILON).rsqrt_()
    y = F.leaky_relu_(torch.addcmul(norm.beta, c, norm.gamma * inverse), norm.slope)
    return Normed(x, a, mean, inverse, as_map(y, a).to(a.dtype))


def backward(
    kept: Normed,
    norm: Norm,
    gradient: Tensor,
    *,
    pull: Tensor | None = None,
    into: Deltas | None = None,
    impl: Impl = "auto",
) -> Deltas:
    """From the gradient for y to that for a.

    da = gamma i (g - w (sum g + c i^2 sum(g c))), where w are the shares: they sum to 1.

    Args:
        kept: Of `forward`.
        norm: Of `forward`.
        gradient: (B, C, h, w), for y.
        pull: (B, C, h, w), added to the gradient for a.
        into: Where the result is written, but for `gradient`; its `before_norm` may be `gradient`.
        impl: As `forward` has it.
    """
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    if into is None:
        sums = [torch.empty_like(kept.mean) for _ in range(2)]
        into = Deltas(torch.empty_like(kept.a), gradient, *sums)
    if module := _module(kept.a, impl):
        at, *rest = _arrays(kept.a, kept.mean, kept.inverse, gradient, into.total, into.along)
        more = [into.before_norm] if pull is None else [into.before_norm, pull]
        module.norm_back(
            at,
            _arrays(*norm[:3]),
            *rest,
            *_arrays(*more),
            slope=norm.slope,
            threads=torch.get_num_threads(),
        )
        return into
    c, g = _centred(kept), _before_leaky(kept, norm, gradient)
    total, along = g.sum(1, keepdim=True), (g * c).sum(1, keepdim=True)
    taken = torch.addcmul(total, c, kept.inverse.square() * along).mul_(norm.share.mT)
    found = torch.sub(g, taken, out=taken).mul_(norm.gamma * kept.inverse)
    into.before_norm.copy_(as_map(found if pull is None else found.add_(places(pull)), kept.a))
    into.total.copy_(total)
    into.along.copy_(along)
    return into


def tangent(kept: Normed, norm: Norm, delta: Deltas, u: Tensor, *, impl: Impl = "auto") -> Tangent:
    """The tangent through a norm; its maps take the memory of `u` and of `delta.gradient`.

    With k = E[c u] and U = sum(g u) - E[u] sum(g) the norm contributes gamma (i U - i^3 k sum(g c))
    to <grad_x D, v>; the tangent's way back is the way back of D, known already.

    Args:
        kept: Of `forward`.
        norm: Of `forward`.
        delta: Of `backward`.
        u: (B, C, h, w), the tangent of a.
        impl: As `forward` has it.
    """
    u = u.contiguous(memory_format=torch.channels_last)
    if module := _module(u, impl):
        found = Tangent(delta.gradient, u, torch.empty_like(kept.mean))
        at, *rest = _arrays(
            *(kept.a, kept.mean, kept.inverse, delta.gradient, delta.total, delta.along),
            *(found.onward, u, found.pull, found.gamma),
        )
        module.norm_tangent(
            at, _arrays(*norm[:3]), *rest, slope=norm.slope, threads=torch.get_num_threads()
        )
        return found
    share, gamma = norm.share.expand(len(u), -1, -1), norm.gamma
    c, g = _centred(kept), _before_leaky(kept, norm, delta.gradient)
    i, v = kept.inverse, places(u).float()
    mean, k = torch.bmm(share, v), torch.bmm(share, c * v)
    cubed = i * i * i
    spread = (g * v).sum(1, keepdim=True) - mean * delta.total
    of_u = -gamma * cubed * delta.along
    of_g = -gamma * cubed * k
    of_c = -gamma * cubed * (spread - 3 * i * i * k * delta.along)
    pull = torch.addcmul(-(of_u * mean + of_g * delta.total), v, of_u)
    pull.addcmul_(c, of_c).mul_(share.mT).addcmul_(g, of_g)
    turned = (v - mean).addcmul_(c, -i * i * k).mul_(gamma * i)
    turned = torch.where(places(kept.y) > 0, turned, turned * norm.slope)
    onward, pulled = (as_map(one, u).to(u.dtype) for one in (turned, pull))
    return Tangent(onward, pulled, i * spread - cubed * k * delta.along)


def places(x: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h w, C), the same memory if its channels are last."""
    last = x.contiguous(memory_format=torch.channels_last)
    return last.permute(0, 2, 3, 1).flatten(1, 2)


def as_map(x: Tensor, like: Tensor) -> Tensor:
    """(B, h w, C) as the map (B, C, h, w) that `like` is, the same memory."""
    return x.view(len(x), *like.shape[2:], x.shape[2]).permute(0, 3, 1, 2)


def _centred(kept: Normed) -> Tensor:
    return places(kept.a).float() - kept.mean


def _before_leaky(kept: Normed, norm: Norm, gradient: Tensor) -> Tensor:
    """(B, h w, C) float32: g."""
    wide = places(gradient).float()
    return torch.where(places(kept.y) > 0, wide, wide * norm.slope)


def _module(x: Tensor, impl: Impl) -> ModuleType | None:
    """The compiled kernels, where x is theirs."""
    return compiled.find(impl) if x.is_cpu else None


def _arrays(*tensors: Tensor) -> tuple[NDArray[np.generic], ...]:
    """The same memory as the kernels take it; a map of bfloat16 as its bits."""
    return tuple(
        (one.view(torch.uint16) if one.dtype == torch.bfloat16 else one).numpy() for one in tensors
    )

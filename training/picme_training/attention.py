"""Self-attention over the places of maps, o = softmax(q q') v, a few pictures at a time.

The weights of a few pictures stay in a core's cache, and the way back makes them again: nothing of
(B, N, N) is ever written out.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor

AT_ONCE = 2**18
"""Numbers of the weights that are made at once on a CPU, 1 MiB."""


def _parts(query: Tensor) -> Iterator[slice]:
    count = max(1, AT_ONCE // query.shape[1] ** 2) if query.is_cpu else len(query)
    for begin in range(0, len(query), count):
        yield slice(begin, begin + count)


def _weights(query: Tensor) -> Tensor:
    """A (B, N, N); no scale, and sums of products of float32: they overflow in half precision."""
    return torch.softmax(query @ query.mT, dim=-1)


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, values: Tensor) -> Tensor:
        found = torch.empty_like(values)
        for part in _parts(query):
            weights = _weights(query[part]).to(values.dtype)
            torch.bmm(weights, values[part], out=found[part])
        ctx.save_for_backward(query, values, found)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        query, values, found = ctx.saved_tensors
        given = grads[0].contiguous()
        of_query, of_values = torch.empty_like(query), torch.empty_like(values)
        for part in _parts(query):
            q, gradient = query[part], given[part]
            weights = _weights(q)
            torch.bmm(weights.to(values.dtype).mT, gradient, out=of_values[part])
            wide = gradient.to(q.dtype)
            # dS = A (dA - sum(A dA)), and the sum is that of o do
            along = (wide * found[part]).sum(-1, keepdim=True)
            scores = torch.baddbmm(-along, wide, values[part].to(q.dtype).mT).mul_(weights)
            of_query[part] = scores @ q
            of_query[part].baddbmm_(scores.mT, q)
        return of_query, of_values


_attended = cast(Callable[[Tensor, Tensor], Tensor], _Attended.apply)


def attended(query: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
    """What each place gathers from all, in proportion to the softmax of its products with them.

    Args:
        query: (B, E, h, w); its products are taken in float32, or float64 if it is that.
        maps: (B, C, h, w) each, what is gathered.

    Returns:
        As `maps`, of one dtype.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    values = torch.cat(maps, dim=1)
    with torch.autocast(values.device.type, enabled=False):
        rows = _attended(_places(query).to(wide), _places(values))
    found = rows.view(len(values), *values.shape[2:], -1).permute(0, 3, 1, 2)
    return tuple(torch.split(found, [one.shape[1] for one in maps], dim=1))


def plainly_attended(query: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
    """The same as it is read, and as it is exported; float32."""
    q = query.flatten(2).float()  # (B, E, N)
    with torch.autocast(q.device.type, enabled=False):  # no scale: overflows in half precision
        weights = torch.softmax(q.transpose(1, 2) @ q, dim=-1)  # A (B, N, N)
        return tuple((x.flatten(2).float() @ weights.transpose(1, 2)).view_as(x) for x in maps)


def _places(x: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h w, C), the same memory if its channels are last."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(1, 2)

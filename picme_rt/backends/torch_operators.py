"""The operators of an engine's graph in torch: each means what its rule in operators.py says.

Convolutions and fully connected layers compute in `How.dtype`; products of matrices, softmax and
the statistics of instance norm in float32; all else in the wider type of its inputs. Integers
(shapes, the box) stay on the host as NumPy arrays: a recorded graph has them as they were.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from picme_rt.onnx_file import Node

Run = Callable[..., Any]
"""From a node's inputs (None where one is left out) to its result, or a tuple of several."""


class How(NamedTuple):
    """How a graph computes.

    Attributes:
        dtype: Of convolutions and fully connected layers, and of what they leave.
        layout: Of the maps between them.
    """

    dtype: torch.dtype
    layout: torch.memory_format


def _conv(node: Node, how: How) -> Run:
    strides = _row(node, "strides", (1, 1))
    top, left, bottom, right = _row(node, "pads", (0, 0, 0, 0))
    even = (top, left) == (bottom, right)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x, weight, bias = _lowered(how, x, weight, bias)
        if not even:
            x = F.pad(x, (left, right, top, bottom))
        groups = x.shape[1] // weight.shape[1]  # 1, or each channel by itself
        return F.conv2d(x, weight, bias, strides, (top, left) if even else 0, groups=groups)

    return run


def _conv_transpose(node: Node, how: How) -> Run:
    strides, extra = _row(node, "strides", (1, 1)), _row(node, "output_padding", (0, 0))
    top, left, bottom, right = _row(node, "pads", (0, 0, 0, 0))
    even = (top, left) == (bottom, right)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x, weight, bias = _lowered(how, x, weight, bias)
        pads = (top, left) if even else (0, 0)
        made = F.conv_transpose2d(x, weight, bias, strides, pads, extra)
        if even:
            return made
        return made[:, :, top : made.shape[2] - bottom, left : made.shape[3] - right]

    return run


def _gemm(node: Node, how: How) -> Run:
    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(*_lowered(how, x, weight, bias))

    return run


def _lowered(
    how: How, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A layer's inputs in its type and layout; nothing is done where they are so already."""
    layout = how.layout if x.ndim == 4 else torch.preserve_format
    return (
        x.to(how.dtype, memory_format=layout),
        weight.to(how.dtype, memory_format=layout),
        None if bias is None else bias.to(how.dtype),
    )


def _matmul(node: Node, how: How) -> Run:
    def run(one: Tensor, other: Tensor) -> Tensor:
        return torch.matmul(one.float(), other.float())

    return run


def _softmax(function: Run) -> Callable[[Node, How], Run]:
    def make(node: Node, how: How) -> Run:
        axis = _number(node, "axis", -1)
        return lambda x: function(x.float(), dim=axis)

    return make


def _instance_norm(node: Node, how: How) -> Run:
    epsilon = _real(node, "epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        wide, side = x.float(), (-1, *(1 for _ in axes))
        variance, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
        factor = torch.rsqrt(variance + epsilon) * scale.view(side)
        rest = torch.addcmul(shift.view(side), mean, factor, value=-1)
        # one pass over the map, whatever its layout; torch's own copies what has channels last
        return torch.addcmul(rest, wide, factor, out=torch.empty_like(x, dtype=how.dtype))

    return run


def _cast(node: Node, how: How) -> Run:
    return lambda x: x.float()


def _average_pool(node: Node, how: How) -> Run:
    kernel, strides = _row(node, "kernel_shape", ()), _row(node, "strides", (1, 1))
    return lambda x: F.avg_pool2d(x, kernel, strides)


def _resize(node: Node, how: How) -> Run:
    linear = node.attributes.get("mode", "nearest") == "linear"

    def run(x: Tensor, regions: None, scales: Tensor) -> Tensor:
        sides = [int(n * s) for n, s in zip(x.shape[2:], scales.tolist()[2:], strict=True)]
        if linear:
            return F.interpolate(x, sides, mode="bilinear", align_corners=False)
        return F.interpolate(x, sides, mode="nearest")

    return run


def _pad(node: Node, how: How) -> Run:
    mode = {"reflect": "reflect", "edge": "replicate"}[str(node.attributes["mode"])]
    numpys = str(node.attributes["mode"])

    def run(x: Tensor, wanted: Any) -> Tensor:
        pads, rank = wanted.tolist(), x.ndim
        if rank == 4 and not any((*pads[:2], *pads[4:6])):
            return F.pad(x, (pads[3], pads[7], pads[2], pads[6]), mode)
        for axis, ends in enumerate(zip(pads[:rank], pads[rank:], strict=True)):
            if any(ends):
                places = np.pad(np.arange(x.shape[axis]), ends, numpys)  # type: ignore[call-overload]  # the mode is a variable
                x = x.index_select(axis, _places(tuple(places.tolist()), x.device))
        return x

    return run


def _clip(node: Node, how: How) -> Run:
    return lambda x, low, high: x.clamp(low.item(), high.item())


def _concat(node: Node, how: How) -> Run:
    axis = _number(node, "axis", 0)

    def run(*parts: Any) -> Any:
        whole = isinstance(parts[0], np.ndarray)
        return np.concatenate(parts, axis) if whole else torch.cat(parts, axis)

    return run


def _split(node: Node, how: How) -> Run:
    axis, count = _number(node, "axis", 0), len(node.outputs)
    return lambda x: x.chunk(count, axis)


def _row_maxima(node: Node, how: How) -> Run:
    return lambda x, axes: x.amax(-1, keepdim=True)


def _transpose(node: Node, how: How) -> Run:
    order = _row(node, "perm", ())
    return lambda x: x.permute(order)


def _reshape(node: Node, how: How) -> Run:
    keeps = _number(node, "allowzero", 0) == 0

    def run(x: Tensor, wanted: Any) -> Tensor:
        sides = enumerate(wanted.tolist())
        return x.reshape([x.shape[i] if n == 0 and keeps else n for i, n in sides])

    return run


def _unsqueeze(node: Node, how: How) -> Run:
    def run(x: Tensor, wanted: Any) -> Tensor:
        rank = x.ndim + len(wanted)
        for axis in sorted(n % rank for n in wanted.tolist()):
            x = x.unsqueeze(axis)
        return x

    return run


def _expand(node: Node, how: How) -> Run:
    def run(x: Tensor, wanted: Any) -> Tensor:
        return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(wanted.tolist())))

    return run


def _gather(node: Node, how: How) -> Run:
    axis = _number(node, "axis", 0)

    def run(x: Any, places: Any) -> Any:
        if isinstance(x, np.ndarray):
            return x.take(places, axis)
        places = places % x.shape[axis]
        if places.ndim == 0:
            return x.select(axis, int(places))
        found = x.index_select(axis, _places(tuple(places.ravel().tolist()), x.device))
        return found.unflatten(axis, places.shape)

    return run


def _slice(node: Node, how: How) -> Run:
    def run(x: Tensor, starts: Any, ends: Any, axes: Any) -> Tensor:
        (top, left), (bottom, right) = starts.tolist(), ends.tolist()
        return x[:, :, top:bottom, left:right]

    return run


def _shape(node: Node, how: How) -> Run:
    return lambda x: np.array(x.shape, np.int64)


def _depth_to_space(node: Node, how: How) -> Run:
    block = _number(node, "blocksize", 1)
    if node.attributes.get("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, block)

    def run(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.reshape(batch, block, block, channels // block**2, height, width)
        x = x.permute(0, 3, 4, 1, 5, 2)
        return x.reshape(batch, channels // block**2, block * height, block * width)

    return run


def _space_to_depth(node: Node, how: How) -> Run:
    block = _number(node, "blocksize", 1)

    def run(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height // block, block, width // block, block)
        x = x.permute(0, 3, 5, 1, 2, 4)
        return x.reshape(batch, channels * block**2, height // block, width // block)

    return run


def _quantize(node: Node, how: How) -> Run:
    # halves to even, as ONNX says; the levels stay whole floats, and exact in every type
    return lambda x, scale, zero: (x.float() / scale).round().clamp(-128, 127)


def _dequantize(node: Node, how: How) -> Run:
    axis = _number(node, "axis", 1)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        if scale.ndim:
            scale = scale.view([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
        return x.float() * scale

    return run


@functools.cache  # nothing may be copied to a device while a graph is recorded
def _places(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64, device=device)


def _row(node: Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    found = node.attributes.get(name, default)
    assert isinstance(found, tuple)  # the rules looked at it
    return found


def _number(node: Node, name: str, default: int) -> int:
    found = node.attributes.get(name, default)
    assert isinstance(found, int)
    return found


def _real(node: Node, name: str, default: float) -> float:
    found = node.attributes.get(name, default)
    assert isinstance(found, float)
    return found


def _of_tensors_or_box(function: Run, of_box: Run) -> Callable[[Node, How], Run]:
    """An operator of tensors, and of a box's integers, which lie on the host."""

    def run(one: Any, other: Any) -> Any:
        return (of_box if isinstance(one, np.ndarray) else function)(one, other)

    return lambda node, how: run


def _plain(function: Run) -> Callable[[Node, How], Run]:
    return lambda node, how: function


def _leaky_relu(node: Node, how: How) -> Run:
    slope = _real(node, "alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


MAKERS: dict[str, Callable[[Node, How], Run]] = {
    "Add": _of_tensors_or_box(torch.add, np.add),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "DequantizeLinear": _dequantize,
    "Div": _plain(torch.div),
    "Expand": _expand,
    "Gather": _gather,
    "Gemm": _gemm,
    "InstanceNormalization": _instance_norm,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": _matmul,
    "Mul": _of_tensors_or_box(torch.mul, np.multiply),
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "ReduceMax": _row_maxima,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _softmax(F.softmax),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

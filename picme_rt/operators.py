"""The operators that a graph of an engine may have: those that our exporter writes.

Those that only move numbers are in operators_layout.py, those of int8 in operators_int8.py.

A rule says what a node's results look like before it runs, and what it costs. It accepts an
attribute only in the range in which its operator is defined and, where our exporter always writes
one and the same value, that value alone.
"""

import math
from collections.abc import Callable

from picme_rt import operator_values as values
from picme_rt import operators_int8 as int8
from picme_rt import operators_layout as layout
from picme_rt.errors import EngineError
from picme_rt.graph_nodes import Call, Results, Shape, Value

_FLOAT = 1  # float32, by ONNX's number


def _elementwise(call: Call) -> Results:
    one, other = call.inputs("float32", "float32")
    return Results([Value("float32", values.broadcast(one.shape, other.shape))])


def _of_floats_or_box(of_box: Callable[[Call], Results]) -> Callable[[Call], Results]:
    def rule(call: Call) -> Results:
        return _elementwise(call) if call.kind() == "float32" else of_box(call)

    return rule


def _unary(call: Call) -> Results:
    (x,) = call.inputs("float32")
    return Results([Value("float32", x.shape)])


def _leaky_relu(call: Call) -> Results:
    call.real("alpha", 0.01, 0.0, 1.0)
    return _unary(call)


def _cast(call: Call) -> Results:
    """From a weight that is stored as float16: `graph_shapes` has seen to its being one."""
    (x,) = call.inputs("float16")
    call.only(to=_FLOAT)
    call.default(saturate=1)
    return Results([Value("float32", x.shape, fixed=True)])


def _softmax(call: Call) -> Results:
    (x,) = call.inputs("float32")
    values.axis(call, len(x.shape), default=-1)
    return Results([Value("float32", x.shape)])


def _row_maxima(call: Call) -> Results:
    """ReduceMax: the largest of each row, as a row of one."""
    x, axes = call.inputs("float32", "int64")
    call.default(noop_with_empty_axes=0, keepdims=1)
    if axes.shape != (1,) or values.known(axes) != (-1,) or not x.shape:
        raise EngineError(f"its axes must be (-1,), the last, got {values.known(axes)}")
    return Results([Value("float32", (*x.shape[:-1], 1))])


def _clip(call: Call) -> Results:
    x, low, high = call.inputs("float32", "float32", "float32")
    for bound in (low, high):
        if bound.shape != () or not math.isfinite(values.known(bound)[0]):
            raise EngineError("its bounds must be finite numbers")
    if values.known(low) > values.known(high):
        raise EngineError(
            f"its bounds must be in order, got {values.known(low)} and {values.known(high)}"
        )
    return Results([Value("float32", x.shape)])


def _matmul(call: Call) -> Results:
    one, other = call.inputs("float32", "float32")
    if min(len(one.shape), len(other.shape)) < 2 or one.shape[-1] != other.shape[-2]:
        raise EngineError(f"matrices must fit, got {values.shapes([one, other])}")
    front = values.broadcast(one.shape[:-2], other.shape[:-2])
    shape = (*front, one.shape[-2], other.shape[-1])
    return Results([Value("float32", shape)], macs=math.prod(shape) * one.shape[-1])


def _gemm(call: Call) -> Results:
    x, weight, *biases = call.some("float32", 2, 3)
    call.default(alpha=1.0, beta=1.0, transA=0)
    call.only(transB=1)
    if len(x.shape) != 2 or len(weight.shape) != 2 or x.shape[1] != weight.shape[1]:
        raise EngineError(f"matrices must fit, got {values.shapes([x, weight])}")
    _check_bias(biases, weight.shape[0])
    shape = (x.shape[0], weight.shape[0])
    return Results([Value("float32", shape)], macs=math.prod(shape) * x.shape[1])


_CHANNELS = 1 << 16  # most groups of a convolution


def _conv(call: Call) -> Results:
    group = call.integer("group", 1, 1, _CHANNELS)
    x, weight, biases, kernel = _convolution(call)
    strides = call.integers("strides", (1, 1), 1, 64, row=2)
    pads = call.integers("pads", (0, 0, 0, 0), 0, max(kernel) - 1, row=4)
    if group > 1 and weight.shape[:2] != (group, 1):
        raise EngineError(f"group must be 1 or that of one channel each, got {group}")
    _check_channels(x, weight.shape[1] * group)
    _check_bias(biases, weight.shape[0])
    places = _windows(x.shape[2:], kernel, strides, pads)
    shape = (x.shape[0], weight.shape[0], *places)
    return Results([Value("float32", shape)], macs=x.shape[0] * math.prod(places) * weight.numbers)


def _conv_transpose(call: Call) -> Results:
    call.default(group=1)
    x, weight, biases, kernel = _convolution(call)
    strides = call.integers("strides", (1, 1), 1, 64, row=2)
    pads = call.integers("pads", (0, 0, 0, 0), 0, max(kernel) - 1, row=4)
    extra = call.integers("output_padding", (0, 0), 0, min(strides) - 1, row=2)
    _check_channels(x, weight.shape[0])
    _check_bias(biases, weight.shape[1])
    sides = [
        strides[i] * (x.shape[2 + i] - 1) + extra[i] + kernel[i] - pads[i] - pads[2 + i]
        for i in (0, 1)
    ]
    if min(sides) < 1:
        raise EngineError(f"pads {pads} leave nothing of {x.shape}")
    places = x.shape[0] * x.shape[2] * x.shape[3]
    return Results(
        [Value("float32", (x.shape[0], weight.shape[1], *sides))],
        macs=places * weight.numbers,
        scratch=places * math.prod(weight.shape[1:]),
    )


def _convolution(call: Call) -> tuple[Value, Value, list[Value], Shape]:
    """Picture, weight, bias if any and kernel: what both kinds of convolution have."""
    x, weight, *biases = call.some("float32", 2, 3)
    if len(x.shape) != 4 or len(weight.shape) != 4 or not all(w.fixed for w in (weight, *biases)):
        raise EngineError(f"it must be of two axes, with weights, got {values.shapes([x, weight])}")
    kernel = weight.shape[2:]
    call.default(auto_pad="NOTSET", dilations=(1, 1), kernel_shape=kernel)
    return x, weight, biases, kernel


def _check_channels(x: Value, channels: int) -> None:
    if x.shape[1] != channels:
        raise EngineError(f"weights take {channels} channels, got {x.shape}")


def _check_bias(biases: list[Value], channels: int) -> None:
    if biases and biases[0].shape != (channels,):
        raise EngineError(f"bias must be {(channels,)}, got {biases[0].shape}")


def _instance_norm(call: Call) -> Results:
    x, scale, bias = call.inputs("float32", "float32", "float32")
    call.real("epsilon", 1e-5, 1e-12, 1.0)
    if len(x.shape) < 3 or not scale.shape == bias.shape == x.shape[1:2]:
        raise EngineError(f"scale and bias must fit, got {values.shapes([x, scale, bias])}")
    return Results([Value("float32", x.shape)])


def _average_pool(call: Call) -> Results:
    (x,) = call.inputs("float32")
    if len(x.shape) != 4:
        raise EngineError(f"it must be of two axes, got {x.shape}")
    call.default(auto_pad="NOTSET", ceil_mode=0, pads=(0, 0, 0, 0))
    call.only(count_include_pad=1)
    kernel = call.integers("kernel_shape", None, 1, 64, row=2)
    strides = call.integers("strides", (1, 1), 1, 64, row=2)
    shape = (*x.shape[:2], *_windows(x.shape[2:], kernel, strides, (0, 0, 0, 0)))
    return Results([Value("float32", shape)], macs=math.prod(shape) * math.prod(kernel))


def _resize(call: Call) -> Results:
    x, scales = call.inputs("float32", None, "float32")
    call.only(nearest_mode="floor")
    mode = call.word("mode", "nearest", ("nearest", "linear"))
    centres = {"nearest": "asymmetric", "linear": "half_pixel"}
    call.only(coordinate_transformation_mode=centres[mode])
    call.default(
        keep_aspect_ratio_policy="stretch",
        antialias=0,
        exclude_outside=0,
        extrapolation_value=0.0,
        cubic_coeff_a=-0.75,
    )
    factors = values.known(scales)
    if len(x.shape) != 4 or scales.shape != (4,) or factors[:2] != (1.0, 1.0):
        raise EngineError(f"it must scale the two last of 4 axes, got {factors} for {x.shape}")
    if not all(factor in range(1, 65) for factor in factors):
        raise EngineError(f"its factors must be integers in 1..64, got {factors}")
    return Results(
        [Value("float32", tuple(int(f) * n for f, n in zip(factors, x.shape, strict=True)))]
    )


def _pad(call: Call) -> Results:
    x, wanted = call.inputs("float32", "int64")
    mode = call.word("mode", "", ("reflect", "edge"))
    rank = len(x.shape)
    pads = values.vector(wanted, 0, 1 << 31)
    if len(pads) != 2 * rank:
        raise EngineError(f"it needs {2 * rank} numbers, got {pads}")
    before, after = pads[:rank], pads[rank:]
    if mode == "reflect" and any(
        max(b, a) >= n for b, a, n in zip(before, after, x.shape, strict=True)
    ):
        raise EngineError(f"what is reflected must be inside of {x.shape}, got {pads}")
    return Results(
        [Value("float32", tuple(b + n + a for b, n, a in zip(before, x.shape, after, strict=True)))]
    )


def _windows(sides: Shape, kernel: Shape, strides: Shape, pads: Shape) -> Shape:
    rooms = [sides[i] + pads[i] + pads[2 + i] - kernel[i] for i in (0, 1)]
    if min(rooms) < 0:
        raise EngineError(f"a window of {kernel} does not fit into {sides}")
    return tuple(room // stride + 1 for room, stride in zip(rooms, strides, strict=True))


RULES: dict[str, Callable[[Call], Results]] = {
    "Add": _of_floats_or_box(layout.sum_of_ends),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": layout.concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": layout.depth_to_space,
    "DequantizeLinear": int8.dequantize,
    "Div": _elementwise,
    "Expand": layout.expand,
    "Gather": layout.gather,
    "Gemm": _gemm,
    "InstanceNormalization": _instance_norm,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Mul": _of_floats_or_box(layout.multiple_of_ends),
    "Pad": _pad,
    "QuantizeLinear": int8.quantize,
    "ReduceMax": _row_maxima,
    "Reshape": layout.reshape,
    "Resize": _resize,
    "Shape": layout.shape,
    "Slice": layout.slice_,
    "Softmax": _softmax,
    "SpaceToDepth": layout.space_to_depth,
    "Split": layout.split,
    "Sub": _elementwise,
    "Tanh": _unary,
    "Transpose": layout.transpose,
    "Unsqueeze": layout.unsqueeze,
}

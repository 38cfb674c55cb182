"""Rules of the two operators around int8: symmetric, so that the zero point is always 0.

An int8 value goes from `QuantizeLinear` to `DequantizeLinear` and nowhere else.
"""

import math

from picme_rt import operator_values as values
from picme_rt.errors import EngineError
from picme_rt.graph_nodes import Call, Results, Value


def quantize(call: Call) -> Results:
    """QuantizeLinear: clip(round(x / scale), -128, 127), one scale for all."""
    x, scale, zero = call.inputs("float32", "float32", "int8")
    _check_one(scale, zero)
    return Results([Value("int8", x.shape)])


def dequantize(call: Call) -> Results:
    """DequantizeLinear: x * scale; of a value with one scale, of weights with one a channel."""
    x, scale, *zeros = call.mixed(("int8", "float32"), ("int8", "float32", "int8"))
    if zeros:
        _check_one(scale, *zeros)
        return Results([Value("float32", x.shape)])
    axis = values.axis(call, len(x.shape), default=None)
    if not (x.fixed and scale.fixed) or scale.shape != (x.shape[axis],):
        raise EngineError(
            f"weights in the file with one scale along axis {axis} are restored without a zero "
            f"point, got {values.shapes([x, scale])}"
        )
    return Results([Value("float32", x.shape, fixed=True)])


def _check_one(scale: Value, zero: Value) -> None:
    if scale.shape != () or not 0 < values.known(scale)[0] < math.inf:
        got = scale.content or scale.shape
        raise EngineError(f"its scale must be one finite number over 0, got {got}")
    if zero.shape != () or values.known(zero) != (0,):
        raise EngineError(f"its zero point must be one 0, got {zero.content or zero.shape}")

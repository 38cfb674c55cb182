"""Whether this CPU's int8 convolutions add what they multiply, or saturate on the way.

OpenVINO multiplies bytes from 0 to 255 by weights of int8. Without the instructions for it (VNNI,
AMX) a CPU adds two such products in 16 bits, which hold 32,767 at most: what is larger is cut off.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

_CHANNELS, _MOST = 64, 127
IN_FLOAT = {"LP_TRANSFORMS_MODE": False}
"""What compiles quantised layers as they are written: rounded, and multiplied in float32."""


@functools.cache
def saturates() -> bool:
    """Whether it cuts off sums: 64 products of 127 by 127 say so, in 50 ms."""
    import openvino
    from openvino import opset13 as ops

    given = ops.parameter([1, _CHANNELS, 1, 1], np.float32)
    least, most = np.float32(-_MOST - 1), np.float32(_MOST)
    rounded = ops.fake_quantize(given, least, most, least, most, 256)
    levels = np.full((_CHANNELS, _CHANNELS, 1, 1), _MOST, np.int8)
    kernel = ops.multiply(ops.convert(ops.constant(levels), "f32"), np.float32(1))
    sums = ops.convolution(rounded, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    model = openvino.Model([sums], [given], "sums of int8")
    threads = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "CACHE_DIR": ""}
    compiled = openvino.Core().compile_model(model, "CPU", threads)
    found = compiled(np.full(given.shape, _MOST, np.float32))[0]
    return bool(np.any(found != _CHANNELS * _MOST**2))


def is_quantised(model: "openvino.Model") -> bool:
    """Whether a graph has a layer that rounds to int8."""
    return any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())

"""Instance norms whose bits are the same whatever the number of threads.

OpenVINO's MVN adds up a map whose channels lie last in as many parts as there are threads; its
means add up each channel in one order. With those, results of one graph are equal side by side on
a core each and one after the other on all (meeting.py).
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

_SIDES = [2, 3]


def decompose(model: "openvino.Model") -> None:
    """Puts means in the place of every MVN over the sides of a map (B, C, h, w).

    y = (x - E[x]) / sqrt(E[(x - E[x])^2] + epsilon)

    In bfloat16 the means are rounded, which MVN's are not: 1 dB of 55, random weights of `picme`.
    """
    from openvino import opset13 as ops

    for norm in model.get_ordered_ops():
        if norm.get_type_name() != "MVN" or not _is_over_sides(norm):
            continue
        x = norm.input_value(0)
        mean = ops.reduce_mean(x, _SIDES, keep_dims=True)
        # as a square of the difference above it would be taken for an MVN again
        variance = ops.reduce_mean(ops.squared_difference(x, mean), _SIDES)
        epsilon = np.float32(norm.get_attributes()["eps"])
        # (B, C): of another shape than x, it is not fused with what follows, once for each pixel
        inverse = ops.power(ops.add(variance, epsilon), np.float32(-0.5))
        scale = ops.unsqueeze(inverse, np.array(_SIDES))
        normed = ops.multiply(ops.subtract(x, mean), scale)
        for taker in norm.output(0).get_target_inputs():
            taker.replace_source_output(normed.output(0))


def _is_over_sides(norm: "openvino.Node") -> bool:
    kept = norm.get_attributes()
    if not kept["normalize_variance"] or kept["eps_mode"] != "INSIDE_SQRT":
        return False
    axes = norm.input_value(1).get_node()
    rank = norm.get_input_partial_shape(0).rank
    if axes.get_type_name() != "Constant" or rank.is_dynamic or rank.get_length() != 4:
        return False
    return sorted(int(axis) % 4 for axis in axes.get_data()) == _SIDES

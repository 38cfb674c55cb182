"""Rounding to int8 as one operator, once: what OpenVINO reads a pair of Q and DQ as is five.

It takes a FakeQuantize that gives levels, two conversions, a sum and a product for one step of a
layer in int8 where a convolution is next. Where a Concat or a Pad lies between, OpenVINO 2026.4
rounds to whole numbers in place of levels, and says nothing; one FakeQuantize it moves rightly.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

_LEAST, _MOST = -128, 127
_MOVERS = ("Pad", "Slice", "Transpose")
"""What gives values that it took; a Pad of an engine reflects or repeats them."""


def fuse(model: "openvino.Model") -> None:
    """Puts clip(round(x / s), -128, 127) s in the place of every pair, as one FakeQuantize.

    Then takes away those that round what is rounded already and was moved alone since: the file has
    both, of which ONNX Runtime needs the later (export's early_rounding.py).
    """
    _fuse_pairs(model)
    _drop_second(model)


def _fuse_pairs(model: "openvino.Model") -> None:
    from openvino import opset13 as ops

    for levels in _rounding(model):
        restored = _restored(levels)
        if restored is None:
            continue
        ends = [np.float32(end) for end in _ends(levels)[:2]]
        once = ops.fake_quantize(levels.input_value(0), *ends, *ends, _MOST - _LEAST + 1)
        once.set_friendly_name(restored.get_friendly_name())
        _replace(restored, once.output(0))


def _drop_second(model: "openvino.Model") -> None:
    for again in _rounding(model):
        source = again.input_value(0).get_node()
        moved = source
        while moved.get_type_name() in _MOVERS:
            moved = moved.input_value(0).get_node()
        if moved is source or moved.get_type_name() != "FakeQuantize":
            continue
        ends = _ends(again)  # those of what it gives too: levels, where its pair was not fused
        if None not in ends and ends == _ends(moved):
            _replace(again, again.input_value(0))


def _rounding(model: "openvino.Model") -> "list[openvino.Node]":
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]


def _restored(levels: "openvino.Node") -> "openvino.Node | None":
    """The product that ends a pair which FakeQuantize begins; None where it is no such pair."""
    node = levels
    for operator in ("Convert", "Convert", "Subtract", "Multiply"):
        takers = list(node.output(0).get_target_inputs())
        if len(takers) != 1 or takers[0].get_node().get_type_name() != operator:
            return None
        node = takers[0].get_node()
    scale = _number(node.input_value(1))
    if scale is None or _ends(levels)[:2] != (_LEAST * scale, _MOST * scale):
        return None
    return node


def _ends(rounding: "openvino.Node") -> tuple[np.float32 | None, ...]:
    """Least and most of what is taken, and of what is given."""
    return tuple(_number(rounding.input_value(i)) for i in (1, 2, 3, 4))


def _number(value: "openvino.Output") -> np.float32 | None:
    """A constant of one number."""
    node = value.get_node()
    if node.get_type_name() != "Constant" or node.get_data().size != 1:
        return None
    return np.float32(node.get_data().item())


def _replace(node: "openvino.Node", by: "openvino.Output") -> None:
    for taker in node.output(0).get_target_inputs():
        taker.replace_source_output(by)

"""One channel of a picture's few, for all of them -> a convolution of 1x1 that repeats it.

Push-pull divides a map by one of its channels, and weighs maps by one. OpenVINO cuts a channel out
of what a convolution gave number by number (0.2 ms of 0.26 MB), and computes with it in the plain
layout, between reorders; repeated, it stays where convolutions leave it.
"""

import numpy as np
import onnx

from picme_export import mean_as_conv
from picme_export.rewrites.graph import Graph, attributes_of

_ALIKE = ("Add", "Clip", "Div", "Mul", "Sub")
"""What is computed number by number."""


def rewrite(graph: Graph) -> int:
    """Replaces every Split of which one channel alone is taken, by maps of all channels.

    What a Concat joins stays: that costs nothing to cut.

    Returns:
        How many were replaced.
    """
    done = 0
    for split in graph.nodes("Split"):
        x = split.input[0]
        channels = graph.channels(x)
        taken = [i for i, name in enumerate(split.output) if graph.takers(name)]
        each = len(split.output) == channels and attributes_of(split).get("axis", 0) == 1
        if (
            channels not in mean_as_conv.FEW
            or not each
            or len(taken) != 1
            or graph.maker(x, "Concat")
        ):
            continue
        (place,) = taken
        one = split.output[place]
        if not _fits(graph, one, channels):
            continue
        weight = np.zeros((channels, channels, 1, 1), np.float32)
        weight[:, place] = 1
        _give(graph, one, graph.conv(x, weight, None, pads=(0, 0, 0, 0)), channels)
        done += 1
    return done


def _fits(graph: Graph, one: str, channels: int) -> bool:
    """Whether all that is made of a channel enters maps of all channels, number by number."""
    leaves = any(value.name == one for value in graph.model.graph.output)
    return not leaves and all(_takes(graph, t, one, channels) for t in graph.takers(one))


def _takes(graph: Graph, taker: onnx.NodeProto, one: str, channels: int) -> bool:
    if taker.op_type not in _ALIKE:
        return False
    if _ends(graph, taker, one, channels):
        return True
    others = [graph.weight(name) for name in taker.input if name != one]
    plain = all(other is not None and other.size == 1 for other in others)
    return plain and _fits(graph, taker.output[0], channels)


def _ends(graph: Graph, taker: onnx.NodeProto, one: str, channels: int) -> bool:
    """Whether a node joins the channel with a map of all channels."""
    return any(name != one and graph.channels(name) == channels for name in taker.input)


def _give(graph: Graph, old: str, new: str, channels: int) -> None:
    """Lets all takers of a channel take its repetition."""
    for taker in graph.takers(old):
        inputs = [new if name == old else name for name in taker.input]
        if _ends(graph, taker, old, channels):
            taker.input[:] = inputs
        else:
            _give(graph, taker.output[0], graph.put(taker.op_type, inputs), channels)

"""Sums of convolutions become one convolution over maps side by side, for int8.

A convolution in int8 ends by rounding what it gives. Of a sum, OpenVINO writes out every part, adds
in a pass of its own or in float32, and rounds then. Side by side the maps are rounded at one scale,
so each is first brought to one range, and its weights to the inverse.
"""

import numpy as np
import onnx

from picme_export.rewrites.graph import Graph, attributes_of

Convolutions = list[onnx.NodeProto]


def rewrite(graph: Graph, largest: dict[str, float]) -> int:
    """Joins what is summed; what the graph gives is the same up to the rounding of float32.

    sum_i w_i * x_i = [c_1 w_1, ...] * [x_1 / c_1, ...] with c_i = max |x_i| / max |x_1|.

    Padded maps are left apart: side by side they take the time that the sum took.

    Args:
        graph: Of a decoder.
        largest: Magnitude of each value that a convolution takes (`calibrate.largest`); a joined
            one is added.

    Returns:
        How many convolutions were made.
    """
    joined: dict[tuple[str, ...], str] = {}
    done = 0
    for add in graph.nodes("Add"):
        summed = _summed(graph, add.output[0])
        taken = tuple(conv.input[0] for conv in summed)
        if len(summed) < 2 or _is_within_a_sum(graph, add) or not _fit(graph, summed):
            continue
        scales = [largest[name] / largest[taken[0]] for name in taken]
        if taken not in joined:
            joined[taken] = _side_by_side(graph, taken, scales)
            largest[joined[taken]] = largest[taken[0]]
        graph.give(add.output[0], _convolution(graph, joined[taken], summed, scales))
        done += 1
    return done


def _summed(graph: Graph, name: str) -> Convolutions:
    """The convolutions whose sum a value is; none where anything else is in it."""
    conv, add = graph.maker(name, "Conv"), graph.maker(name, "Add")
    if conv is not None:
        return [conv]
    if add is None:
        return []
    parts = [_summed(graph, part) for part in add.input]
    lonely = all(graph.only_taker(part) is add for part in add.input)
    return [conv for part in parts for conv in part] if lonely and all(parts) else []


def _is_within_a_sum(graph: Graph, add: onnx.NodeProto) -> bool:
    taker = graph.only_taker(add.output[0])
    return taker is not None and taker.op_type == "Add" and bool(_summed(graph, taker.output[0]))


def _fit(graph: Graph, summed: Convolutions) -> bool:
    """Whether all are of one kind and take maps of one size, each another's, none padded."""
    taken = {conv.input[0] for conv in summed}
    kinds = {str(attributes_of(conv)) + str(_kernel(graph, conv)) for conv in summed}
    return (
        len(taken) == len(summed)
        and len(kinds) == 1
        and all(attributes_of(conv).get("group", 1) == 1 for conv in summed)
        and all(graph.parameters(conv) is not None for conv in summed)
        and len({_place(graph, name) for name in taken}) == 1
        and not any(graph.maker(name, "Pad") for name in taken)
    )


def _kernel(graph: Graph, conv: onnx.NodeProto) -> tuple[int, ...]:
    """Output channels and sides of its weights."""
    given, _, *sides = graph.shape(conv.input[1])
    return given, *sides


def _place(graph: Graph, name: str) -> tuple[object, ...]:
    """Sides of a map; where it is a crop, those of what is cropped, and the box."""
    crop = graph.maker(name, "Slice")
    if crop is None:
        return graph.shape(name)[2:]
    return *graph.shape(crop.input[0])[2:], *crop.input[1:]


def _side_by_side(graph: Graph, taken: tuple[str, ...], scales: list[float]) -> str:
    """The maps at one range, concatenated before they are cropped."""
    crops = [graph.maker(name, "Slice") for name in taken]
    parts = []
    for name, crop, scale in zip(taken, crops, scales, strict=True):
        whole = name if crop is None else crop.input[0]
        factor = graph.keep(np.array(1 / scale, np.float32))
        parts.append(whole if scale == 1 else graph.put("Mul", [whole, factor]))
    joined = graph.put("Concat", parts, axis=1)
    return joined if crops[0] is None else graph.put("Slice", [joined, *crops[0].input[1:]])


def _convolution(graph: Graph, x: str, summed: Convolutions, scales: list[float]) -> str:
    found = [pair for pair in map(graph.parameters, summed) if pair is not None]  # `_fit`
    weights = [pair[0] * np.float32(c) for pair, c in zip(found, scales, strict=True)]
    biases = [bias for _, bias in found if bias is not None]
    inputs = [x, graph.keep(np.concatenate(weights, axis=1))]
    if biases:
        inputs.append(graph.keep(np.array(sum(biases), np.float32)))
    return graph.put("Conv", inputs, **attributes_of(summed[0]))  # type: ignore[arg-type]

"""ConvTranspose 3x3 of stride 2 -> four convolutions, one a phase, and DepthToSpace.

An output row of even number sees one row of the kernel, one of odd number two; likewise columns.
So the phases have kernels of 1x1, 1x2, 2x1 and 2x2: the same nine taps, none of them a zero.
"""

import itertools

import numpy as np

from picme_export.rewrites.graph import Graph, is_plain

TAPS = ((1,), (2, 0))
"""Rows of the kernel that an even and an odd output row see: at its own input row, at the next."""


def rewrite(graph: Graph) -> int:
    """Replaces transposed convolutions whose output is twice their input.

    A concatenated input is taken apart: each part has its own four convolutions, which are added.

    Returns:
        How many were replaced.
    """
    done = 0
    for node in graph.nodes("ConvTranspose"):
        fits = is_plain(node, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
        found = graph.parameters(node)
        if not fits or found is None or found[0].shape[2:] != (3, 3):
            continue
        weight, bias = found
        inputs = graph.parts(node.input[0])
        if sum(graph.channels(part) for part in inputs) != weight.shape[0]:
            continue  # the channels of a part are not known
        phases = [
            _phase(graph, inputs, weight[:, :, list(rows)][:, :, :, list(columns)], bias)
            for rows, columns in itertools.product(TAPS, TAPS)
        ]
        # counted from the back: else ONNX Runtime concatenates in its own layout of channels, and
        # then brings the whole back, though it does so with each phase for its head anyway
        together = graph.put("Concat", phases, axis=-3)
        new = graph.put("DepthToSpace", [together], blocksize=2, mode="DCR")
        graph.give(node.output[0], new)
        done += 1
    return done


def _phase(
    graph: Graph,
    inputs: list[str],
    weight: np.ndarray,
    bias: np.ndarray | None,
) -> str:
    """One phase of all parts of the input, (Ci, Co, h, w) kernels."""
    kernel, at, total = weight.transpose(1, 0, 2, 3), 0, ""
    pads = (0, 0, kernel.shape[2] - 1, kernel.shape[3] - 1)
    for part in inputs:
        wide = graph.channels(part)
        one = graph.conv(part, kernel[:, at : at + wide], None if total else bias, pads=pads)
        total = graph.put("Add", [total, one]) if total else one
        at += wide
    return total

"""Reshape, Transpose of six axes, Reshape -> SpaceToDepth: torch's pixel-unshuffle on a CPU.

Torch has the channel outermost, ONNX the place in the block: what is left to do is a transpose of
whole planes. ONNX Runtime walks six axes number by number, ten times as long.
"""

import numpy as np

from picme_export.rewrites.graph import Graph, attributes_of

_UNSHUFFLE = [0, 1, 3, 5, 2, 4]
"""(B, C, h, r, w, r) to (B, C, r, r, h, w)."""


def rewrite(graph: Graph) -> int:
    """Replaces every pixel-unshuffle of which nothing else takes a part.

    Returns:
        How many were replaced.
    """
    done = 0
    for transpose in graph.nodes("Transpose"):
        opened = graph.maker(transpose.input[0], "Reshape")
        closed = graph.only_taker(transpose.output[0])
        if attributes_of(transpose).get("perm") != _UNSHUFFLE or opened is None or closed is None:
            continue
        x, six, out = (
            graph.shape(n) for n in (opened.input[0], opened.output[0], closed.output[0])
        )
        if len(x) != 4 or len(six) != 6 or closed.op_type != "Reshape":
            continue
        _, channels, height, block, width, other = six
        four = (channels, height * block, width * block)
        deep = (channels * block**2, height, width)
        if block != other or x[1:] != four or out[1:] != deep or not all(six[1:]):
            continue
        moved = graph.put("SpaceToDepth", [opened.input[0]], blocksize=block)
        planes = graph.keep(np.array([-1, block**2, channels, height, width], np.int64))
        turned = graph.put(
            "Transpose", [graph.put("Reshape", [moved, planes])], perm=[0, 2, 1, 3, 4]
        )
        sides = graph.keep(np.array([-1, *deep], np.int64))
        graph.give(closed.output[0], graph.put("Reshape", [turned, sides]))
        done += 1
    return done

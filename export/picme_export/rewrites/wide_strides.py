"""Pixel-unshuffle, convolution -> one convolution over the pixels, with the block as its stride.

The same products of the same numbers: what was channel and place in the block is channel and place
in a wider kernel. No library has to move the pixels first, which took half as long as the
convolution. The weight keeps its name, for a run may begin with it
(picme_training.engine_weights undoes this).
"""

from collections.abc import Iterator
from typing import NamedTuple

from picme_export.rewrites.graph import Graph, attributes_of, is_plain

_UNSHUFFLE = [0, 1, 3, 5, 2, 4]
"""(B, C, h, r, w, r) to (B, C, r, r, h, w)."""


class _Unshuffle(NamedTuple):
    """Reshape, Transpose, Reshape: torch's pixel-unshuffle, of which nothing else takes a part.

    Attributes:
        x: (B, channels, h block, w block).
        out: (B, channels block block, h, w), the channel outermost.
        channels: C.
        block: r.
    """

    x: str
    out: str
    channels: int
    block: int


def rewrite(graph: Graph) -> int:
    """Replaces every convolution that is the only taker of a pixel-unshuffle.

    Returns:
        How many were replaced.
    """
    done = 0
    for x, out, channels, block in _unshuffles(graph):
        conv = graph.only_taker(out)
        if conv is None or conv.op_type != "Conv" or conv.input[0] != out:
            continue
        name = conv.input[1]
        weight, pads = graph.weight(name), attributes_of(conv).get("pads", [0] * 4)
        if weight is None or len(graph.takers(name)) != 1 or not isinstance(pads, list):
            continue
        outputs, _, high, wide = weight.shape
        if not is_plain(conv, kernel_shape=[high, wide], pads=pads):
            continue
        places = weight.reshape(outputs, channels, block, block, high, wide)
        kernel = [high * block, wide * block]
        widened = places.transpose(0, 1, 4, 2, 5, 3).reshape(outputs, channels, *kernel)
        graph.replace(name, widened)
        new = graph.put(
            "Conv", [x, *conv.input[1:]], kernel_shape=kernel, strides=[block, block],
            pads=[block * pad for pad in pads], dilations=[1, 1], group=1, auto_pad="NOTSET",
        )  # fmt: skip
        graph.give(conv.output[0], new)
        done += 1
    return done


def _unshuffles(graph: Graph) -> Iterator[_Unshuffle]:
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
        if block == other and x[1:] == four and out[1:] == deep and all(six[1:]):
            yield _Unshuffle(opened.input[0], closed.output[0], channels, block)

"""A head of a few colours over DepthToSpace -> convolutions over its phases, then DepthToSpace.

Blocks of 16 channels make three colours cost as much as sixteen. Over the four phases a head makes
all four pixels of a place at once, twelve channels; and the large map is never put together.
"""

import itertools

import numpy as np

from picme_export.rewrites.graph import Graph, attributes_of, is_plain

TAKEN = (((1, -1), (0, 2)), ((0, 2), (-1, 1)))
"""[phase of input][phase of output] -> the kernel's rows at two places; -1 is none.

An even input phase is read at its own place and the next, an odd one at the place before and its
own: output row 2i reads rows 2i-1, 2i, 2i+1, which are odd(i-1), even(i), odd(i).
"""


def rewrite(graph: Graph) -> int:
    """Replaces `Conv 3x3 (Pad reflect 1 (LeakyRelu (DepthToSpace (Concat of four))))`.

    Reflecting a pixel at the border of the large map repeats the border of a phase, so the padding
    becomes one of mode `edge`, on the one side of each phase that is read beyond.

    Returns:
        How many heads were replaced.
    """
    done = 0
    for conv in graph.nodes("Conv"):
        pad = graph.maker(conv.input[0], "Pad")
        act = pad and graph.maker(pad.input[0], "LeakyRelu")
        shuffle = act and graph.maker(act.input[0], "DepthToSpace")
        if pad is None or act is None or shuffle is None:
            continue
        found, wanted = graph.parameters(conv), graph.integers(pad.input[1])
        phases = graph.maker(shuffle.input[0], "Concat")
        if attributes_of(shuffle) != {"blocksize": 2, "mode": "DCR"} or phases is None:
            continue
        if len(phases.input) != 4 or len({graph.channels(name) for name in phases.input}) != 1:
            continue
        if attributes_of(pad).get("mode") != "reflect" or wanted != [0, 0, 1, 1, 0, 0, 1, 1]:
            continue
        if found is None or found[0].shape[2:] != (3, 3) or found[0].shape[0] > 4:
            continue
        if not is_plain(conv, pads=[0, 0, 0, 0]):
            continue
        weight, bias = found
        slope = attributes_of(act)["alpha"]
        total = ""
        for (a, b), phase in zip(itertools.product((0, 1), (0, 1)), phases.input, strict=True):
            seen = graph.put("LeakyRelu", [phase], alpha=float(slope))  # type: ignore[arg-type]
            sides = graph.keep(np.array([0, 0, a, b, 0, 0, 1 - a, 1 - b], np.int64))
            seen = graph.put("Pad", [seen, sides], mode="edge")
            wide = None if total or bias is None else np.repeat(bias, 4)
            one = graph.conv(seen, _kernel(weight, a, b), wide, pads=(0, 0, 0, 0))
            total = graph.put("Add", [total, one]) if total else one
        graph.give(conv.output[0], graph.put("DepthToSpace", [total], blocksize=2, mode="CRD"))
        done += 1
    return done


def _kernel(weight: np.ndarray, a: int, b: int) -> np.ndarray:
    """(C, Ci, 3, 3) -> (4 C, Ci, 2, 2), what the input phase (a, b) adds to each output phase."""
    colours, inputs = weight.shape[:2]
    found = np.zeros((colours, 2, 2, inputs, 2, 2), np.float32)
    for (c, d), (y, x) in itertools.product(itertools.product((0, 1), repeat=2), repeat=2):
        row, column = TAKEN[a][c][y], TAKEN[b][d][x]
        if row >= 0 and column >= 0:
            found[:, c, d, :, y, x] = weight[:, :, row, column]
    return found.reshape(4 * colours, inputs, 2, 2)

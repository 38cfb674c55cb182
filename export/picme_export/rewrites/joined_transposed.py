"""Two transposed convolutions that are added -> one over the concatenated inputs."""

import numpy as np

from picme_export.rewrites.graph import Graph, attributes_of


def rewrite(graph: Graph) -> int:
    """Kernels stacked along the input channels, biases added: no product less, one pass less.

    Returns:
        How many pairs were joined.
    """
    done = 0
    for add in graph.nodes("Add"):
        one, other = (graph.maker(name, "ConvTranspose") for name in add.input)
        if one is None or other is None or one.output == other.output:
            continue
        if graph.only_taker(one.output[0]) is None or graph.only_taker(other.output[0]) is None:
            continue
        about = attributes_of(one)
        if about != attributes_of(other) or about.get("group", 1) != 1:
            continue
        found = [p for p in map(graph.parameters, (one, other)) if p is not None]
        if len(found) < 2 or len({weight.shape[1:] for weight, _ in found}) > 1:
            continue
        if graph.shape(one.input[0])[2:] != graph.shape(other.input[0])[2:]:
            continue
        both = graph.put("Concat", [one.input[0], other.input[0]], axis=1)
        inputs = [both, graph.keep(np.concatenate([weight for weight, _ in found]))]
        known = [bias for _, bias in found if bias is not None]
        if known:
            inputs.append(graph.keep(np.asarray(np.sum(known, axis=0), np.float32)))
        graph.give(add.output[0], graph.put("ConvTranspose", inputs, **about))  # type: ignore[arg-type]
        done += 1
    return done

"""The one table of every tensor of an engine: exporter, checker and runtime read it.

    encoder: image, hole                  -> log_alpha, mu, log_sigma [, z_m], f_0, f_1, ...
    decoder: z [, z_m], f_0, ..., hole    -> picture

The first axis is the batch, named "B" and free; all others are fixed numbers.
"""

from typing import NamedTuple


class Tensor(NamedTuple):
    """One input or output: its name and the shape of one item, batch axis left out; float32."""

    name: str
    shape: tuple[int, ...]


class Graph(NamedTuple):
    """Inputs and outputs of one ONNX graph, in the graph's order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Tables(NamedTuple):
    """Both graphs of a `picme` engine."""

    encoder: Graph
    decoder: Graph


def tables(
    *, size: int, primitives: int, latent: int, features: list[tuple[int, ...]], z_m: bool
) -> Tables:
    """The table of a `picme` engine.

    Args:
        size: S, side of the square picture in pixels.
        primitives: P of the mixture.
        latent: D of z_c.
        features: (C, h, w) of each map that goes from the encoder to the decoder.
        z_m: Whether the decoder also takes the mean of z_m, (D,); not so where the latent is a map.
    """
    image, hole = Tensor("image", (3, size, size)), Tensor("hole", (1, size, size))
    mixture = (
        Tensor("log_alpha", (primitives,)),
        Tensor("mu", (primitives, latent)),
        Tensor("log_sigma", (primitives, latent)),
    )
    maps = tuple(Tensor(f"f_{i}", shape) for i, shape in enumerate(features))
    kept = (Tensor("z_m", (latent,)), *maps) if z_m else maps
    return Tables(
        Graph((image, hole), mixture + kept),
        Graph((Tensor("z", (latent,)), *kept, hole), (Tensor("picture", (3, size, size)),)),
    )

"""The one table of every tensor of an engine: exporter, checker and runtime read it.

    encoder: image, hole                  -> log_alpha, mu, log_sigma [, z_m], f_0, f_1, ...
    decoder: z [, z_m], f_0, ..., hole [, box] -> picture

The first axis is the batch, named "B" and free; all others are fixed numbers, but for the sides of
the picture where a box of it may be asked for.
"""

from typing import Literal, NamedTuple

Kind = Literal["float32", "int64"]
SIDES = ("H", "W")
"""Names of a picture's sides where they follow the box."""


class Tensor(NamedTuple):
    """One input or output.

    Attributes:
        name: Its name.
        shape: Of one item, batch axis left out.
        kind: float32, or int64 for a box.
        batched: Whether it has a batch axis.
        cropped: Whether its two last sides follow the box and are at most those of `shape`.
        repeated: Whether an axis of k, the latents a picture, stands after the batch's: in graphs
            for plans alone (docs/engine-format.md).
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = "float32"
    batched: bool = True
    cropped: bool = False
    repeated: bool = False

    @property
    def axes(self) -> tuple[int | str, ...]:
        """All axes: numbers, and names of those that are free."""
        front: tuple[int | str, ...] = ("B",) * self.batched + ("k",) * self.repeated
        sides: tuple[int | str, ...] = SIDES if self.cropped else self.shape[-2:]
        return *front, *self.shape[:-2], *sides


class Graph(NamedTuple):
    """Inputs and outputs of one ONNX graph, in the graph's order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Tables(NamedTuple):
    """Both graphs of a `picme` engine."""

    encoder: Graph
    decoder: Graph


def tables(
    *,
    size: int,
    primitives: int,
    latent: int,
    features: list[tuple[int, ...]],
    z_m: bool,
    crops: int = 0,
) -> Tables:
    """The table of a `picme` engine.

    Args:
        size: S, side of the square picture in pixels.
        primitives: P of the mixture.
        latent: D of z_c.
        features: (C, h, w) of each map that goes from the encoder to the decoder.
        z_m: Whether the decoder also takes the mean of z_m, (D,); not so where the latent is a map.
        crops: How many windows the decoder takes to crop its maps (`picme_rt.windows`); with any,
            it has the input `box`.
    """
    image, hole = Tensor("image", (3, size, size)), Tensor("hole", (1, size, size))
    mixture = (
        Tensor("log_alpha", (primitives,)),
        Tensor("mu", (primitives, latent)),
        Tensor("log_sigma", (primitives, latent)),
    )
    maps = tuple(Tensor(f"f_{i}", shape) for i, shape in enumerate(features))
    kept = (Tensor("z_m", (latent,)), *maps) if z_m else maps
    box = (Tensor("box", (2 * crops, 2), "int64", batched=False),) if crops else ()
    picture = Tensor("picture", (3, size, size), cropped=crops > 0)
    return Tables(
        Graph((image, hole), mixture + kept),
        Graph((Tensor("z", (latent,)), *kept, hole, *box), (picture,)),
    )

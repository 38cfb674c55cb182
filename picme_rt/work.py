"""How much of a decoder's arithmetic a hole takes: its box and the halo around it."""

import math

import numpy as np

from picme_rt import composite, framing, graph_shapes
from picme_rt.composite import Fit
from picme_rt.engine import Engine
from picme_rt.framing import Box
from picme_rt.images import Hole


def holes(size: int) -> dict[str, Hole]:
    """Square holes in the middle of a picture (S, S): one of 5 % of it, one of half its side."""
    found = {}
    for name, share in (("5 % hole", 0.05), ("centre hole", 0.25)):
        side = max(1, round(size * math.sqrt(share)))
        hole = np.zeros((size, size), bool)
        first = (size - side) // 2
        hole[first : first + side, first : first + side] = True
        found[name] = hole
    return found


def box_of(hole: Hole) -> Box:
    """What a decoder must make for a hole of a picture of its own size (S, S)."""
    (region,) = framing.regions(hole, hole.shape[0], "aligned")
    fitted = Fit(np.zeros((3, *hole.shape), np.float32), hole[None].astype(np.float32))
    return composite.needed(composite.canvas(fitted, hole, region))


def shares(engine: Engine, variant: str) -> dict[str, float]:
    """The share of the decoder's multiply-adds that box and halo need, for each of `holes`.

    1 where the engine's decoder takes no box.

    Raises:
        EngineError: The decoder's file is missing or changed.
    """
    content, table = engine.read(engine.variants[variant]["decoder"]), engine.tables.decoder

    def macs(box: Box) -> int:
        return graph_shapes.cost(content, table, engine.crops, box).macs

    whole = macs(Box(0, 0, engine.size, engine.size))
    return {name: macs(box_of(hole)) / whole for name, hole in holes(engine.size).items()}

"""The way from a pyramid's window to the picture's bytes: what all results of a picture share."""

from typing import NamedTuple

import numpy as np

from picme_rt import detail, resample, seam
from picme_rt.detail import Detail
from picme_rt.errors import EngineError
from picme_rt.framing import Box
from picme_rt.images import Float, Hole, Image, to_levels, to_network
from picme_rt.pyramid import Pyramid

SCREEN = 0.003
STEPS = 120
"""Of the membrane: a wrong light goes some 20 places into the hole, then it has gone."""


class Frame(NamedTuple):
    """A picture around a hole, at the size that was trained.

    Attributes:
        window: Of the finest scale, what the engine's graph makes.
        image: (3, h, w) float32 in [-1, 1], the whole picture; 0 in the hole.
        hole: (h, w) bool: any pixel of the picture under a place is in the hole.
        target: (H, W) bool, the picture's own hole.
        detail: What it takes to enlarge; None where the picture has the trained size.
    """

    window: Box
    image: Float
    hole: Hole
    target: Hole
    detail: Detail | None


def frame(engine: Pyramid, img: Image, hole: Hole) -> Frame:
    """Prepares the way back for a picture and a hole inside of the engine's.

    Args:
        engine: Trained on the picture.
        img: (H, W, 3) uint8; bytes under the hole change nothing.
        hole: (H, W) bool, not empty.
    """
    size = engine.sizes[-1]
    inside = brought(hole, size)
    known = np.where(hole, np.float32(0), to_network(np.moveaxis(img, 2, 0).astype(np.float32)))
    rows, columns = (resample.taps(a, b, "triangle") for a, b in zip(hole.shape, size, strict=True))
    image = np.where(inside, np.float32(0), resample.apply(known, rows, columns))
    larger = detail.prepare(img, hole, image, inside) if size != hole.shape else None
    return Frame(engine.window, image, inside, hole, larger)


def brought(hole: Hole, size: tuple[int, int]) -> Hole:
    """A hole at another size: a place is hole if any weight on a pixel of the hole is not 0."""
    rows, columns = (resample.taps(a, b, "triangle") for a, b in zip(hole.shape, size, strict=True))
    # weights of this kernel are not negative
    found: Hole = resample.apply(hole[None].astype(np.float32), rows, columns)[0] > 0
    return found


def check_window(engine: Pyramid, hole: Hole) -> None:
    """Refuses an engine whose window leaves a part of its own hole out.

    Raises:
        EngineError: It does.
    """
    inside, box = brought(hole, engine.sizes[-1]), engine.window
    inside[box.top : box.bottom, box.left : box.right] = False
    if inside.any():
        raise EngineError(
            f"the windows of {engine.path} must hold its hole, got {int(inside.sum())} places of "
            f"it outside of {tuple(box)}; train it again"
        )


def paste(frame: Frame, made: Float, target: Image) -> None:
    """Writes a result into the hole of `target`, and nothing outside of it.

    Args:
        frame: Of the picture.
        made: (3, h, w) float32, the window as the graph gave it.
        target: (H, W, 3) uint8, the picture.
    """
    box = frame.window
    part = np.s_[box.top : box.bottom, box.left : box.right]
    inside, known = frame.hole[part], frame.image[:, *part]
    missed = known - made
    filled = made + seam.spread(missed, inside, screen=SCREEN, steps=STEPS)
    filled = np.where(inside, filled, known).clip(-1, 1)
    if frame.detail is not None:
        whole = frame.image.copy()
        whole[:, *part] = filled
        detail.enlarge(frame.detail, whole, target)
        return
    hole = frame.target[part]
    levels = np.rint(to_levels(filled)).astype(np.uint8)
    target[part][hole] = np.moveaxis(levels, 0, 2)[hole]

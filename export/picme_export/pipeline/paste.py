"""The way from pictures to bytes (docs/compositing.md, `Steps`)."""

import numpy as np

from picme_export.pipeline import resizing
from picme_export.pipeline.region import Region
from picme_export.pipeline.steps import Value
from picme_rt import composite


def paste(
    pictures: Value,
    fitted: Value,
    missing: Value,
    image: Value,
    hole: Value,
    region: Region,
    size: int,
) -> Value:
    """Results (k, H, W, 3) uint8, outside the hole equal to `image` to the bit.

    Args:
        pictures: (k, 3, S, S) float32 in [-1, 1], the decoder's.
        fitted: (1, 3, S, S) float32, what was known at the engine's size.
        missing: (1, 1, S, S) float32, 1 where it was not.
        image: (H, W, 3) uint8, the original.
        hole: (H, W) bool.
        region: Where the pictures lie.
        size: S.
    """
    steps = pictures.steps
    known = missing.less(0.5)
    blended = known.where(fitted, pictures + _shift(pictures, fitted, known, size))
    source, boxes = steps.constant([size], np.int64), []
    for begin, low, high in (
        (region.top, region.box_top, region.box_bottom),
        (region.left, region.box_left, region.box_right),
    ):
        ends = {"first": low - begin, "last": high - begin}
        boxes.append(resizing.matrix(source, region.side, "cubic", **ends))
    value = resizing.resize(blended, *boxes)
    levels = steps.op("Round", (value + 1) * 127.5).larger(0).smaller(255)
    made = levels.transpose(0, 2, 3, 1).cast(np.uint8)
    zero = steps.constant([0], np.int64)
    below, right = image.size(0) - region.box_bottom, image.size(1) - region.box_right
    pads = zero.join(0, region.box_top, region.box_left, zero, zero, below, right, zero)
    whole = steps.op("Pad", made, pads, steps.constant(0, np.uint8))
    return hole.insert(2).where(whole, image)


def _shift(pictures: Value, fitted: Value, known: Value, size: int) -> Value:
    """What the decoder missed at the known pixels, spread a little way into the hole."""
    steps = pictures.steps
    cell, blur, grow = composite.seam(size)
    spread, larger = (steps.constant(resizing.dense(taps, size // cell)) for taps in (blur, grow))

    def pooled(planes: Value) -> Value:
        means = steps.op("AveragePool", planes, kernel_shape=(cell, cell), strides=(cell, cell))
        return resizing.resize(means, spread, spread)

    missed = known.where(fitted - pictures, steps.constant(0, np.float32))
    near = pooled(known.cast(np.float32))
    pulled = pooled(missed) / (near + 0.05)
    return resizing.resize(pulled, larger, larger)

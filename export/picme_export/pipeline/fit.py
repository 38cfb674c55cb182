"""The way in: a region's known pixels at the engine's size (docs/compositing.md, `The way in`)."""

import numpy as np

from picme_export.pipeline import resizing
from picme_export.pipeline.region import Region
from picme_export.pipeline.steps import Value


def fit(image: Value, hole: Value, region: Region, size: int) -> tuple[Value, Value]:
    """The weighted mean of the known pixels; `picme_rt.known_mean` but for the order of its sums.

    Args:
        image: (H, W, 3) uint8; what is under the hole is multiplied by 0.
        hole: (H, W) bool.
        region: The square that is wanted.
        size: S.

    Returns:
        (1, 3, S, S) float32 in [-1, 1], 0 where unknown; (1, 1, S, S) float32, 1 where unknown.
    """
    steps = image.steps
    known, weights = ~hole, []
    for axis, first in ((0, region.top), (1, region.left)):
        begin, end = first.larger(0), (first + region.side).smaller(image.size(axis))
        image, known = image.part(axis, begin, end), known.part(axis, begin, end)
        taps = resizing.matrix(region.side, steps.constant([size], np.int64), "triangle")
        weights.append(taps.part(1, begin - first, end - first))
    share = known.cast(np.float32).insert(0)
    planes = image.cast(np.float32).transpose(2, 0, 1) * share
    rows, columns = weights
    sums = (rows @ planes.join(0, share)) @ columns.transpose(1, 0)
    levels, share = sums.part(0, 0, 3), sums.part(0, 3, 4)
    unknown = share.less(1 - 1e-5)
    value = levels / share.larger(1e-6) / 127.5 - 1
    fitted = unknown.where(steps.constant(0, np.float32), value)
    return fitted.insert(0), unknown.cast(np.float32).insert(0)

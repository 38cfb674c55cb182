"""How well a filled hole is made of what is around it: the bidirectional patch distance.

Simakov et al. 2008: coherence says whether all patches of the filling occur in the known picture,
completeness whether all patches of the known picture occur in the filling.
"""

from typing import NamedTuple

import numpy as np

from picme_rt import patch_search
from picme_rt.errors import InputError
from picme_rt.images import Hole, Image
from picme_rt.patch_search import REACH, Picture, Places


class PatchDistance(NamedTuple):
    """Mean squared distances to the nearest patch, a colour value, in levels squared.

    Attributes:
        coherence: Of patches that the hole touches, to known ones.
        completeness: Of known patches, to those that the hole touches.
    """

    coherence: float
    completeness: float

    @property
    def both(self) -> float:
        """Their sum, the bidirectional patch distance."""
        return self.coherence + self.completeness


def patch_distance(picture: Image, hole: Hole, *, every: int = 3) -> PatchDistance:
    """The bidirectional patch distance of a filled picture, patches of 7 x 7 pixels.

    Args:
        picture: (H, W, 3) uint8.
        hole: (H, W) bool, what was filled.
        every: Each mean is over every so many-th row and column; the nearest is sought among all.

    Raises:
        InputError: Either kind of patch is missing.
    """
    filled, known = places(hole)
    width = hole.shape[1]
    pixels = np.zeros((*hole.shape, 4), np.int16)
    pixels[..., :3] = picture
    means = []
    for queries, keys in ((filled, known), (known, filled)):
        rows, columns = np.divmod(queries, width)
        some = queries[(rows % every == 0) & (columns % every == 0)]
        means.append(_mean(pixels, some if len(some) else queries, keys))
    return PatchDistance(*means)


def places(hole: Hole) -> tuple[Places, Places]:
    """The middles of patches of 7 x 7 that a hole (H, W) touches, and of those that are known.

    Raises:
        InputError: Either kind is missing.
    """
    height, width = hole.shape
    inner = np.zeros(hole.shape, bool)
    inner[REACH : height - REACH, REACH : width - REACH] = True
    near = np.zeros(hole.shape, bool)
    padded = np.pad(hole, REACH)
    for y in range(2 * REACH + 1):
        for x in range(2 * REACH + 1):
            near |= padded[y : y + height, x : x + width]
    filled = np.flatnonzero(near & inner).astype(np.int32)
    known = np.flatnonzero(~near & inner).astype(np.int32)
    if not len(filled) or not len(known):
        raise InputError(
            f"a patch distance needs filled and known patches, got {len(filled)} and {len(known)}"
        )
    return filled, known


def _mean(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.int16]]", q: Places, k: Places) -> float:
    seen = Picture(pixels, np.ones_like(pixels), q)
    _, distances = patch_search.nearest(seen, k, np.ones(len(k)), np.inf)
    return float(distances.mean()) / (3 * (2 * REACH + 1) ** 2)

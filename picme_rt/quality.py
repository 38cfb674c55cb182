"""How near the pictures of a lower precision come to those of fp32, as measured at export."""

import dataclasses
import math
from typing import Any

from picme_rt.errors import EngineError

LEAST_PSNR = 37.0
"""Decibels to fp32 in the hole, mean of many results, from which nobody sees a difference."""
LEAST_OF_ALL = 33.0
"""Of the worst result: at 30 dB an eye had another colour."""
MOST_LPIPS = 0.01
"""Mean LPIPS to fp32 in the hole, likewise."""
_PICTURES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Quality:
    """Completions in a lower precision against the same ones in fp32, over held-out pictures.

    Attributes:
        psnr: Mean decibels in the hole.
        least_psnr: Of the worst result.
        lpips: Mean LPIPS (SqueezeNet) in the hole; None where it was not measured.
        pictures: How many.
    """

    psnr: float
    least_psnr: float
    lpips: float | None
    pictures: int

    @property
    def near(self) -> bool:
        """Whether `auto` may take the precision: PSNR and LPIPS are measured, and within bounds."""
        level = self.psnr >= LEAST_PSNR and self.least_psnr >= LEAST_OF_ALL
        return level and self.lpips is not None and self.lpips <= MOST_LPIPS


def parse(entry: dict[str, Any]) -> Quality:
    """One entry of a manifest, its numbers finite already.

    Raises:
        EngineError: A number is missing, of another kind, or outside of what it can be.
    """
    if set(entry) != {field.name for field in dataclasses.fields(Quality)}:
        raise EngineError(f"it must have psnr, least_psnr, lpips and pictures, got {sorted(entry)}")
    found = Quality(**entry)
    for name, value, low, high in (
        ("psnr", found.psnr, 0.0, 1000.0),
        ("least_psnr", found.least_psnr, 0.0, 1000.0),
        ("lpips", 0.0 if found.lpips is None else found.lpips, 0.0, math.inf),
    ):
        if type(value) is not float or not low <= value <= high:
            raise EngineError(f"{name} must be a number in {low:g}..{high:g}, got {value!r:.40}")
    if type(found.pictures) is not int or not 1 <= found.pictures <= _PICTURES:
        raise EngineError(f"pictures must be in 1..{_PICTURES}, got {found.pictures!r:.40}")
    return found

"""How long and how wide: the paper's schedule, and two that a CPU finishes."""

import dataclasses
from typing import Literal

from picme_rt.errors import InputError

Naive = Literal["dip", "dip-original", "patch", "telea"]
NAIVES: tuple[Naive, ...] = ("dip", "dip-original", "patch", "telea")
_WIDER_EVERY = 4  # scales


@dataclasses.dataclass(frozen=True)
class Preset:
    """A schedule.

    Attributes:
        width: Channels in the first four scales; doubled every four.
        widest: Most channels.
        coarse: Iterations of a scale that learns from the naive completion.
        fine: Iterations of a scale that learns from known pixels alone.
        coarse_rate: Adam's learning rate; a tenth of it after four fifths of the iterations.
        fine_rate: Likewise of fine scales, where it stays.
        steps: Steps of D, then of G, an iteration.
        alpha: Weight of the reconstruction ...
        alpha_last: ... and in the last third of the scales.
        naive: The naive completion.
        completions: Learn from completions: every scale begins with the one before, the known
            pixels pasted in, and in the hole changes its detail alone; what D judges is a
            completion, by the places that see its hole. Else, as published, D judges pictures of
            new noise everywhere.
        choices: Naive completions, of patches (choices.py), that the noise of the coarsest scale
            chooses from, the scale beginning with its choice; 0, as published: one, and it begins
            with nothing.
        average: Of G's weights over iterations what is kept an iteration; 0 takes the last ones.
        reduced: Convolutions in bfloat16; norms, losses, penalties and Adam stay float32.
        variance: Of the noise, before its amplitude.
        coarse_scales: Begin with the scales that need a naive completion, if there are such; else
            with the first that does not.
        masked_norm: Norms of D take their statistics of the real picture where that is known.
    """

    width: int
    widest: int
    coarse: int
    fine: int
    coarse_rate: float
    fine_rate: float
    steps: int
    alpha: float
    alpha_last: float
    naive: Naive
    completions: bool = False
    choices: int = 0
    average: float = 0.0
    reduced: bool = False
    variance: float = 1.0
    coarse_scales: bool = True
    masked_norm: bool = True

    def width_of(self, scale: int) -> int:
        """Channels of a scale, 0 being the coarsest."""
        return min(self.width << (scale // _WIDER_EVERY), self.widest)

    def alpha_of(self, scale: int, scales: int) -> float:
        """Weight of the reconstruction at one of `scales` scales."""
        return self.alpha_last if 3 * scale >= 2 * scales else self.alpha

    def rate(self, fine: bool, iteration: int) -> float:
        """The learning rate of an iteration."""
        if fine:
            late = self.completions and iteration >= 0.8 * self.fine
            return self.fine_rate * (0.1 if late else 1.0)
        return self.coarse_rate * (0.1 if iteration >= 0.8 * self.coarse else 1.0)


PRESETS = {
    "paper": Preset(32, 128, 2000, 3000, 5e-4, 5e-5, 3, 10, 100, "dip"),
    "balanced": Preset(32, 64, 800, 1200, 5e-4, 2e-4, 1, 10, 100, "dip"),
    "fast": Preset(32, 32, 40, 240, 5e-4, 5e-4, 1, 2000, 2000, "patch", True, 12, 0.99, True),
}


def find(name: str) -> Preset:
    """The preset of a name.

    Raises:
        InputError: There is none.
    """
    if name not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]

"""torch.compile of what most of a training step's time goes to: f, g, D and the frozen features.

On a GPU most of a step is passes over memory that one kernel can do together; what stays as it is
(losses, draws, moves of the pictures) is small, or depends on random whole numbers.
"""

import copy
from collections.abc import Callable

import torch

from picme_training.discriminator import Discriminator
from picme_training.networks import Picme
from picme_training.perceptual import Lpips

BACKEND = "inductor"


def networks(model: Picme, judge: Discriminator) -> None:
    """Compiles these, in place: their weights, and copies made before, stay as they are."""
    for module, name in ((model, "features"), (model, "decode"), (judge, "forward")):
        setattr(module, name, _compiled(getattr(module, name)))


def features(lpips: Lpips) -> Lpips:
    """The same measure with the same weights, compiled; the one given still takes any batch."""
    same = copy.copy(lpips)
    for name in ("taps", "between"):
        setattr(same, name, _compiled(getattr(lpips, name)))
    return same


def _compiled(function: Callable[..., object]) -> Callable[..., object]:
    # every step has the same sizes; others, as an evaluation's, would be compiled anew
    return torch.compile(function, dynamic=False, backend=BACKEND)

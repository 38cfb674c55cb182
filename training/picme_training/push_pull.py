"""A smooth filling of a hole from what is known around it: push-pull.

Gortler et al., The Lumigraph, 1996, section 4.4. Push: every place of a map of half the side is the
mean of the known places under it. Pull: back at each finer map a place in the hole takes the
coarser one's colour. A few means over 3 x 3 there, known places held, come near the membrane that
an inpainting by diffusion would converge to, at a hundredth of the steps.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = 2  # means over 3 x 3 at each scale
FADE = 0.5  # of the nearness, from a scale to the next finer one
SMALLEST = 4  # side below which nothing is left to smooth


def filled(image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """Colours everywhere, and how near the known pixels are that they come from.

    Args:
        image: (B, 3, S, S) float32, S a power of two; what lies in the hole does not matter.
        hole: (B, 1, S, S) float32, 1 in the hole, 0 elsewhere.

    Returns:
        Colours (B, 3, S, S), those of `image` where they are known, and nearness (B, 1, S, S): 1 at
        known pixels, less with the distance, above 0 unless nothing is known at all. Where nothing
        is, both are 0.
    """
    known = 1 - hole
    maps = [torch.cat([image * known, known], 1)]  # colours, then what share of them is known
    while maps[-1].shape[-1] > 1:
        mean = F.avg_pool2d(maps[-1], 2)
        several = mean.chunk(4, 1)[3].clamp(0.25, 1.0)  # one known pixel of four is enough
        maps.append(mean / several)
    made = maps.pop()
    fade = torch.tensor([1, 1, 1, FADE]).to(hole.device, non_blocking=True).view(1, 4, 1, 1)
    for there in reversed(maps):
        made = _pulled(fade * made, there)
    *colours, near = made.chunk(4, 1)
    return torch.cat(colours, 1), near


def _pulled(coarse: Tensor, there: Tensor) -> Tensor:
    """A map of twice the side: `there` where it is known, elsewhere the coarser one, smoothed."""
    unknown = 1 - there.chunk(4, 1)[3]
    wide = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    made = there + unknown * wide
    for _ in range(STEPS if made.shape[-1] >= SMALLEST else 0):
        made = there + unknown * _mean(made)
    return made


def _mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)

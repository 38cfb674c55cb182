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


def filled(image: Tensor, hole: Tensor) -> Tensor:
    """Colours everywhere, and how near the known pixels are that they come from.

    Args:
        image: (B, 3, S, S) float32, S a power of two; what lies in the hole does not matter.
        hole: (B, 1, S, S) float32, 1 in the hole, 0 elsewhere.

    Returns:
        (B, 4, S, S) float32: colours, those of `image` where they are known, and nearness: 1 at
        known pixels, about half as much with each doubling of the distance. All 0 where nothing is
        known at all.
    """
    known = 1 - hole
    maps = [(torch.cat([image * known, known], dim=1), known)]
    while (below := maps[-1])[1].shape[-1] > 1:
        share = F.avg_pool2d(below[1], 2)
        several = share.clamp(0.25, 1.0)  # one known pixel of four is enough
        maps.append((F.avg_pool2d(below[0], 2) / several, share / several))
    fade = torch.tensor([1.0, 1.0, 1.0, FADE], device=image.device).view(1, 4, 1, 1)
    whole, _ = maps.pop()
    while maps:
        there, known = maps.pop()
        wide = F.interpolate(whole, scale_factor=2.0, mode="bilinear", align_corners=False)
        whole = there + (1 - known) * (wide * fade)
        if whole.shape[-1] >= SMALLEST:
            for _ in range(STEPS):
                whole = there + (1 - known) * _mean(whole)
    return whole


def _mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)

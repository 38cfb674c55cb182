"""The discriminators D of Eq. 7: PIC's residual one, and a compact one for the preset `cats`.

D gives a list of float32 score maps (B, 1, h, w), each with its own patches of the picture; the
losses are means over the maps.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from picme_rt.errors import InputError
from picme_training.attention import attended, plainly_attended
from picme_training.blocks import SLOPE, ResidualDown, conv
from picme_training.config import NetworkConfig
from picme_training.networks import COARSE
from picme_training.perceptual import TAPS, Lpips
from picme_training.unshuffling import unshuffled

HEADS = {4: 128, 7: 256, 12: 512}
"""Layers of SqueezeNet whose features are judged, at 1/4, 1/8 and 1/16 of the side: channels."""


class SelfAttention(nn.Module):
    """x + gamma xA' with A = softmax(q'q) over all places, as in PIC's discriminator."""

    def __init__(self, channels: int):
        super().__init__()
        self.query = conv(channels, channels // 4, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        gathered = attended if self.training else plainly_attended
        (found,) = gathered(self.query(x), x)
        return x + self.gamma * found


class PicDiscriminator(nn.Module):
    """Residual blocks down to 8x8, self-attention at 32x32 (16x16 at size 64), 6x6 scores.

    As PIC's it does not look at the hole.
    """

    def __init__(self, size: int):
        super().__init__()
        steps = int(math.log2(size // COARSE))
        widths = [min(32 * 2**i, 128) for i in range(steps)]
        layers: list[nn.Module] = []
        inputs, side = 3, size
        for i, width in enumerate(widths):
            layers.append(ResidualDown(inputs, width, first=i == 0))
            inputs, side = width, side // 2
            if side == (32 if size > 64 else 16):
                layers.append(SelfAttention(width))
        self.layers = nn.Sequential(*layers)
        self.score = spectral_norm(nn.Conv2d(inputs, 1, 3))

    def seen(self, image: Tensor, taps: list[Tensor] | None = None) -> list[Tensor]:
        """No frozen features: see `CompactDiscriminator.seen`."""
        return []

    def forward(
        self, image: Tensor, hole: Tensor, seen: list[Tensor] | None = None
    ) -> list[Tensor]:
        return [self.score(F.leaky_relu(self.layers(image), SLOPE)).float()]


class CompactDiscriminator(nn.Module):
    """Strided 4x4 convolutions from 32x32 (pixel-unshuffled) to 8x8 scores.

    With `hole` the hole is a fourth channel: D need not find out where to look. With `features` it
    also judges, by small heads, the frozen features of a network that knows photographs (Projected
    GAN, Sauer et al. 2021), which learn faster than layers that start from pixels.
    """

    def __init__(self, size: int, *, hole: bool, features: Lpips | None):
        super().__init__()
        self.unshuffle, self.hole = size // 32, hole
        self.features = (features,)  # in a tuple: no part of D, neither saved nor trained
        self.heads = nn.ModuleList(_head(HEADS[tap]) for tap in HEADS if features is not None)

        def layer(inputs: int, outputs: int, side: int, stride: int) -> nn.Module:
            return spectral_norm(nn.Conv2d(inputs, outputs, side, stride, padding=(side - 1) // 2))

        self.layers = nn.ModuleList(
            [
                layer((4 if hole else 3) * self.unshuffle**2, 64, 3, 1),
                layer(64, 128, 4, 2),
                layer(128, 192, 4, 2),
                layer(192, 192, 3, 1),
            ]
        )
        self.score = nn.Conv2d(192, 1, 3, padding=1)  # free to reach LSGAN's 0 and 1

    def seen(self, image: Tensor, taps: list[Tensor] | None = None) -> list[Tensor]:
        """The frozen features that D judges, none without `features`: they serve both steps.

        `taps` are all of LPIPS's of the image, where they are at hand.
        """
        (features,) = self.features
        if features is None:
            return []
        if taps is None:
            return features.taps(image, tuple(HEADS))
        return [tap for layer, tap in zip(TAPS, taps, strict=True) if layer in HEADS]

    def forward(
        self, image: Tensor, hole: Tensor, seen: list[Tensor] | None = None
    ) -> list[Tensor]:
        x = torch.cat([image, hole], dim=1) if self.hole else image
        x = unshuffled(x, self.unshuffle)
        for strided in self.layers:
            x = F.leaky_relu(strided(x), 0.2, inplace=True)
        scores = [self.score(x)]
        seen = self.seen(image) if seen is None else seen
        scores += [head(tap) for head, tap in zip(self.heads, seen, strict=True)]
        return [one.float() for one in scores]


Discriminator = PicDiscriminator | CompactDiscriminator


def _head(channels: int) -> nn.Module:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, 64, 1)),
        nn.LeakyReLU(0.2, inplace=True),
        spectral_norm(nn.Conv2d(64, 64, 3, padding=1)),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(64, 1, 3, padding=1),
    )


def check(config: NetworkConfig, lpips: Lpips | None) -> None:
    """Refuses a discriminator that judges features where there is nothing to make them.

    Raises:
        InputError: `config.judge_features` is set and `lpips` is None.
    """
    if config.judge_features and lpips is None:
        raise InputError(
            "network.judge_features needs the weights of LPIPS: pass --lpips-weights FILE "
            "(docs/training.md), or set judge_features = false"
        )


def make(config: NetworkConfig, lpips: Lpips | None = None) -> Discriminator:
    """The discriminator of a network: (B, 3, S, S), hole (B, 1, S, S) -> score maps (B, 1, h, w).

    Args:
        config: The network.
        lpips: Gives the features of `judge_features`, and is not needed without.

    Raises:
        InputError: As `check` says.
    """
    check(config, lpips)
    if config.preset == "cats":
        features = lpips if config.judge_features else None
        return CompactDiscriminator(config.size, hole=config.judge_hole, features=features)
    return PicDiscriminator(config.size)

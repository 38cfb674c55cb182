"""PIC's blocks: what f, g and D of the layouts `picme` and `pic` are made of.

Out of training, and in an export, each is one operation after the other; in training it says the
same up to rounding in fewer passes over memory (a test).
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from picme_training.attention import attended, plainly_attended
from picme_training.cropping import Cropping, whole
from picme_training.instance_norm import LeakyNorm

SLOPE = 0.1  # of LeakyReLU in PIC's networks


def conv(inputs: int, outputs: int, side: int) -> nn.Module:
    """A convolution that keeps the size, under spectral norm (method.md 16)."""
    return spectral_norm(nn.Conv2d(inputs, outputs, side, padding=side // 2))


def reflected(inputs: int, outputs: int, side: int) -> nn.Module:
    """The same with reflection padding."""
    return spectral_norm(_Reflected(inputs, outputs, side))


class _Reflected(nn.Conv2d):
    def __init__(self, inputs: int, outputs: int, side: int):
        super().__init__(inputs, outputs, side, padding=side // 2, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):  # which would pad in float32
            x = F.pad(x, self._reversed_padding_repeated_twice, mode="reflect")
        return F.conv2d(x, self.weight, self.bias)


class ResidualDown(nn.Module):
    """PIC's encoder block: two 3x3 convolutions and AvgPool2 beside a pooled 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int, *, first: bool = False, down: bool = True):
        super().__init__()
        self.first, self.down = first, down
        hidden = outputs if first else min(inputs, outputs)
        self.conv1, self.conv2 = conv(inputs, hidden, 3), conv(hidden, outputs, 3)
        self.shortcut = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else F.leaky_relu(x, SLOPE))
        h = F.leaky_relu(h, SLOPE, inplace=self.training)
        if not self.down:
            return self.conv2(h) + self.shortcut(x)
        x = self.shortcut(F.avg_pool2d(x, 2))
        if self.training:  # the same numbers, and no map of the full size between
            return pooled(self.conv2, h) + x
        return F.avg_pool2d(self.conv2(h), 2) + x


def pooled(layer: nn.Module, x: Tensor) -> Tensor:
    """AvgPool2 of a 3x3 convolution that keeps the size: one of 4x4 and stride 2."""
    weight, bias = _parameters(layer)
    moved = [F.pad(weight, (i, 1 - i, j, 1 - j)) for i in (0, 1) for j in (0, 1)]
    return F.conv2d(x, torch.stack(moved).mean(0), bias, stride=2, padding=1)


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias; each look at a weight under spectral norm is a step of power iteration."""
    return cast(Tensor, layer.weight), cast(Tensor, layer.bias)


class ResidualUp(nn.Module):
    """PIC's decoder block: instance norm, 3x3, instance norm, transposed 3x3 of stride 2."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.norm2 = LeakyNorm(inputs, SLOPE), LeakyNorm(outputs, SLOPE)
        self.conv = conv(inputs, outputs, 3)
        self.up = spectral_norm(_transposed(outputs, outputs))
        self.shortcut = spectral_norm(_transposed(inputs, outputs))

    def forward(self, x: Tensor, crop: Cropping = whole) -> Tensor:
        h = self.conv(self.norm1(x))
        h = self.norm2(h)  # the last statistics of the whole map
        h, x = crop(h, 0), crop(x, 0)
        if self.training:  # the same sum, its two parts in one convolution
            (weight, bias), (weight_x, bias_x) = map(_parameters, (self.up, self.shortcut))
            y = F.conv_transpose2d(
                torch.cat([h, x], 1), torch.cat([weight, weight_x]), None, 2, 1, 1
            )
            # apart, because torch takes four times the rest of the way back for this one's gradient
            return y.add_((bias + bias_x).to(y.dtype)[:, None, None])
        return self.up(h) + self.shortcut(x)


def _transposed(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


class Attention(nn.Module):
    """PIC's short + long term attention: o = gamma xA' + x; c = alpha (1-m) f_e A' + m f_e."""

    def __init__(self, channels: int, skip: int):
        super().__init__()
        self.query = conv(channels, channels // 4, 1)
        self.gamma = nn.Parameter(torch.zeros(()))
        self.alpha = nn.Parameter(torch.zeros(()))
        self.merge = ResidualDown(channels + skip, channels, down=False)

    def forward(self, x: Tensor, f_e: Tensor, hole: Tensor) -> Tensor:
        gathered = attended if self.training else plainly_attended
        short, long = gathered(self.query(x), x, f_e)
        known = known_at(hole, x.shape[-1])
        if self.training:  # shares of few pixels: exact in bf16, and all that follows stays in it
            known = known.to(x.dtype)
        o = self.gamma * short + x
        c = self.alpha * (1 - known) * long + known * f_e
        return self.merge(torch.cat([o, c], dim=1))


def known_at(hole: Tensor, side: int) -> Tensor:
    """Share of known pixels, (B, 1, side, side), under each place of a smaller map."""
    return F.avg_pool2d(1 - hole, hole.shape[-1] // side)

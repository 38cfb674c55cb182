"""The layout `cats`: PICME's roles with the arithmetic spent where the picture is small.

The picture enters at 32x32 by pixel-unshuffle; z reaches every scale of the decoder as a
per-channel scale and shift; the features of I_m reach it weighted by the share of known pixels, so
that the hole is filled from z and from the coarsest map. Above 64x64 the picture leaves it by
pixel-shuffle, at 256x256 by one that makes flat cells of flat maps. With `detail` the decoder's
last map also sees the known pixels around the hole as they are, through one convolution of I_m, so
that a filling goes on where the picture ends. No operation spans the whole image above 8x8, hence a
runtime may decode the hole alone (`Decoder.crops`). docs/method.md lists these departures.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picme_rt.windows import Crop
from picme_training.cropping import Cropping, whole
from picme_training.unshuffling import unshuffled

WIDTHS = {8: 128, 16: 96, 32: 48}
"""Channels of the maps, by their side in pixels."""
FINEST = 64  # side of the decoder's last map
LATENT = 128
STYLE = 192
DETAIL = 32  # channels at 64x64 that come straight from I_m
SLOPE = 0.2


def _conv(inputs: int, outputs: int, side: int = 3, stride: int = 1) -> nn.Conv2d:
    return _begun(nn.Conv2d(inputs, outputs, side, stride, padding=(side - 1) // 2))


def _begun(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # bias is there by default
    return layer


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)  # torch's default would fade z out
    nn.init.zeros_(layer.bias)
    return layer


def _twice(x: Tensor) -> Tensor:
    """Twice the side. Nearest left a grid of squares in flat fur, which D was slow to see."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _shuffled(x: Tensor, ratio: int) -> Tensor:
    """Pixel-shuffle, then 1 2 1 / 4 along both axes, which no pattern near period 2 passes.

    Such a weave is what a shuffle makes by itself, and what losses on features of stride 2 like. A
    mean of two neighbours left a fifth of period 2.2 in fur, and g wove just that.
    """
    line = torch.tensor([0.25, 0.5, 0.25]).to(x.device, non_blocking=True)
    weights = torch.eye(3, device=x.device)[:, :, None, None] * (line[:, None] * line)
    pixels = F.pad(F.pixel_shuffle(x, ratio), (1, 1, 1, 1), mode="reflect")
    return F.conv2d(pixels, weights)


class EvenShuffle(nn.Conv2d):
    """The 3x3 convolution before a pixel-shuffle: what is flat in its map is flat in its pixels.

    Each of a cell's r x r pixels has a filter of its own. Where a map has nothing to say about them
    these would still differ, and losses that like texture have them say the same in every cell: a
    weave of period r. So a colour's r r filters are held to one sum for each input, and its biases
    to one value; slopes and edges may differ as before. ICNR (Aitken et al. 2017) begins so.

    Not a parametrization: its weights keep the names that checkpoints, engines and grow.py know.
    """

    def __init__(self, inputs: int, ratio: int):
        super().__init__(inputs, 3 * ratio**2, 3, padding=1)

    def even(self) -> tuple[Tensor, Tensor]:
        """Weight and bias as they are used: the nearest that have equal sums."""
        assert self.bias is not None
        sums = self.weight.sum((2, 3)).view(3, -1, self.in_channels)
        excess = (sums - sums.mean(1, keepdim=True)).flatten(0, 1)
        colours = self.bias.view(3, -1)
        bias = colours.mean(1, keepdim=True).expand_as(colours).flatten()
        return self.weight - excess[:, :, None, None] / 9, bias

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.even(), padding=1)


class Residual(nn.Module):
    """x + conv(act(conv(act(x)))), with an optional scale and shift of the middle by a style."""

    def __init__(self, width: int, *, styled: bool = False):
        super().__init__()
        self.conv1, self.conv2 = _conv(width, width), _conv(width, width)
        self.style = nn.Linear(STYLE, 2 * width) if styled else None
        with torch.no_grad():
            self.conv2.weight.mul_(0.3)  # no norm: keep the sum's variance near its input's

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        h = self.conv1(F.leaky_relu(x, SLOPE))
        if self.style is not None:
            scale, shift = self.style(style)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return x + self.conv2(F.leaky_relu(h, SLOPE, inplace=True))


class Encoder(nn.Module):
    """(B, C, S, S) -> maps at 32x32, 16x16 and 8x8; before them those of finer places.

    With `detail` that is a map of 64x64; with `push_pull`, before it, what is pasted at S x S: the
    filling by its nearness, and how much of the decoder's own colours is added to it. `shapes` are
    those of the maps as `Decoder.prepared` leaves them.
    """

    def __init__(self, size: int, inputs: int, *, detail: bool = False, push_pull: bool = False):
        super().__init__()
        self.unshuffle = size // 32
        seen = inputs + 4 if push_pull else inputs
        self.detail = _conv(seen * self.unshuffle**2 // 4, DETAIL) if detail else None
        self.block64 = Residual(DETAIL) if push_pull else None
        self.enter = _conv(inputs * self.unshuffle**2, WIDTHS[32])
        self.block32 = Residual(WIDTHS[32])
        self.down16 = _conv(WIDTHS[32], WIDTHS[16], 4, 2)
        self.block16 = Residual(WIDTHS[16])
        self.down8 = _conv(WIDTHS[16], WIDTHS[8], 4, 2)
        self.block8 = Residual(WIDTHS[8])
        self.shapes: list[tuple[int, ...]] = [(WIDTHS[s], s, s) for s in (32, 16, 8)]
        if detail:
            self.shapes.insert(0, (DETAIL, FINEST, FINEST))
        if push_pull:
            self.shapes[:0] = [(3, size, size), (1, size, size)]

    def forward(
        self, x: Tensor, smooth: Tensor | None = None, near: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        f32 = self.block32(self.enter(unshuffled(x, self.unshuffle)))
        f16 = self.block16(self.down16(F.leaky_relu(f32, SLOPE)))
        f8 = self.block8(self.down8(F.leaky_relu(f16, SLOPE)))
        if self.detail is None:
            return f32, f16, f8
        filled: tuple[Tensor, ...] = ()
        if smooth is not None and near is not None:
            x = torch.cat([x, smooth, near], dim=1)
            filled = near * smooth, 1 - near
        # One filter for all places of 64x64: a filter for each of four would print its grid
        detail = self.detail(unshuffled(x, self.unshuffle // 2))
        if self.block64 is not None:
            detail = self.block64(detail)
        return *filled, detail, f32, f16, f8


class Decoder(nn.Module):
    """z, z_m and the maps of I_m, `prepared` -> one picture (B, 3, S, S)."""

    SEED = 16  # channels of the 8x8 map drawn from the style

    def __init__(self, size: int, shapes: list[tuple[int, ...]], latent: int):
        super().__init__()
        self.style = nn.Sequential(
            _linear(2 * latent, STYLE), nn.LeakyReLU(SLOPE), _linear(STYLE, STYLE)
        )
        self.seed = _linear(STYLE, self.SEED * 64)
        self.enter, self.skip, self.blocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = self.SEED
        *finer, f32, f16, f8 = shapes
        for channels, side, _ in (f8, f16, f32):
            width = WIDTHS[side]
            self.enter.append(_conv(inputs, width))
            self.skip.append(_conv(channels, width, 1))
            self.blocks.append(
                nn.ModuleList(Residual(width, styled=True) for _ in range(2 if side == 8 else 1))
            )
            inputs = width
        self.shuffle = size // FINEST
        width = 24 if size == FINEST else 32
        self.grow = _conv(inputs, width)
        self.detail = _conv(DETAIL, width) if finer else None
        self.fine = Residual(width, styled=True) if size > FINEST else None
        # at period 2 the filter that ends the shuffle lets no weave pass
        uneven = self.shuffle <= 2
        self.colours = _begun(
            nn.Conv2d(width, 3 * self.shuffle**2, 3, padding=1)
            if uneven
            else EvenShuffle(width, self.shuffle)
        )
        # Each 3x3 reaches one place; bilinear one of the finer map; what ends the shuffle a pixel,
        # and before the shuffle, what the 3x3s reached is cut off again
        self.crops: tuple[Crop, ...] = (
            Crop(side=32, before=1, after=1, halo=3),
            Crop(side=FINEST, before=0, after=0, halo=4 if self.fine else 2),
        )
        if self.shuffle > 1:
            self.crops += (Crop(side=FINEST, before=1, after=1, halo=0),)
        with torch.no_grad():
            self.colours.weight.mul_(0.3)  # start inside of tanh's flat ends

    def fold(self) -> None:
        """Replaces an `EvenShuffle` by the plain convolution that it is, in place."""
        if isinstance(self.colours, EvenShuffle):
            weight, bias = self.colours.even()
            plain = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            plain.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
            self.colours = plain

    def prepared(self, features: tuple[Tensor, ...], hole: Tensor) -> tuple[Tensor, ...]:
        """What I_m adds to the decoder's maps: the same for all completions, so computed once."""
        *finer, f32, f16, f8 = features
        added: list[Tensor] = []
        for feature, skip in zip((f8, f16, f32), self.skip, strict=True):
            side = feature.shape[-1]
            if side > 8:
                feature = feature * F.avg_pool2d(1 - hole, hole.shape[-1] // side)
            added.insert(0, skip(feature))
        if self.detail is None:
            return tuple(added)
        *filled, detail = finer
        detail = self.detail(F.leaky_relu(detail, SLOPE))
        return *filled, detail, *added

    def forward(
        self,
        z_c: Tensor,
        z_m: Tensor,
        prepared: tuple[Tensor, ...],
        hole: Tensor,
        crop: Cropping = whole,
    ) -> list[Tensor]:
        *finer, f32, f16, f8 = prepared
        style = F.leaky_relu(self.style(torch.cat([z_m, z_c], dim=1)), SLOPE)
        x = self.seed(style).view(z_c.shape[0], self.SEED, 8, 8)
        for added, enter, blocks in zip((f8, f16, f32), self.enter, self.blocks, strict=True):
            if added.shape[-1] > 8:
                x = _twice(x)
            if added.shape[-1] == self.crops[0].side:
                x, added = crop(x, 0), crop(added, 0)
            x = enter(x) + added
            for block in blocks:  # type: ignore[attr-defined]  # a ModuleList
                x = block(x, style)
        x = self.grow(F.leaky_relu(crop(_twice(x), 1), SLOPE, inplace=True))
        if self.detail is not None:
            x = x + crop(finer[-1], 1, (2, 1))
        if self.fine is not None:
            x = self.fine(x, style)
        colours = self.colours(F.leaky_relu(x, SLOPE))
        if self.shuffle > 1:
            colours = _shuffled(crop(colours, 2), self.shuffle)
        colours = torch.tanh(colours)
        if len(finer) > 1:
            last, side = len(self.crops) - 1, FINEST * self.shuffle
            ratios = tuple(side // made.side for made in self.crops)
            smooth, far = (crop(map_, last, ratios) for map_ in finer[:2])
            colours = smooth + far * colours
        return [colours]

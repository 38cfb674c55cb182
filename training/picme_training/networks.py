"""PICME's network in PIC's layout: encoder f, latent heads, mixture, decoder g.

Figure 4 of the paper: one encoder f maps the masked picture I_m (and, in training, its complement
I_c) to features; average pooling and a fully connected layer give the Gaussian z; three MLPs on
z_m give the mixture; g decodes [z_m, z_c] and the features of I_m. Channels follow PIC.
docs/method.md lists every departure.

Letters: B batch, C channels, D latent, P primitives, S side. Pictures are (B, 3, S, S) float32 in
[-1, 1], `hole` is (B, 1, S, S) float32, 1 in the hole.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from picme_rt.windows import Crop
from picme_training import compact, distributed, push_pull
from picme_training.blocks import SLOPE, Attention, ResidualDown, ResidualUp, conv, reflected
from picme_training.config import NetworkConfig
from picme_training.cropping import Cropping, whole
from picme_training.gaussians import LOG_SIGMA_RANGE, Gaussian, Mixture, gaussian_from

COARSE = 8  # side of the coarsest feature map, f_m
LATENT = 256  # D of PICME's z


class PicEncoder(nn.Module):
    """PIC's encoder: residual blocks down to 8x8; gives (f_e for the attention, f_m)."""

    def __init__(self, size: int, inputs: int):
        super().__init__()
        steps = int(math.log2(size // COARSE))
        widths = [min(32 * 2**i, 128) for i in range(steps)]
        self.blocks = nn.ModuleList(
            ResidualDown(a, b, first=i == 0)
            for i, (a, b) in enumerate(zip([inputs, *widths], widths, strict=False))
        )
        self.attention_side = 32 if size > 64 else 16
        at = int(math.log2(size // self.attention_side))
        self.shapes: list[tuple[int, ...]] = [
            (widths[at - 1], self.attention_side, self.attention_side),
            (widths[-1], COARSE, COARSE),
        ]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        f_e = x
        for block in self.blocks:
            x = block(x)
            if x.shape[-1] == self.attention_side:
                f_e = x
        return f_e, x


class PicDecoder(nn.Module):
    """PIC's decoder with attention; RGB heads from the attention's scale to the full size."""

    def __init__(self, size: int, shapes: list[tuple[int, ...]], latent: int):
        super().__init__()
        (skip, self.attention_side, _), (width, _, _) = shapes
        self.spatial = latent == width * COARSE * COARSE
        # Figure 4: interpolation + convolution bring [z_m, z_c] = 128x2x2 to 8x8
        self.start = None if self.spatial else conv(2 * latent // 4, width, 3)
        self.block = ResidualDown(width, width, down=False)
        steps = int(math.log2(size // COARSE))
        widths = [min(2 ** (i + 5), 128) for i in reversed(range(steps))]
        self.ups, self.heads = nn.ModuleList(), nn.ModuleList()
        side, inputs = COARSE, width
        for outputs in widths:
            colours = 3 if side >= self.attention_side else 0
            self.ups.append(ResidualUp(inputs + colours, outputs))
            side, inputs = 2 * side, outputs
            if side == self.attention_side:
                self.attention = Attention(outputs, skip)
            if side >= self.attention_side:
                self.heads.append(reflected(outputs, 3, 3))
        # The head reaches one pixel; a pixel of the transposed convolutions one place onwards
        self.crops = (Crop(side=size // 2, before=1, after=2, halo=0),)

    def forward(
        self,
        z_c: Tensor,
        z_m: Tensor | None,
        features: tuple[Tensor, ...],
        hole: Tensor,
        crop: Cropping = whole,
    ) -> list[Tensor]:
        f_e, f_m = features
        if self.start is None:
            x = z_c.view_as(f_m)
        else:
            assert z_m is not None  # a vector latent always has z_m
            z = torch.cat([z_m, z_c], dim=1).view(z_c.shape[0], -1, 2, 2)
            x = self.start(F.interpolate(z, scale_factor=4.0, mode="nearest"))
        x = self.block(x + f_m)
        pictures: list[Tensor] = []
        side = COARSE
        for up in self.ups:
            x = torch.cat([x, pictures[-1]], dim=1) if pictures else x
            x = up(x, crop if up is self.ups[-1] else whole)
            side *= 2  # of the map before any crop
            if side == self.attention_side:
                x = self.attention(x, f_e, hole)
            if side >= self.attention_side:
                head = self.heads[len(pictures)]
                pictures.append(torch.tanh(head(F.leaky_relu(x, SLOPE))))
        return pictures


class VectorLatent(nn.Module):
    """PICME's latent: f_m -> N(z) of D dimensions, and the mixture of z_c given a condition.

    The condition is the mean of z_m (method.md 9), or the pooled f_m where `pooled` is set.
    """

    def __init__(self, channels: int, latent: int, primitives: int, *, hidden: int, pooled: bool):
        super().__init__()
        self.pooled, self.primitives, self.latent = pooled, primitives, latent
        flat = channels * 4
        self.trunk = nn.Sequential(nn.Linear(flat, 2 * latent), nn.LeakyReLU(SLOPE))
        self.head = nn.Linear(2 * latent, 2 * latent)
        inputs = flat if pooled else latent
        self.alpha = _mlp(inputs, hidden, primitives)
        self.mu = _mlp(inputs, hidden, primitives * latent)
        self.log_sigma = _mlp(inputs, hidden, primitives * latent)
        last = self.mu[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.bias, std=0.5)  # the primitives start apart (method.md 6)
        # z starts with more signal than noise, else g learns to ignore it before f learns to speak
        with torch.no_grad():
            self.head.weight[:latent].mul_(10)
            self.head.bias[latent:].fill_(-2)

    def _flat(self, f_m: Tensor) -> Tensor:
        return F.avg_pool2d(f_m, COARSE // 2).flatten(1)

    def gaussian(self, f_m: Tensor) -> Gaussian:
        """q(z|I), (B, D): of z_m for f(I_m), of z_c for f(I_c)."""
        return gaussian_from(self.head(self.trunk(self._flat(f_m))))

    def condition(self, f_m: Tensor, z_m: Gaussian | None) -> Tensor:
        """What the mixture is a function of."""
        if self.pooled or z_m is None:
            return self._flat(f_m).float()
        return z_m.mu

    def mixture(self, condition: Tensor) -> Mixture:
        """Eq. 3: q(z_c|z_m)."""
        shape = (-1, self.primitives, self.latent)
        mu, log_sigma = self.mu(condition).float(), self.log_sigma(condition).float()
        log_alpha = torch.log_softmax(self.alpha(condition).float(), dim=-1)
        return Mixture(log_alpha, mu.view(shape), log_sigma.view(shape).clamp(*LOG_SIGMA_RANGE))


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, outputs))


class SpatialLatent(nn.Module):
    """PIC's latent: one Gaussian over a (C, 8, 8) map, so D = 64 C and P = 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.posterior = _distribution(channels)
        self.prior = _distribution(channels)

    def gaussian(self, f_m: Tensor) -> Gaussian:
        """q(z_c|I_c), (B, D), from f(I_c)."""
        found = gaussian_from(self.posterior(f_m), dim=1)
        return Gaussian(found.mu.flatten(1), found.log_sigma.flatten(1))

    def condition(self, f_m: Tensor, z_m: Gaussian | None) -> Tensor:
        """What the prior is a function of: the whole map f_m."""
        return f_m

    def mixture(self, condition: Tensor) -> Mixture:
        """p(z_c|I_m) as a mixture of one."""
        found = gaussian_from(self.prior(condition), dim=1)
        mu, log_sigma = found.mu.flatten(1)[:, None], found.log_sigma.flatten(1)[:, None]
        return Mixture(torch.zeros_like(mu[:, :, 0]), mu, log_sigma)


def _distribution(channels: int) -> nn.Sequential:
    return nn.Sequential(
        ResidualDown(channels, channels, down=False), conv(channels, 2 * channels, 1)
    )


class Whitening(nn.BatchNorm1d):
    """Batch norm with the statistics of the joint batch, in training, of all processes."""

    def forward(self, mu: Tensor) -> Tensor:
        if not self.training:
            return super().forward(mu)
        return distributed.own(super().forward(distributed.gathered(mu)))


class Encoding(NamedTuple):
    """What the picture with its hole says: everything that is computed once for k completions.

    Attributes:
        features: Maps for the decoder, fine to coarse: f_m is the last one, or what `cats` makes of
            it (`compact.Decoder.prepared`).
        z_m: q(z_m|I_m), or None where the latent is spatial (`pic`).
        condition: What the mixture is a function of.
    """

    features: tuple[Tensor, ...]
    z_m: Gaussian | None
    condition: Tensor


class Picme(nn.Module):
    """The whole completion network: f, the latent heads, the mixture and g."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        inputs = 4 if config.mask_channel else 3
        encoder: PicEncoder | compact.Encoder
        if config.preset == "cats":
            encoder = compact.Encoder(
                config.size, inputs, detail=config.detail, push_pull=config.push_pull
            )
            self.latent_dim = compact.LATENT
        else:
            encoder = PicEncoder(config.size, inputs)
            self.latent_dim = LATENT
        channels = encoder.shapes[-1][0]
        self.encoder = encoder
        self.latent: VectorLatent | SpatialLatent
        if config.preset == "pic":
            self.latent = SpatialLatent(channels)
            self.latent_dim = channels * COARSE**2
        else:
            compacted = config.preset == "cats"
            self.latent = VectorLatent(
                channels,
                self.latent_dim,
                config.primitives,
                hidden=128 if compacted else 256,
                pooled=compacted,
            )
        # Keeps mu_c informative: without it z_c collapses to a constant that g ignores
        # (docs/decisions.md). It acts in training alone: no engine holds the posterior.
        self.whiten: nn.Module = nn.Identity()
        if config.whitened:
            self.whiten = Whitening(self.latent_dim, affine=False)
        make = compact.Decoder if config.preset == "cats" else PicDecoder
        self.decoder: nn.Module = make(config.size, encoder.shapes, self.latent_dim)

    def features(self, image: Tensor, hole: Tensor) -> tuple[Tensor, ...]:
        """Features f(I) of what lies outside `hole`: nothing under it matters (method.md 17)."""
        known = image * (1 - hole)
        seen = torch.cat([known, hole], 1) if self.config.mask_channel else known
        if self.config.push_pull:
            return self.encoder(seen, *push_pull.filled(image, hole))
        return self.encoder(seen)

    def encoding(self, features: tuple[Tensor, ...], hole: Tensor) -> Encoding:
        """The latent side of f(I_m), and what the decoder takes of it."""
        z_m = None if self.config.preset == "pic" else self.latent.gaussian(features[-1])
        condition = self.latent.condition(features[-1], z_m)
        if isinstance(self.decoder, compact.Decoder):
            features = self.decoder.prepared(features, hole)
        return Encoding(features, z_m, condition)

    def posterior(self, features: tuple[Tensor, ...]) -> Gaussian:
        """q(z_c|I_c), (B, D), from f(I_c)."""
        z_c = self.latent.gaussian(features[-1])
        return Gaussian(self.whiten(z_c.mu), z_c.log_sigma)

    def encode(self, image: Tensor, hole: Tensor) -> tuple[Encoding, Mixture]:
        """Algorithm 2, lines 1-2: the encoding of I_m and its mixture."""
        encoding = self.encoding(self.features(image, hole), hole)
        return encoding, self.latent.mixture(encoding.condition)

    def decode(
        self,
        z_c: Tensor,
        z_m: Tensor | None,
        features: tuple[Tensor, ...],
        hole: Tensor,
        crop: Cropping = whole,
    ) -> list[Tensor]:
        """Algorithm 2, line 6: pictures of g(z_m, z_c) in [-1, 1], coarse to fine.

        With `cropping.to(rows)` the last one is the part that `picme_rt.windows` calls `made`.
        """
        pictures: list[Tensor] = self.decoder(z_c, z_m, features, hole, crop)
        return [picture.float() for picture in pictures]


def fold(model: Picme) -> Picme:
    """Replaces spectral norm by the normalised weights, in place, and ends training (method.md 16).

    Likewise the even filters of `cats` before its pixel-shuffle.

    In place, because a deep copy shares its parametrized classes with the model: folding the copy
    would break the model.
    """
    model.eval()
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    if isinstance(model.decoder, compact.Decoder):
        model.decoder.fold()
    return model.requires_grad_(False)

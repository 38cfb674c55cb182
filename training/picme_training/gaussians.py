"""Diagonal Gaussians and their mixture: the distributions between the encoder and the decoder."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG_SIGMA_RANGE = (-6.0, 3.0)
"""The one clamp of every log standard deviation, in sampling and in every KL (method.md 2)."""


class Gaussian(NamedTuple):
    """Diagonal Gaussians: `mu` and `log_sigma`, both (..., D) float32."""

    mu: Tensor
    log_sigma: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """The reparameterised draw mu + sigma * noise, (..., D)."""
        return self.mu + self.log_sigma.exp() * noise

    def detach(self) -> "Gaussian":
        """The same numbers, through which no gradient flows."""
        return Gaussian(self.mu.detach(), self.log_sigma.detach())


class Mixture(NamedTuple):
    """Eq. 3, q(z_c|z_m) = sum_i alpha_i N(mu_i, sigma_i^2), all float32.

    Attributes:
        log_alpha: (B, P), log of the mixing coefficients; exp sums to 1.
        mu: (B, P, D).
        log_sigma: (B, P, D), inside `LOG_SIGMA_RANGE`.
    """

    log_alpha: Tensor
    mu: Tensor
    log_sigma: Tensor

    def primitive(self, index: Tensor) -> Gaussian:
        """The primitive `index` (B,) int64 of each mixture, as Gaussians (B, D)."""
        rows = torch.arange(len(index), device=index.device)
        return Gaussian(self.mu[rows, index], self.log_sigma[rows, index])

    def log_prob(self, z: Tensor) -> Tensor:
        """Eq. 3 in logarithms: log density (B,) in nats of `z` (B, D)."""
        scaled = (z[:, None] - self.mu) * torch.exp(-self.log_sigma)
        each = (-0.5 * scaled**2 - self.log_sigma - 0.5 * math.log(2 * math.pi)).sum(-1)
        return torch.logsumexp(self.log_alpha + each, dim=-1)


def gaussian_from(statistics: Tensor, dim: int = -1) -> Gaussian:
    """A Gaussian from a head's output: halves of `dim` are mu and log sigma, which is clamped."""
    mu, log_sigma = statistics.float().chunk(2, dim=dim)
    return Gaussian(mu, log_sigma.clamp(*LOG_SIGMA_RANGE))


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q, p) of diagonal Gaussians, in nats a dimension: the mean over D (method.md 1 and 3).

    The published Eq. 5 has the wrong sign before the quadratic term and lacks -D/2; this is the
    true divergence. Shapes broadcast; the result is (...,).
    """
    # Eq. 5, corrected: log(sigma_p/sigma_q) + (sigma_q^2 + (mu_q - mu_p)^2) / (2 sigma_p^2) - 1/2
    ratio = torch.exp(2 * (q.log_sigma - p.log_sigma))
    shift = ((q.mu - p.mu) * torch.exp(-p.log_sigma)) ** 2
    return (p.log_sigma - q.log_sigma + 0.5 * (ratio + shift - 1)).mean(-1)


def kl_to_standard(q: Gaussian) -> Tensor:
    """KL(q, N(0, I)) in nats a dimension: the mean over D."""
    return kl(q, Gaussian(torch.zeros_like(q.mu), torch.zeros_like(q.log_sigma)))

"""Distances between sets of pictures in a feature space: Fréchet's (FID) and the kernel's (KID)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from picme_training.perceptual import Lpips

SUBSETS = 100  # of KID
ROWS = 256  # whose kernels are computed at once
SIDE = 224  # to which pictures are resized for SqueezeNet, as FID resizes them for Inception


class Features(Protocol):
    """A feature space.

    Attributes:
        name: What it is called beside every distance in it.
    """

    name: str

    def __call__(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 to (B, D) float32."""
        ...


class SqueezeNetFeatures:
    """SqueezeNet's last features, averaged over places: the stand-in for Inception's, D = 512.

    Each picture's are scaled to the length sqrt(D): then the kernel of KID is 1 to 8; the cube
    of raw ones follows the few that are largest.
    """

    name = "SqueezeNet"

    def __init__(self, lpips: Lpips):
        self._network = lpips

    def __call__(self, pictures: Tensor) -> Tensor:
        """See `Features`."""
        x = pictures.float() / 127.5 - 1
        x = F.interpolate(x, SIDE, mode="bilinear", antialias=True, align_corners=False)
        found = self._network.pooled(x)
        return F.normalize(found, dim=1) * found.shape[1] ** 0.5


def frechet(one: Tensor, other: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of Gaussians fitted to features (N, D), (N', D).

    With C = X'X and C' = Y'Y the eigenvalues of C C' are the squared singular values of X Y', and
    of R_1 R_2' with the triangles of their QR: no D x D matrix of few pictures' rank is rooted. Of
    few pictures the distance is far too large: compare it only between sets of one size.
    """
    triangles, means, total = [], [], 0.0
    for features in (one.double(), other.double()):
        means.append(features.mean(0))
        centred = (features - means[-1]) / (len(features) - 1) ** 0.5
        total += float((centred**2).sum())  # tr C
        triangles.append(torch.linalg.qr(centred, mode="r").R)
    root = torch.linalg.matrix_norm(triangles[0] @ triangles[1].T, ord="nuc")
    shift = ((means[0] - means[1]) ** 2).sum()
    return max(float(shift + total - 2 * root), 0.0)  # rounding may take it below


def kernel(real: Tensor, made: Tensor, owners: Sequence[str], seed: int) -> NDArray[np.float64]:
    """KID: squared MMD with the kernel (x'y / D + 1)^3, unbiased, of each of `SUBSETS` subsets.

    Each subset compares half of the originals with results of the other half: an original and its
    results share their known pixels, and the estimate is unbiased only for independent sets. It
    takes one hole and one result a picture, so that several weigh no more than one.

    Args:
        real: (N, D), originals.
        made: (N, k, D), their results.
        owners: Which picture each row is of; at least 4 different ones.
        seed: Of the subsets: with the same, two completers are compared on the same pictures.
    """
    from torchmetrics.image.kid import poly_mmd

    names = np.array(owners)
    rows = [np.flatnonzero(names == name) for name in sorted(set(owners))]
    rng, half, found = np.random.default_rng([seed, 3]), len(rows) // 2, []
    for subset in range(SUBSETS):
        drawn = [int(rng.choice(rows[place])) for place in rng.permutation(len(rows))]
        fakes = made[drawn[half : 2 * half], subset % made.shape[1]]
        found.append(float(poly_mmd(real[drawn[:half]].double(), fakes.double())))
    return np.array(found)


def kernel_gap(
    real: Tensor, made: Tensor, other: Tensor, owners: Sequence[str]
) -> tuple[float, float]:
    """KID of `other` less KID of `made`, over all pairs of different pictures, and its error.

    `kernel` shows what 50 pictures or so leave open; which of two completers is nearer to the
    originals is seen more sharply by all pairs of all pictures. The originals' own term falls out,
    and what is left is a mean over pairs, of each the mean over its holes and results. The error is
    the jackknife's (Efron and Stein 1981): how far the mean goes when one picture is left out.

    Args:
        real: (N, D), originals.
        made: (N, k, D), one completer's results.
        other: (N, k', D), another's.
        owners: Which picture each row is of; at least 3 different ones.
    """
    numbers = {name: number for number, name in enumerate(sorted(set(owners)))}
    place, count = torch.tensor([numbers[owner] for owner in owners]), len(numbers)
    originals, ours, theirs = (
        _Rows(features, place, count) for features in (real[:, None], made, other)
    )
    real_made, real_other = originals.kernel(ours), originals.kernel(theirs)
    made_made, other_other = ours.kernel(ours), theirs.kernel(theirs)
    pairs = other_other - made_made - (real_other + real_other.T) + (real_made + real_made.T)
    pairs.fill_diagonal_(0)  # an original and its own result share their known pixels
    gap = pairs.sum() / (count * (count - 1))
    without = (pairs.sum() - 2 * pairs.sum(1)) / ((count - 1) * (count - 2))
    error = ((without - without.mean()).square().sum() * (count - 1) / count).sqrt()
    return float(gap), float(error)


class _Rows:
    """Features of several holes and results a picture, (N, k, D), each row with its picture."""

    def __init__(self, features: Tensor, place: Tensor, pictures: int):
        self._rows = features.double().flatten(0, 1)
        self._place = place.repeat_interleave(features.shape[1])
        self._counts = torch.bincount(self._place, minlength=pictures)

    def kernel(self, other: "_Rows") -> Tensor:
        """The mean of the kernel between the rows of one picture and of another, for all pairs."""
        from torchmetrics.image.kid import poly_kernel

        pictures = len(self._counts)
        total = torch.zeros(pictures, pictures, dtype=torch.float64)
        parts = torch.split(self._rows, ROWS), torch.split(self._place, ROWS)
        for rows, place in zip(*parts, strict=True):
            sums = torch.zeros(len(rows), pictures, dtype=torch.float64)
            sums.index_add_(1, other._place, poly_kernel(rows, other._rows))
            total.index_add_(0, place, sums)
        return total / (self._counts[:, None] * other._counts)

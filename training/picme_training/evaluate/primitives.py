"""What the primitives of the mixture do: how each is used, and whether they say different things.

Fig. 12 of the paper claims that results of one primitive differ less than results of different
ones; `contrast` and the shares of the variance put a number on it.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from picme_rt.encoded import Encoding, Mixture
from picme_training.evaluate import measures
from picme_training.perceptual import Lpips


class Variance(NamedTuple):
    """The law of total variance: what lies between primitives, and within them."""

    between: float
    within: float


def latent_variance(mixture: Mixture) -> Variance:
    """Of z (Eq. 3), summed over dimensions.

    between = sum_i alpha_i |mu_i - mean|^2, within = sum_i alpha_i |sigma_i|^2, with
    mean = sum_i alpha_i mu_i.
    """
    alpha = np.exp(mixture.log_alpha[0].astype(np.float64))[:, None]
    alpha /= alpha.sum()
    mu, sigma = mixture.mu[0].astype(np.float64), np.exp(mixture.log_sigma[0].astype(np.float64))
    shift = mu - (alpha * mu).sum(0)
    return Variance(float((alpha * shift**2).sum()), float((alpha * sigma**2).sum()))


def picture_variance(values: Tensor, alpha: Tensor) -> Variance:
    """Of results, from r of each primitive; unbiased, so `between` may fall below 0 by chance.

    With s_i^2 the sample variance of primitive i and m_i its mean: within = sum_i alpha_i s_i^2;
    sum_i alpha_i |m_i - m|^2 holds sum_i alpha_i (1 - alpha_i) s_i^2 / r of noise, which is taken
    off.

    Args:
        values: (P, r, n), r >= 2; summed over n.
        alpha: (P,), sums to 1.
    """
    values, alpha = values.double(), alpha.double()
    means = values.mean(1)
    spread = values.var(1).sum(1)
    shift = ((means - (alpha[:, None] * means).sum(0)) ** 2).sum(1)
    noise = (alpha * (1 - alpha) * spread).sum() / values.shape[1]
    return Variance(float((alpha * shift).sum() - noise), float((alpha * spread).sum()))


class Contrast(NamedTuple):
    """Mean distances between results of the same primitive, and of different ones."""

    same: float
    different: float


def contrast(distances: Tensor, primitives: int) -> Contrast:
    """Both means, every primitive with the same weight.

    Args:
        distances: Of all pairs of P * r results, in the order of `F.pdist`; r results of the first
            primitive, then of the second.
        primitives: P >= 2.
    """
    count = round((1 + (1 + 8 * len(distances)) ** 0.5) / 2)
    owner = torch.arange(count) // (count // primitives)
    first, second = torch.triu_indices(count, count, offset=1)
    same = owner[first] == owner[second]
    return Contrast(float(distances[same].mean()), float(distances[~same].mean()))


class Study:
    """Gathers what the primitives do, picture by picture.

    Args:
        primitives: P.
        each: r, results of each primitive and picture; below 2, or with P = 1, there are no
            contrasts and no variance of pictures.
        lpips: Adds the perceptual contrast.
    """

    def __init__(self, primitives: int, each: int, lpips: Lpips | None):
        self._count, self._each, self._lpips = primitives, each, lpips
        self._drawn = np.zeros(primitives, np.int64)
        self._best: list[int | None] = []
        self._alpha: list[np.ndarray] = []
        self._contrasts: dict[str, list[Contrast]] = {}
        self._variances: dict[str, list[Variance]] = {}

    def add(
        self, encoded: Encoding, hole: Tensor, drawn: np.ndarray, best: int | None, seed: int
    ) -> None:
        """Adds one picture.

        Args:
            encoded: The picture.
            hole: (S, S) bool.
            drawn: The primitives of its results.
            best: The nearest to q(z_c|I_c), if that is known.
            seed: Of the results of each primitive.
        """
        mixture = encoded.mixture
        assert mixture is not None  # no hole is empty
        alpha = np.exp(mixture.log_alpha[0].astype(np.float64))
        self._alpha.append(alpha / alpha.sum())
        self._drawn += np.bincount(drawn, minlength=self._count)
        self._best.append(best)
        self._variances.setdefault("z", []).append(latent_variance(mixture))
        if self._count > 1 and self._each > 1:
            self._add_results(rows(encoded, self._count, self._each, seed), hole)

    def _add_results(self, made: np.ndarray, hole: Tensor) -> None:
        pictures = torch.from_numpy(made).flatten(0, 1).permute(0, 3, 1, 2)
        inside = pictures[..., hole].flatten(1).float()  # (P r, 3 n)
        by_primitive = inside.view(self._count, self._each, -1)
        variance = picture_variance(by_primitive, torch.from_numpy(self._alpha[-1]))
        self._variances.setdefault("pictures", []).append(variance)
        distances = {"pixels": F.pdist(inside, p=1) / inside.shape[1]}
        if self._lpips is not None:
            taps = self._lpips.taps(measures.in_network(pictures))
            distances["LPIPS"] = F.pdist(self._lpips.embedding(taps)) ** 2
        for name, each in distances.items():
            self._contrasts.setdefault(name, []).append(contrast(each, self._count))

    def scalars(self) -> dict[str, float]:
        """Entropies in nats, contrasts (pixels in levels of 255), shares of the variance."""
        found = {
            "entropy_most": float(np.log(self._count)),
            "entropy_alpha": float(measures.entropy(torch.tensor(np.array(self._alpha))).mean()),
            "entropy_drawn": _entropy(self.shares()["drawn"]),
        }
        if "best" in self.shares():
            found["entropy_best"] = _entropy(self.shares()["best"])
        for name, contrasts in self._contrasts.items():
            same, different = np.mean(contrasts, axis=0)
            found[f"{name}_same"], found[f"{name}_different"] = float(same), float(different)
            if same > 0:  # a primitive without variance says one thing: there is no ratio
                found[f"{name}_ratio"] = float(different / same)
        for name, variances in self._variances.items():
            between, within = np.sum(variances, axis=0)
            if (total := max(between, 0) + within) > 0:
                found[f"between_share_{name}"] = float(max(between, 0) / total)
        return found

    def shares(self) -> dict[str, list[float]]:
        """Of each primitive: mean alpha, share of what was drawn, share of being the best."""
        found = {
            "alpha": np.mean(self._alpha, axis=0).tolist(),
            "drawn": (self._drawn / self._drawn.sum()).tolist(),
        }
        known = [best for best in self._best if best is not None]
        if known:
            found["best"] = (np.bincount(known, minlength=self._count) / len(known)).tolist()
        return found


def rows(encoded: Encoding, primitives: int, each: int, seed: int) -> np.ndarray:
    """(P, r, H, W, 3) uint8: `each` results of each primitive, every one with noise of its own."""
    return np.stack(
        [
            encoded.complete(k=each, seed=seed, first=i * each, primitive=i).images
            for i in range(primitives)
        ]
    )


def _entropy(shares: list[float]) -> float:
    return float(measures.entropy(torch.tensor(shares, dtype=torch.float64)))

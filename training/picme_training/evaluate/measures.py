"""Numbers of one picture and its k results; docs/evaluation.md has their equations.

`results` is (k, 3, S, S) uint8, `original` (3, S, S) uint8, `hole` (S, S) bool with hole and known
places. Results are composites: equal to the original outside the hole.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from picme_training.evaluate.patches import patch_distance
from picme_training.perceptual import Lpips

MOST_PSNR = 100.0
"""dB that a result equal to the original counts for: its own is infinite."""


def pairwise_difference(completions: Tensor, hole: Tensor) -> float:
    """Mean absolute difference in the hole between all pairs of k results, in levels of 255.

    Args:
        completions: (B, k, 3, S, S) in [-1, 1].
        hole: (B, 1, S, S), 1 in the hole.
    """
    k = completions.shape[1]
    first, second = torch.triu_indices(k, k, offset=1)
    error = (completions[:, first] - completions[:, second]).abs() * hole[:, None]
    inside = hole.sum() * len(first) * 3
    return float(error.sum() / inside * 127.5)


def entropy(shares: Tensor) -> Tensor:
    """Of shares (..., P) that sum to 1, in nats, (...,): from 0 to ln P."""
    return (shares * -shares.clamp(min=1e-12).log()).sum(-1)


def fidelity(results: Tensor, original: Tensor, hole: Tensor) -> dict[str, float]:
    """PSNR in dB, SSIM and MAE (both of colours in [0, 1]) to the original, means over results.

    Each over the whole picture, and over the hole under the name with `_hole`.
    """
    from torchmetrics.functional import image as library

    made = results.float() / 255
    target = (original.float() / 255).expand_as(made)
    whole, similar = library.structural_similarity_index_measure(
        made, target, data_range=1.0, reduction="none", return_full_image=True
    )
    found = {"SSIM": whole.mean(), "SSIM_hole": similar[..., hole].mean()}
    for suffix, where in (("", torch.ones_like(hole)), ("_hole", hole)):
        a, b = made[..., where], target[..., where]  # (k, 3, n)
        psnr = library.peak_signal_noise_ratio(
            a, b, data_range=1.0, reduction="none", dim=(1, 2)
        ).clamp(max=MOST_PSNR)
        found |= {f"PSNR{suffix}": psnr.mean(), f"MAE{suffix}": (a - b).abs().mean()}
    return {name: float(value) for name, value in found.items()}


def seam_jump(pictures: Tensor, hole: Tensor) -> float:
    """How much the gradient across the hole's border differs from those beside it, in levels.

    For the four places a b | c d of every row and column with the border between b and c:
    |(c - b) - ((b - a) + (d - c)) / 2|, the mean over places, colours and pictures. The original's
    own value says what no seam gives.

    Args:
        pictures: (k, 3, S, S) uint8.
        hole: (S, S) bool.
    """
    total, count = torch.zeros(()), 0
    levels = F.pad(pictures.float(), (1, 1, 1, 1), mode="replicate")
    for turned, border in (
        (levels[:, :, 1:-1], hole),
        (levels[..., 1:-1].transpose(2, 3), hole.T),
    ):
        a, b, c, d = (turned[..., i : turned.shape[-1] - 3 + i] for i in range(4))
        across = border[:, 1:] != border[:, :-1]
        jump = ((c - b) - ((b - a) + (d - c)) / 2).abs()[..., across]
        total, count = total + jump.sum(), count + jump.numel()
    return float(total / count)


def perceptual(
    results: list[Tensor], original: list[Tensor], hole: Tensor, lpips: Lpips
) -> dict[str, float]:
    """LPIPS to the original, whole (`LPIPS`) and in the hole, and between pairs of results.

    In the hole: the mean there of LPIPS's spatial map, of composites.

    Args:
        results: Taps of k pictures.
        original: Taps of one.
        hole: (S, S) bool.
        lpips: Made both.
    """
    made, target = lpips.embedding(results), lpips.embedding(original)
    height, width = hole.shape
    inside = lpips.maps(results, original, (height, width))[:, hole]
    found = {"LPIPS": ((made - target) ** 2).sum(1).mean(), "LPIPS_hole": inside.mean()}
    if len(made) > 1:
        found["LPIPS_pairs"] = (F.pdist(made) ** 2).mean()
    return {name: float(value) for name, value in found.items()}


def spread_in_hole(results: Tensor, hole: Tensor) -> float:
    """Standard deviation over k results, in levels, the mean over the hole and colours."""
    return float(results.float().std(0, correction=0)[:, hole].mean())


def averaged(results: Tensor, original: Tensor, hole: Tensor) -> dict[str, float]:
    """PSNR in the hole, in dB, and SSIM of the mean of k results, rounded to bytes.

    A draw from the exact posterior has twice the mean squared error of the posterior's mean (Blau
    and Michaeli 2018), 3 dB: this is what compares with a completer that gives one blurred answer.
    """
    mean = results.float().mean(0, keepdim=True).round().to(results.dtype)
    found = fidelity(mean, original, hole)
    return {"PSNR_averaged": found["PSNR_hole"], "SSIM_averaged": found["SSIM"]}


def changed(results: Tensor, original: Tensor, hole: Tensor) -> float:
    """Known pixels that differ from the original, of the result with the most: 0 is promised."""
    return float((results != original).any(1)[:, ~hole].sum(1).max())


def patches(results: Tensor, hole: Tensor) -> float:
    """The bidirectional patch distance in levels squared, mean over results: seconds for each."""
    pictures = results.permute(0, 2, 3, 1).numpy()
    found = [patch_distance(picture, hole.numpy()).both for picture in pictures]
    return sum(found) / len(found)


def of_pixels(results: Tensor, original: Tensor, hole: Tensor) -> dict[str, float]:
    """All measures that need no network; those of diversity where there are two results or more."""
    found = {**fidelity(results, original, hole), "seam": seam_jump(results, hole)}
    found["changed"] = changed(results, original, hole)
    if len(results) > 1:
        found["pairwise"] = pairwise_difference(in_network(results)[None], hole[None, None].float())
        found["std"] = spread_in_hole(results, hole)
        found |= averaged(results, original, hole)
    return found


def in_network(pictures: Tensor) -> Tensor:
    """Bytes to [-1, 1]."""
    return pictures.float() / 127.5 - 1

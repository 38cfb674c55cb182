"""What a run measures at every evaluation, quickly; `picme evaluate` measures more."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from picme_training import losses, masks
from picme_training.config import Direction
from picme_training.evaluate.measures import entropy, pairwise_difference
from picme_training.networks import Picme
from picme_training.perceptual import Lpips


class Report(NamedTuple):
    """The measures and the grid of one evaluation.

    Attributes:
        scalars: Measures by name; lengths in levels of 255, entropies in nats.
        usage: (P,) share of the pictures whose best primitive (Eq. 4) is i.
        alpha: (P,) mean mixing coefficient.
        grid: (rows * S, (2 + k) * S, 3) uint8: masked input, original, then k completions a row.
    """

    scalars: dict[str, float]
    usage: list[float]
    alpha: list[float]
    grid: np.ndarray


@torch.no_grad()
def evaluate(
    model: Picme,
    pictures: Tensor,
    *,
    direction: Direction,
    k: int = 6,
    seed: int = 0,
    rows: int = 8,
    lpips: Lpips | None = None,
    batch: int = 25,
) -> Report:
    """Completes the centre hole of each picture k times (Algorithm 2).

    Args:
        model: The network, usually the average of the weights.
        pictures: (N, 3, S, S) uint8.
        direction: Which KL names the best primitive.
        k: Completions a picture.
        seed: Of the sampling.
        rows: Pictures in the grid.
        lpips: Adds the perceptual distance to the original and between results.
        batch: Pictures at a time.
    """
    model.eval()
    size, device = pictures.shape[-1], next(model.parameters()).device
    hole = torch.from_numpy(masks.centre(size)).float().view(1, 1, size, size).to(device)
    best: list[Tensor] = []
    alphas: list[Tensor] = []
    tiles: list[Tensor] = []
    means: dict[str, list[Tensor]] = {"c": [], "m": []}
    sums: dict[str, float] = {}
    for start in range(0, len(pictures), batch):
        image = pictures[start : start + batch].to(device).float() / 127.5 - 1
        count = len(image)
        holes = hole.expand(count, -1, -1, -1)
        encoding, mixture = model.encode(image, holes)
        target = model.posterior(model.features(image, 1 - holes))
        each = losses.divergences(mixture, target, direction)
        best.append(losses.best_primitive(each))
        alphas.append(mixture.log_alpha.exp())
        means["c"].append(target.mu)
        if encoding.z_m is not None:
            means["m"].append(encoding.z_m.mu)

        generator = torch.Generator().manual_seed(seed + start)
        index = torch.multinomial(alphas[-1].cpu(), k, replacement=True, generator=generator)
        noise = torch.randn(k + 1, count, model.latent_dim, generator=generator).to(device)
        latents = [mixture.primitive(index[:, i].to(device)).sample(noise[i]) for i in range(k)]
        latents.append(target.sample(noise[k]))
        z_m = None if encoding.z_m is None else encoding.z_m.mu
        made = [model.decode(z, z_m, encoding.features, holes)[-1] for z in latents]
        made = [torch.where(holes > 0, one, image) for one in made]
        done, rebuilt = torch.stack(made[:k], 1), made[k]

        share = count / len(pictures)
        found = {
            "pairwise": pairwise_difference(done, holes),
            "L1_hole": float(
                (done - image[:, None]).abs().mean() * image[0, 0].numel() / hole.sum() * 127.5
            ),
            "L1_hole_reconstruction": float(
                (rebuilt - image).abs().mean() * image[0, 0].numel() / hole.sum() * 127.5
            ),
        }
        if lpips is not None:
            found["LPIPS"] = float(torch.stack([lpips(one, image) for one in made[:k]]).mean())
            found["LPIPS_reconstruction"] = float(lpips(rebuilt, image).mean())
            found["LPIPS_pairs"] = float(lpips(made[0], made[1]).mean())
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + share * value
        tiles += _rows(image, holes, done, rows - len(tiles))
    alpha = torch.cat(alphas)
    used = torch.bincount(torch.cat(best), minlength=alpha.shape[1]) / len(pictures)
    sums["entropy_used"] = float(entropy(used))
    sums["entropy_alpha"] = float(entropy(alpha).mean())
    for name, found_means in means.items():
        if found_means:  # active units (Burda et al. 2016): their mean varies over the pictures
            variance = torch.cat(found_means).var(0, correction=0)
            sums[f"active_{name}"] = float((variance > 0.01).sum())
    sums["entropy_most"] = math.log(alpha.shape[1])
    grid = torch.cat(tiles, dim=1).cpu()
    picture = ((grid.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return Report(sums, used.tolist(), alpha.mean(0).tolist(), picture)


def _rows(image: Tensor, hole: Tensor, done: Tensor, count: int) -> list[Tensor]:
    masked = image * (1 - hole)
    return [
        torch.cat([masked[i], image[i], *done[i]], dim=2) for i in range(min(count, len(image)))
    ]

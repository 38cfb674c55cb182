"""Algorithm 1: one training pass, from a picture and its hole to the losses of f, g and D."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from picme_training import losses
from picme_training.config import LossConfig
from picme_training.discriminator import Discriminator
from picme_training.gaussians import kl, kl_to_standard
from picme_training.networks import Picme
from picme_training.perceptual import Lpips
from picme_training.rows import parted, repeated


class Noise(NamedTuple):
    """The standard normal and uniform numbers of one pass; drawn outside, so that a pass repeats.

    Attributes:
        z_m: (B, D) normal.
        z_c: (B, D) normal, of the reconstruction path.
        best: (B, D) normal, of the z_c inferred from the best primitive.
        drawn: (B, D) normal, of the z_c inferred from a drawn primitive.
        choice: (B,) uniform in [0, 1), picks the drawn primitive.
        shift: (B, 2) uniform in [0, 1), how far a picture moves before it is judged; on the CPU,
            because it says where to cut.
    """

    z_m: Tensor
    z_c: Tensor
    best: Tensor
    drawn: Tensor
    choice: Tensor
    shift: Tensor

    @staticmethod
    def draw(batch: int, latent: int, generator: torch.Generator) -> "Noise":
        """Fresh numbers from `generator`, on its device."""
        device = generator.device
        z_m, z_c, best, drawn = torch.randn(4, batch, latent, generator=generator, device=device)
        choice = torch.rand(batch, generator=generator, device=device)
        shift = torch.rand(batch, 2, generator=_on_host(generator))
        return Noise(z_m, z_c, best, drawn, choice, shift)


def _on_host(generator: torch.Generator) -> torch.Generator:
    """Itself on the CPU, else another of its seed: nobody waits for numbers of the device's."""
    if generator.device.type == "cpu":
        return generator
    return torch.Generator().manual_seed(generator.initial_seed())


class Pass(NamedTuple):
    """What one pass over the generator yields.

    Attributes:
        loss: The weighted sum that is minimised (L_FINAL).
        terms: Each unweighted term, detached, by name.
        generated: Pictures for the discriminator's step, detached and `shifted`.
        seen: What D's frozen features are of the original, then of these; for its step too.
        j: The best primitive of each picture, (B,).
    """

    loss: Tensor
    terms: dict[str, Tensor]
    generated: Tensor
    seen: list[Tensor]
    j: Tensor


def generator_pass(
    model: Picme,
    judge: Discriminator,
    image: Tensor,
    hole: Tensor,
    noise: Noise,
    config: LossConfig,
    lpips: Lpips | None = None,
) -> Pass:
    """Algorithm 1, lines 1-7: encode, model, infer, generate, and all losses of f, the mixture, g.

    Args:
        model: The completion network.
        judge: The discriminator D, frozen by the caller.
        image: (B, 3, S, S) float32 in [-1, 1], I_o.
        hole: (B, 1, S, S) float32, 1 in the hole.
        noise: The pass's random numbers.
        config: Weights of the losses.
        lpips: The perceptual measure, needed where `config.perceptual` or `config.drawn` > 0.
    """
    batch = len(image)
    # Line 1: encode I_m and I_c with the one shared f, in one forward (method.md 8)
    features = model.features(torch.cat([image, image]), torch.cat([hole, 1 - hole]))
    of_known, of_hole = zip(*(parted(feature, batch) for feature in features), strict=True)
    encoding = model.encoding(of_known, hole)
    z_c = model.posterior(of_hole)

    # Lines 2-4: L_GMM reaches the mixture alone; z_c and z_m stand still (method.md 5)
    fitted = model.latent.mixture(encoding.condition.detach())
    each = losses.divergences(fitted, z_c.detach(), config.direction)
    j = losses.best_primitive(each)
    l_f = losses.frequency(fitted.log_alpha, j)
    l_bm = losses.back_propagate_max(each, j, config.losers)

    # Line 5: infer z_c by Eq. 3; L_C reaches mu and sigma through the sample (method.md 12)
    mixture = model.latent.mixture(encoding.condition)
    inferred = []
    if config.decoded in ("best", "both"):
        inferred.append(mixture.primitive(j).sample(noise.best))
    if config.decoded in ("draw", "both"):
        cumulative = mixture.log_alpha.detach().exp().cumsum(1)
        drawn = (cumulative <= noise.choice[:, None] * cumulative[:, -1:]).sum(1)
        inferred.append(mixture.primitive(drawn.clamp(max=each.shape[1] - 1)).sample(noise.drawn))

    # Line 6: generate; the reconstruction comes first in the batch
    ways = 1 + len(inferred)
    z_m = None if encoding.z_m is None else encoding.z_m.sample(noise.z_m).repeat(ways, 1)
    pictures = model.decode(
        torch.cat([z_c.sample(noise.z_c), *inferred]),
        z_m,
        tuple(repeated(f, ways) for f in encoding.features),
        repeated(hole, ways),
    )
    rebuilt, filled = zip(*(parted(picture, batch) for picture in pictures), strict=True)
    originals = repeated(image, ways - 1)

    # Line 7: L_ELBO and L_C
    known = 1 - hole
    terms = {
        "L_F": l_f,
        "L_BM": l_bm,
        "KL_c": kl_to_standard(z_c).mean(),
        "L1": losses.reconstruction(rebuilt, image),
        "L1_known": losses.known_reconstruction(filled, originals, repeated(known, ways - 1)),
    }
    if config.rim > 0:
        terms["L1_rim"] = losses.rim_reconstruction(filled[-1], originals, repeated(hole, ways - 1))
    if config.match > 0:
        terms["KL_match"] = kl(z_c, fitted.primitive(j).detach()).mean()
    if encoding.z_m is not None:
        terms["KL_m"] = kl_to_standard(encoding.z_m).mean()
    judged, holes = pictures[-1], repeated(hole, ways)
    if config.composite:
        judged = torch.where(holes > 0, judged, repeated(image, ways))
    judged, holes = shifted(judged, noise, config), shifted(holes, noise, config)
    moved = shifted(image, noise, config)
    # One look serves D's heads and LPIPS, which have the same network, where both see the same:
    # composites are g's own pictures with push_pull, which gives known pixels as they are
    measured = config.perceptual > 0 or config.drawn > 0
    look = lpips.taps if lpips is not None and measured else None
    same = not config.composite or model.config.push_pull
    with torch.no_grad():  # Eq. 7 is no function of g here: a third of D's pass back is saved
        known_taps = look(moved) if look else None
        known_features = judge.seen(moved, known_taps)
        real = judge(moved, holes[:batch], known_features)
    of_rebuilt, of_filled = parted(judged, batch)
    made_taps = look(judged if known_features else of_rebuilt) if look and same else None
    features_made = judge.seen(judged, made_taps)
    made = judge(judged, holes, features_made)
    parts = [
        losses.adversarial(
            one[:batch], one[batch:], original, hole_share(holes[:batch], original, config)
        )
        for one, original in zip(made, real, strict=True)
    ]
    terms["L_A"] = torch.stack(parts).mean()
    weights = {
        "L_F": config.frequency,
        "L_BM": config.gmm,
        "KL_c": config.posterior,
        "KL_match": config.match,
        "KL_m": config.elbo,
        "L1": 1.0,
        "L1_known": 1.0,
        "L1_rim": config.rim,
        "L_A": config.adversarial,  # Eq. 8: L_C = L_R + lambda_A L_A
    }
    if measured:
        # the loop refuses to start without it
        assert lpips is not None
        assert look is not None
        assert known_taps is not None
        if config.perceptual > 0:
            first = made_taps or look(shifted(rebuilt[-1], noise, config))
            distances = lpips.between([parted(tap, batch)[0] for tap in first], known_taps)
            terms["LPIPS"] = distances.mean()
            weights["LPIPS"] = config.perceptual
        if config.drawn > 0:
            seen_all = made_taps if known_features else None  # else of reconstructions alone
            rest = [parted(tap, batch)[1] for tap in seen_all] if seen_all else look(of_filled)
            wanted = [repeated(t, ways - 1) for t in known_taps]
            terms["LPIPS_drawn"] = lpips.between(rest, wanted).mean()
            weights["LPIPS_drawn"] = config.drawn
    loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    seen = [torch.cat(both).detach() for both in zip(known_features, features_made, strict=True)]
    return Pass(loss, {k: v.detach() for k, v in terms.items()}, judged.detach(), seen, j)


def shifted(pictures: Tensor, noise: Noise, config: LossConfig) -> Tensor:
    """Each of (n B, C, S, S) moved by 0 to `config.shift` pixels, round the edge.

    D and LPIPS look in steps of 2 and 4 pixels: now g finds no grid to agree on with them.
    """
    if config.shift == 0:
        return pictures
    moves = (noise.shift * (config.shift + 1)).long().tolist()
    return _moved(pictures, config.shift, moves * (len(pictures) // len(moves)))


class _Moved(torch.autograd.Function):
    """Pictures moved down and right by their own moves; back, their gradients the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, most: int, moves: list[list[int]]) -> Tensor:
        ctx.most, ctx.moves = most, moves
        return _windows(x, (most, 0), [[most - down, most - right] for down, right in moves])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _windows(grads[0], (0, ctx.most), ctx.moves), None, None


_moved = cast(Callable[[Tensor, int, list[list[int]]], Tensor], _Moved.apply)


def _windows(x: Tensor, wider: tuple[int, int], corners: list[list[int]]) -> Tensor:
    """A window of each picture (n, C, S, S), as large, of what it is when it goes on as a torus.

    Few operations for all: a GPU would wait for a roll of each picture to be asked for.
    """
    side = x.shape[-1]
    wide = F.pad(x, wider * 2, mode="circular")
    cut = [
        one[:, top : top + side, left : left + side]
        for one, (top, left) in zip(wide, corners, strict=True)
    ]
    return torch.stack(cut).contiguous(memory_format=torch.channels_last)


def discriminator_loss(
    judge: Discriminator,
    image: Tensor,
    hole: Tensor,
    generated: Tensor,
    config: LossConfig,
    seen: list[Tensor] | None = None,
) -> Tensor:
    """The LSGAN loss of D on originals (B, ...) and generated pictures (n B, ...), `shifted`.

    `seen` is what `Pass.seen` says; without it D looks for itself.
    """
    holes = repeated(hole, 1 + len(generated) // len(image))
    parts = []
    for scores in judge(torch.cat([image, generated]), holes, seen):
        real, made = scores[: len(image)], scores[len(image) :]
        parts.append(losses.discriminator(real, made, hole_share(hole, real, config)))
    return torch.stack(parts).mean()


def hole_share(hole: Tensor, scores: Tensor, config: LossConfig) -> Tensor | None:
    """How much of the place of each score is hole, where the scores are weighed by it."""
    return F.adaptive_avg_pool2d(hole, scores.shape[-1]) if config.hole_scores else None

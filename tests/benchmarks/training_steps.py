"""Steps of training, ours and the straightforward ones, each in a process of its own.

    python tests/benchmarks/training_steps.py ours|straightforward RUN PICTURES

makes one step for each line that comes in, and says so in a line. What a training sets for its
process, such as how memory is kept, is then no part of the other one.
"""

import argparse
import contextlib
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from picme_training import compact, config, discriminator, losses, memory, seeds
from picme_training.algorithm import Noise, shifted
from picme_training.blocks import Attention, ResidualDown, ResidualUp
from picme_training.device import emulates_bf16
from picme_training.discriminator import SelfAttention
from picme_training.gaussians import kl, kl_to_standard
from picme_training.instance_norm import LeakyNorm
from picme_training.loop import Trainer, average
from picme_training.perceptual import Lpips

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
FUSED = (Attention, LeakyNorm, ResidualDown, ResidualUp, SelfAttention)
"""Out of training these are what is read in the paper, one operation after the other."""


def precision() -> str:
    """What this CPU is trained in."""
    return "fp32" if emulates_bf16(torch.device("cpu")) else "bf16"


def trainer_of(name: str, precision: str) -> Trainer:
    tables = config.load(CONFIGS / f"{name}.toml").to_dict()
    tables["schedule"]["precision"] = precision
    run = config.from_dict(tables)
    torch.manual_seed(0)
    lpips = None
    if (
        run.loss.perceptual > 0 or run.network.judge_features
    ):  # its weights take no part in the time
        lpips = Lpips()
        for lin in lpips.lins:
            torch.nn.init.constant_(lin, 0.01)
        lpips = lpips.eval().requires_grad_(False)
    return Trainer(run, torch.device("cpu"), lpips)


def plain(name: str) -> Trainer:
    """In float32 and torch's own layout."""
    trainer = trainer_of(name, "fp32")
    for module in (trainer.model, trainer.judge):
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # in no stub of torch's
    return trainer


def batch(count: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = 2 * torch.rand(count, 3, size, size, generator=generator) - 1
    hole = torch.zeros(count, 1, size, size)
    hole[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    return image, hole


def straightforward(trainer: Trainer, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
    """Algorithm 1, line by line; the unweighted losses by name."""
    model, judge, run = trainer.model, trainer.judge, trainer.config
    for module in (*model.modules(), *judge.modules()):
        module.training = not isinstance(module, FUSED)
    weights = run.loss
    generator = torch.Generator().manual_seed(seeds.word(run.schedule.seed, trainer.step))
    noise = Noise.draw(len(image), model.latent_dim, generator)
    judge.requires_grad_(False)

    encoding = model.encoding(model.features(image, hole), hole)
    z_c = model.posterior(model.features(image, 1 - hole))
    fitted = model.latent.mixture(encoding.condition.detach())
    each = losses.divergences(fitted, z_c.detach(), weights.direction)
    j = losses.best_primitive(each)
    mixture = model.latent.mixture(encoding.condition)
    latents = []
    if weights.decoded in ("best", "both"):
        latents.append(mixture.primitive(j).sample(noise.best))
    if weights.decoded in ("draw", "both"):
        cumulative = mixture.log_alpha.detach().exp().cumsum(1)
        drawn = (cumulative <= noise.choice[:, None] * cumulative[:, -1:]).sum(1)
        latents.append(mixture.primitive(drawn).sample(noise.drawn))
    assert encoding.z_m is not None
    z_m = encoding.z_m.sample(noise.z_m)
    rebuilt = model.decode(z_c.sample(noise.z_c), z_m, encoding.features, hole)
    inferred = [model.decode(z, z_m, encoding.features, hole) for z in latents]

    def judged(pictures: list[Tensor]) -> Tensor:
        seen = pictures[-1]
        if weights.composite:
            seen = hole * seen + (1 - hole) * image
        return shifted(seen, noise, weights)

    moved, holes = shifted(image, noise, weights), shifted(hole, noise, weights)
    known = [losses.known_reconstruction(one, image, 1 - hole) for one in inferred]
    real = [scores.detach() for scores in judge(moved, holes)]
    shares = [
        F.adaptive_avg_pool2d(holes, scores.shape[-1]) if weights.hole_scores else None
        for scores in real
    ]
    l_a = []
    for one in (rebuilt, *inferred):
        targets = [torch.ones_like(s) for s in real] if one is rebuilt else real
        errors = [
            losses.scored((scores - target) ** 2, share)
            for scores, target, share in zip(
                judge(judged(one), holes), targets, shares, strict=True
            )
        ]
        l_a.append(torch.stack(errors).mean())
    terms = {
        "L_F": losses.frequency(fitted.log_alpha, j),
        "L_BM": losses.back_propagate_max(each, j, weights.losers),
        "KL_c": kl_to_standard(z_c).mean(),
        "KL_m": kl_to_standard(encoding.z_m).mean(),
        "L1": losses.reconstruction(rebuilt, image),
        "L1_known": torch.stack(known).mean(),
        "L_A": l_a[0] + torch.stack(l_a[1:]).mean(),
    }
    factors = {
        "L_F": weights.frequency,
        "L_BM": weights.gmm,
        "KL_c": weights.posterior,
        "KL_m": weights.elbo,
        "L_A": weights.adversarial,
    }
    if weights.match > 0:
        terms["KL_match"] = kl(z_c, fitted.primitive(j).detach()).mean()
        factors["KL_match"] = weights.match
    if trainer.lpips is not None:
        terms["LPIPS"] = trainer.lpips(shifted(rebuilt[-1], noise, weights), moved).mean()
        factors["LPIPS"] = weights.perceptual
    loss = torch.stack([factors.get(name, 1.0) * term for name, term in terms.items()]).sum()
    descend(trainer, "generator", loss)

    judge.requires_grad_(True)
    made = [judge(judged(one).detach(), holes) for one in (rebuilt, *inferred)]
    maps = zip(judge(moved, holes), zip(*made, strict=True), shares, strict=True)
    l_d = torch.stack(
        [losses.discriminator(real, torch.cat(each), share) for real, each, share in maps]
    ).mean()
    descend(trainer, "discriminator", l_d)
    average(trainer.ema, model, min(run.schedule.ema, (1 + trainer.step) / (10 + trainer.step)))
    trainer.step += 1
    return {**{name: term.detach() for name, term in terms.items()}, "L_D": l_d.detach()}


def descend(trainer: Trainer, name: str, loss: Tensor) -> None:
    trainer.optimizers[name].zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    trainer.optimizers[name].step()


@contextlib.contextmanager
def stepping(which: str, run: str, count: int) -> Iterator[Callable[[], None]]:
    """Makes a step a call, in a process of its own that is ready for the first."""
    command = [sys.executable, __file__, which, run, str(count)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def wait() -> None:
            if (got := answers.readline()) != "done\n":
                raise RuntimeError(f"{command} must say done, got {got!r}")

        def step() -> None:
            print(file=asked)
            wait()

        wait()
        yield step


def stepper(which: str, run: str, count: int) -> Callable[[], dict[str, Tensor]]:
    """What makes a step in this process: `ours` as it is trained, or `straightforward`."""
    if which == "ours":
        memory.keep()
        trainer = trainer_of(run, precision())
        make = trainer.train_step
    else:
        for module in (compact, discriminator):
            module.unshuffled = F.pixel_unshuffle
        trainer = plain(run)
        make = functools.partial(straightforward, trainer)
    return functools.partial(make, *batch(count, trainer.config.network.size))


def main() -> None:
    """Makes the steps that are asked for."""
    parser = argparse.ArgumentParser(description="Makes a step of training for each line.")
    parser.add_argument("which", choices=["ours", "straightforward"])
    parser.add_argument("run")
    parser.add_argument("pictures", type=int)
    given = parser.parse_args()
    step = stepper(given.which, given.run, given.pictures)
    print("done", flush=True)
    for _ in sys.stdin:
        assert all(torch.isfinite(value) for value in step().values())
        print("done", flush=True)


if __name__ == "__main__":
    main()

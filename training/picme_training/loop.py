"""The training loop: Algorithm 1 over the steps, with averages, checkpoints and pictures."""

import copy
import json
import sys
import time
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from picme_rt import atomic
from picme_rt.errors import InputError
from picme_training import checkpoint, discriminator, evaluation
from picme_training.algorithm import Noise, discriminator_loss, generator_pass
from picme_training.config import RunConfig
from picme_training.data import Batches
from picme_training.networks import Picme
from picme_training.perceptual import Lpips

LOG_EVERY = 20  # steps between scalars


def average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the averaged weights towards the live ones; buffers (spectral norm) are copied."""
    with torch.no_grad():
        torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
        for kept, live in zip(ema.buffers(), model.buffers(), strict=True):
            kept.copy_(live)


_Network = TypeVar("_Network", bound=nn.Module)


def _placed(module: _Network, device: torch.device) -> _Network:
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # in no stub of torch's


def check_lpips(config: RunConfig, lpips: Lpips | None) -> None:
    """Refuses a run with a perceptual loss and no weights for it.

    Raises:
        InputError: `config.loss.perceptual` > 0 and `lpips` is None.
    """
    if config.loss.perceptual > 0 and lpips is None:
        raise InputError(
            "loss.perceptual > 0 needs the weights of LPIPS: pass --lpips-weights FILE "
            "(docs/training.md), or set perceptual = 0"
        )


class Trainer:
    """One run: its networks, optimisers and place in time."""

    def __init__(self, config: RunConfig, device: torch.device, lpips: Lpips | None):
        check_lpips(config, lpips)
        torch.manual_seed(config.schedule.seed)
        self.config, self.device, self.lpips = config, device, lpips
        self.model = _placed(Picme(config.network), device)
        self.judge = _placed(discriminator.make(config.network), device)
        self.ema = copy.deepcopy(self.model).requires_grad_(False).eval()
        if lpips is not None:
            _placed(lpips, device)
        schedule, betas = config.schedule, (config.schedule.beta1, config.schedule.beta2)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator": torch.optim.Adam(self.model.parameters(), schedule.lr, betas),
            "discriminator": torch.optim.Adam(
                self.judge.parameters(), schedule.lr_discriminator, betas
            ),
        }
        self.step = 0
        self.pictures = 0  # that the weights have seen, in the run they began with too

    @property
    def state(self) -> checkpoint.State:
        """What a checkpoint holds."""
        return checkpoint.State(self.model, self.ema, self.judge, self.optimizers)

    def train_step(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """One step of f, the mixture and g, then one of D; the unweighted losses by name."""
        schedule = self.config.schedule
        image = image.to(self.device).contiguous(memory_format=torch.channels_last)
        hole = hole.to(self.device)
        generator = torch.Generator(self.device).manual_seed(schedule.seed * 2**32 + self.step)
        noise = Noise.draw(len(image), self.model.latent_dim, generator)
        rates = (schedule.lr, schedule.lr_discriminator)
        for optimizer, lr in zip(self.optimizers.values(), rates, strict=True):
            optimizer.param_groups[0]["lr"] = lr * schedule.rate(self.step)
        half = torch.autocast(
            self.device.type, torch.bfloat16, enabled=schedule.precision == "bf16"
        )

        self.model.train()
        self.judge.requires_grad_(False)
        with half:
            made = generator_pass(
                self.model, self.judge, image, hole, noise, self.config.loss, self.lpips
            )
        self._descend("generator", made.loss)
        self.judge.requires_grad_(True)
        with half:
            l_d = discriminator_loss(self.judge, image, made.generated)
        self._descend("discriminator", l_d)
        # a young average follows closely: (1 + t) / (10 + t) until it reaches the decay asked for
        average(self.ema, self.model, min(schedule.ema, (1 + self.step) / (10 + self.step)))
        self.step += 1
        self.pictures += len(image)
        return {**made.terms, "loss": made.loss.detach(), "L_D": l_d.detach()}

    def _descend(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()


def train(
    config: RunConfig,
    batches: Batches,
    val: Tensor,
    out: Path,
    *,
    device: str = "cpu",
    lpips: Lpips | None = None,
    resume: bool = False,
    start_from: Path | None = None,
) -> Path:
    """Trains from `batches` to the last step and gives the last checkpoint's directory.

    Args:
        config: The run.
        batches: Pictures and holes by step.
        val: (N, 3, S, S) uint8, held-out pictures for the evaluations.
        out: The run's folder: checkpoints/, samples/, metrics.jsonl and TensorBoard's events.
        device: A torch device.
        lpips: Perceptual loss and measure.
        resume: Go on from the newest checkpoint of `out`.
        start_from: A checkpoint, or a run, whose weights a new run begins with (fine-tuning).

    Raises:
        InputError: `out` holds a run and `resume` is not set, or its configuration is another one.
    """
    trainer = Trainer(config, torch.device(device), lpips)
    _prepare(out, trainer, resume, start_from)
    steps, every = config.schedule.steps, config.schedule.evaluate_every
    last = checkpoint.find(out) if resume else out
    with (
        SummaryWriter(str(out), purge_step=trainer.step + 1) as board,
        (out / "metrics.jsonl").open("a") as metrics,
        tqdm(total=steps, initial=trainer.step, unit="step", smoothing=0.05) as bar,
    ):
        began, seen = time.monotonic(), 0
        while trainer.step < steps:
            terms = trainer.train_step(*batches.batch(trainer.step))
            bar.update()
            seen += config.schedule.batch
            if trainer.step % LOG_EVERY == 0:
                speed = seen / (time.monotonic() - began)
                began, seen = time.monotonic(), 0
                _log(trainer.step, terms, speed, board, metrics, bar)
            if trainer.step % every == 0 or trainer.step == steps:
                _evaluate(trainer, val, out, board, metrics)
                last = checkpoint.save(out, trainer.step, trainer.pictures, config, trainer.state)
                began, seen = time.monotonic(), 0
    return last


def _prepare(out: Path, trainer: Trainer, resume: bool, start_from: Path | None) -> None:
    if not resume:
        if (out / "metrics.jsonl").exists():
            raise InputError(f"{out} holds a run; pass --resume to go on, or another --out")
        if start_from is not None:
            place = checkpoint.find(start_from)
            trainer.pictures = checkpoint.describe(place).pictures
            for name in ("model", "ema", "discriminator"):
                checkpoint.load_module(place, name, getattr(trainer.state, name))
        out.mkdir(parents=True, exist_ok=True)
        return
    if start_from is not None:
        raise InputError("--resume goes on with the run's own weights; leave out --start-from")
    place = checkpoint.find(out)
    stored = checkpoint.describe(place)
    if stored.config != trainer.config:
        raise InputError(f"{place} was made with another configuration; resume with the same TOML")
    checkpoint.load(place, trainer.state)
    trainer.step, trainer.pictures = stored.step, stored.pictures
    # what came after the checkpoint is computed again, and must not stand in the curves twice
    kept = [
        line
        for line in (out / "metrics.jsonl").read_text().splitlines()
        if json.loads(line)["step"] <= trainer.step
    ]
    with atomic.file(out / "metrics.jsonl") as fresh:
        fresh.write_text("".join(f"{line}\n" for line in kept))


def _log(
    step: int,
    terms: dict[str, Tensor],
    speed: float,
    board: SummaryWriter,
    metrics: TextIO,
    bar: "tqdm[NoReturn]",
) -> None:
    numbers = {name: round(float(value), 5) for name, value in terms.items()}
    for name, value in numbers.items():
        board.add_scalar(f"train/{name}", value, step)
    board.add_scalar("images_per_second", speed, step)
    print(
        json.dumps({"step": step, **numbers, "images/s": round(speed, 1)}), file=metrics, flush=True
    )
    bar.set_postfix(L1=numbers["L1"], L_A=numbers["L_A"], D=numbers["L_D"], img_s=f"{speed:.0f}")


def _evaluate(
    trainer: Trainer, val: Tensor, out: Path, board: SummaryWriter, metrics: TextIO
) -> None:
    report = evaluation.evaluate(
        trainer.ema, val, direction=trainer.config.loss.direction, lpips=trainer.lpips
    )
    for name, value in report.scalars.items():
        board.add_scalar(f"val/{name}", value, trainer.step)
    for i, (used, alpha) in enumerate(zip(report.usage, report.alpha, strict=True)):
        board.add_scalar(f"primitives/used_{i}", used, trainer.step)
        board.add_scalar(f"primitives/alpha_{i}", alpha, trainer.step)
    board.add_image("val/completions", report.grid, trainer.step, dataformats="HWC")
    (out / "samples").mkdir(exist_ok=True)
    Image.fromarray(report.grid).save(out / "samples" / f"step_{trainer.step:08d}.png")
    line = {
        "step": trainer.step,
        **{f"val_{k}": round(v, 5) for k, v in report.scalars.items()},
        "used": [round(u, 4) for u in report.usage],
        "alpha": [round(a, 4) for a in report.alpha],
    }
    print(json.dumps(line), file=metrics, flush=True)
    if dead := [i for i, used in enumerate(report.usage) if used == 0]:
        tqdm.write(
            f"step {trainer.step}: no picture of val has primitive {dead} as its best",
            file=sys.stderr,
        )

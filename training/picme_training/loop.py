"""The training loop: Algorithm 1 over the steps, with averages, checkpoints and pictures."""

import contextlib
import copy
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from picme_rt import atomic, files
from picme_rt.errors import InputError
from picme_training import (
    checkpoint,
    compiling,
    discriminator,
    distributed,
    diverging,
    engine_weights,
    evaluation,
    grow,
    stopping,
)
from picme_training.algorithm import Noise, discriminator_loss, generator_pass, shifted
from picme_training.board import Board
from picme_training.config import NetworkConfig, RunConfig, check_same
from picme_training.data import Batches, ahead
from picme_training.device import named
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
    """Refuses a run that needs the weights of LPIPS and has none.

    Raises:
        InputError: `config.loss.perceptual` > 0 and `lpips` is None, or
            `config.network.judge_features` is set.
    """
    discriminator.check(config.network, lpips)
    if config.loss.perceptual > 0 and lpips is None:
        raise InputError(
            "loss.perceptual > 0 needs the weights of LPIPS: pass --lpips-weights FILE "
            "(docs/training.md), or set perceptual = 0"
        )


def check_out(out: Path, resume: bool) -> None:
    """Refuses to begin a run where there is one.

    Raises:
        InputError: `out` has a checkpoint and `resume` is not set.
    """
    # a run that was stopped before its first checkpoint has nothing to go on with
    if not resume and any((out / "checkpoints").glob("step_*")):
        raise InputError(f"{out} holds a run; pass --resume to go on, or another --out")


class Trainer:
    """One run: its networks, optimisers and place in time; see `train` for `compiled`."""

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        lpips: Lpips | None,
        *,
        compiled: bool = False,
    ):
        check_lpips(config, lpips)
        distributed.check(config.schedule.batch)
        if compiled and distributed.count() > 1:
            raise InputError(
                f"compiled networks are for one process, got {distributed.count()}; leave out "
                "--compile"
            )
        torch.manual_seed(config.schedule.seed)
        self.config, self.device, self.lpips = config, device, lpips
        self.looks = compiling.features(lpips) if compiled and lpips is not None else lpips
        self.model = _placed(Picme(config.network), device)
        self.judge = _placed(discriminator.make(config.network, self.looks), device)
        self.ema = copy.deepcopy(self.model).requires_grad_(False).eval()
        if compiled:
            compiling.networks(self.model, self.judge)
        self.generate = distributed.shared(self.model, generator_pass)
        self.discriminate = distributed.shared(self.judge, discriminator_loss)
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
        generator = torch.Generator(self.device).manual_seed(schedule.seed * 2**32 + self.step)
        joint = Noise.draw(len(image), self.model.latent_dim, generator)
        noise = Noise(*map(distributed.own, joint))  # rows of what one process would draw
        # from pinned memory the copies to a GPU are queued, and not waited for
        image, hole = (distributed.own(x).to(self.device, non_blocking=True) for x in (image, hole))
        image = image.contiguous(memory_format=torch.channels_last)
        rates = (schedule.lr, schedule.lr_discriminator)
        for optimizer, lr in zip(self.optimizers.values(), rates, strict=True):
            optimizer.param_groups[0]["lr"] = lr * schedule.rate(self.step)
        half = torch.autocast(
            self.device.type, torch.bfloat16, enabled=schedule.precision == "bf16"
        )

        self.model.train()
        self.judge.requires_grad_(False)
        with half:
            made = self.generate(self.judge, image, hole, noise, self.config.loss, self.looks)
        self._descend("generator", made.loss)
        self.judge.requires_grad_(True)
        with half:
            moved, moved_hole = (shifted(x, noise, self.config.loss) for x in (image, hole))
            l_d = self.discriminate(moved, moved_hole, made.generated, self.config.loss, made.seen)
        self._descend("discriminator", l_d)
        # a young average follows closely: (1 + t) / (10 + t) until it reaches the decay asked for
        average(self.ema, self.model, min(schedule.ema, (1 + self.step) / (10 + self.step)))
        self.step += 1
        self.pictures += len(image) * distributed.count()
        return {**made.terms, "loss": made.loss.detach(), "L_D": l_d.detach()}

    def _descend(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        if self.config.schedule.clip > 0:
            diverging.bound(optimizer.param_groups[0]["params"], self.config.schedule.clip)
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
    stop: int | None = None,
    compiled: bool = False,
) -> Path:
    """Trains from `batches` to the last step or to `stop`; gives the last checkpoint's directory.

    Args:
        config: The run.
        batches: Pictures and holes by step.
        val: (N, 3, S, S) uint8, held-out pictures for the evaluations.
        out: The run's folder: checkpoints/, samples/, metrics.jsonl and TensorBoard's events.
        device: A torch device.
        lpips: Perceptual loss and measure.
        resume: Go on from the newest checkpoint of `out`.
        start_from: A checkpoint, a run or an engine whose weights a new run begins with.
        stop: Step to end at, measured and with a checkpoint, for `resume` to go on from.
        compiled: Whether the networks are compiled (`compiling`), which takes a minute or two.

    Raises:
        KeyboardInterrupt: The process was told to end (see `stopping`); the last step that was
            computed has a checkpoint.
        DivergedError: A loss or a weight is not finite.
        InputError: `out` holds a run and `resume` is not set, or its configuration is another one,
            or `stop` lies behind it or past the last step, or there is no such device.
    """
    trainer = Trainer(config, named(device), lpips, compiled=compiled)
    if trainer.device.type == "cuda":  # every step has the same sizes: the fastest way to each
        torch.backends.cudnn.benchmark = True
    _prepare(out, trainer, resume, start_from)
    every, steps = config.schedule.evaluate_every, _end(trainer, stop)
    with (
        stopping.told() as told,
        _record(out, trainer.step, steps) as record,
        contextlib.closing(
            ahead(batches, trainer.step, steps, for_gpu=trainer.device.type == "cuda")
        ) as ready,
    ):
        if resume and _due(trainer.step, every, steps):
            with distributed.agreed():
                if record is not None and not _is_measured(out, trainer.step):
                    _evaluate(trainer, val, out, record)  # it ended between the two
        began, seen = time.monotonic(), 0
        while trainer.step < steps:
            terms = trainer.train_step(*next(ready))
            if record is not None:
                record.bar.update()
            seen += config.schedule.batch
            if trainer.step % LOG_EVERY == 0:
                speed = seen / (time.monotonic() - began)
                began, seen = time.monotonic(), 0
                terms = distributed.mean(terms)
                if record is not None:
                    _log(trainer.step, terms, speed, record)
            due = _due(trainer.step, every, steps)
            kept = due or told()  # one look: a signal may come between two
            if kept or trainer.step % LOG_EVERY == 0:
                with distributed.agreed():
                    diverging.check(terms, trainer.state, trainer.step, out)
            if kept:
                with distributed.agreed():  # the others wait here
                    if record is not None:  # first kept, for an evaluation may be cut off
                        checkpoint.save(out, trainer.step, trainer.pictures, config, trainer.state)
                        if due:
                            _evaluate(trainer, val, out, record)
                began, seen = time.monotonic(), 0
                if told():
                    raise KeyboardInterrupt
    return distributed.first(lambda: checkpoint.find(out))


def _end(trainer: Trainer, stop: int | None) -> int:
    steps = trainer.config.schedule.steps
    if stop is None:
        return steps
    if not max(1, trainer.step) <= stop <= steps:
        raise InputError(
            f"stop must be a step from {max(1, trainer.step)}, where the run is, to {steps}, its "
            f"last, got {stop}"
        )
    return stop


def _due(step: int, every: int, steps: int) -> bool:
    """Whether a run is measured after a step."""
    return step % every == 0 or step == steps


def _is_measured(out: Path, step: int) -> bool:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return any(line["step"] == step and "val_pairwise" in line for line in lines)


class _Record(NamedTuple):
    """Where the first process writes what happens."""

    board: Board
    metrics: TextIO
    bar: "tqdm[NoReturn]"


@contextlib.contextmanager
def _record(out: Path, began: int, steps: int) -> Iterator[_Record | None]:
    if distributed.rank() > 0:
        yield None
        return
    with (
        contextlib.closing(Board(out, began + 1)) as board,
        atomic.named(out / "metrics.jsonl"),  # all else that is written here has its own name
        (out / "metrics.jsonl").open("a") as metrics,
        tqdm(total=steps, initial=began, unit="step", smoothing=0.05) as bar,
    ):
        yield _Record(board, metrics, bar)


def _prepare(out: Path, trainer: Trainer, resume: bool, start_from: Path | None) -> None:
    place = distributed.first(lambda: _origin(out, trainer.config, resume, start_from))
    with distributed.agreed():
        if place is not None and engine_weights.is_engine(place):
            _begin_with_engine(place, trainer)
        elif place is not None:
            stored = checkpoint.describe(place)
            trainer.pictures = stored.pictures
            if resume:
                trainer.step = stored.step
                checkpoint.load(place, trainer.state)
            else:
                _begin_with(place, stored.config.network, trainer)
        if distributed.rank() == 0 and resume:
            _cut(out / "metrics.jsonl", trainer.step)
        elif distributed.rank() == 0:
            out.mkdir(parents=True, exist_ok=True)
            if (out / "metrics.jsonl").exists():
                (out / "metrics.jsonl").replace(out / "metrics.stopped.jsonl")


def _begin_with(place: Path, before: NetworkConfig, trainer: Trainer) -> None:
    grow.check(before, trainer.config.network)
    for name in ("model", "ema", "discriminator"):
        module: nn.Module = getattr(trainer.state, name)
        if before == trainer.config.network:
            checkpoint.load_module(place, name, module)
        else:
            stored = checkpoint.tensors(place, name)
            module.load_state_dict(grow.grown(stored, module.state_dict()))


def _begin_with_engine(place: Path, trainer: Trainer) -> None:
    stored = engine_weights.read(place)
    grow.check(stored.network, trainer.config.network)
    trainer.pictures = stored.pictures
    for module in (trainer.model, trainer.ema):
        module.load_state_dict(grow.grown(stored.state, module.state_dict()))


def _origin(out: Path, config: RunConfig, resume: bool, start_from: Path | None) -> Path | None:
    """The checkpoint, or engine, that a run goes on or begins with; None for fresh weights."""
    for folder in (out, out / "checkpoints", out / "samples"):
        atomic.sweep(folder)
    check_out(out, resume)
    if not resume:
        if start_from is None or engine_weights.is_engine(start_from):
            return start_from
        return checkpoint.find(start_from)
    if start_from is not None:
        raise InputError("--resume goes on with the run's own weights; leave out --start-from")
    place = checkpoint.find(out)
    check_same(place, checkpoint.describe(place).config, config)
    return place


def _cut(metrics: Path, step: int) -> None:
    """Drops the lines after a step: they are computed again, and must not be there twice.

    Raises:
        InputError: A line is damaged.
    """
    if not metrics.exists():
        return
    try:
        text = metrics.read_text()
        whole = text[: text.rfind("\n") + 1]  # a run that is killed may leave half a line
        kept = [line for line in whole.splitlines(True) if json.loads(line)["step"] <= step]
    except (ValueError, KeyError, TypeError) as exc:
        raise InputError(f"{metrics} is damaged: {exc!r}; move it away to go on") from exc
    with atomic.file(metrics) as fresh:
        fresh.write_text("".join(kept))


def _log(step: int, terms: dict[str, Tensor], speed: float, record: _Record) -> None:
    numbers = {name: round(float(value), 5) for name, value in terms.items()}
    for name, value in numbers.items():
        record.board.add_scalar(f"train/{name}", value, step)
    record.board.add_scalar("images_per_second", speed, step)
    line = {"step": step, **numbers, "images/s": round(speed, 1)}
    print(json.dumps(line), file=record.metrics, flush=True)
    shown = {"L1": numbers["L1"], "L_A": numbers["L_A"], "D": numbers["L_D"]}
    record.bar.set_postfix({**shown, "img_s": f"{speed:.0f}"})


def _evaluate(trainer: Trainer, val: Tensor, out: Path, record: _Record) -> None:
    board = record.board
    report = evaluation.evaluate(
        trainer.ema, val, direction=trainer.config.loss.direction, lpips=trainer.lpips
    )
    for name, value in report.scalars.items():
        board.add_scalar(f"val/{name}", value, trainer.step)
    for i, (used, alpha) in enumerate(zip(report.usage, report.alpha, strict=True)):
        board.add_scalar(f"primitives/used_{i}", used, trainer.step)
        board.add_scalar(f"primitives/alpha_{i}", alpha, trainer.step)
    board.add_image("val/completions", report.grid, trainer.step)
    (out / "samples").mkdir(exist_ok=True)
    sample = out / "samples" / f"step_{trainer.step:08d}.png"
    files.write_picture(sample, files.Photograph(report.grid, None, None))
    line = {
        "step": trainer.step,
        **{f"val_{k}": round(v, 5) for k, v in report.scalars.items()},
        "used": [round(u, 4) for u in report.usage],
        "alpha": [round(a, 4) for a in report.alpha],
    }
    print(json.dumps(line), file=record.metrics, flush=True)
    if dead := [i for i, used in enumerate(report.usage) if used == 0]:
        tqdm.write(
            f"step {trainer.step}: no picture of val has primitive {dead} as its best",
            file=sys.stderr,
        )

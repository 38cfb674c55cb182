"""The training loop: Algorithm 1 over the steps, with averages, checkpoints and pictures."""

import contextlib
import copy
import time
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from picme_rt import atomic
from picme_rt.errors import InputError
from picme_training import (
    checkpoint,
    compiling,
    dataset,
    discriminator,
    distributed,
    diverging,
    engine_weights,
    evaluation,
    grow,
    record,
    seeds,
    stopping,
)
from picme_training.algorithm import Noise, discriminator_loss, generator_pass, shifted
from picme_training.config import NetworkConfig, RunConfig, check_same
from picme_training.data import Batches, ahead
from picme_training.dataset import Dataset
from picme_training.device import named
from picme_training.networks import Picme
from picme_training.perceptual import Lpips

LOG_EVERY = 20  # steps between scalars
_STARTED = ("model", "ema", "discriminator")  # what a run takes from the one it starts from
_AVERAGED = ("model", "ema")  # what it takes from averaged weights alone, as from an engine


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
        InputError: `config.loss.perceptual` or `config.loss.drawn` > 0 and `lpips` is None, or
            `config.network.judge_features` is set.
    """
    discriminator.check(config.network, lpips)
    for name in ("perceptual", "drawn"):
        if getattr(config.loss, name) > 0 and lpips is None:
            raise InputError(
                f"loss.{name} > 0 needs the weights of LPIPS: pass --lpips-weights FILE "
                f"(docs/training.md), or set {name} = 0"
            )


def origin(out: Path, config: RunConfig, resume: bool, start_from: Path | None) -> Path | None:
    """The checkpoint, or engine, that a run goes on or begins with; None for fresh weights.

    Nothing is written: it is asked before the pictures are read, too.

    Raises:
        InputError: `out` holds a run and `resume` is not set, or it is and there is none, of this
            configuration; `start_from` is none, or of a network that does not grow into this one;
            a file is damaged.
    """
    if resume and start_from is not None:
        raise InputError("--resume goes on with the run's own weights; leave out --start-from")
    if resume:
        place = checkpoint.find(out)
        check_same(place, checkpoint.describe(place).config, config)
        checkpoint.check(place, ("model", "ema", "discriminator", "optimizer"))
        return place
    # a run that was stopped before its first checkpoint has nothing to go on with
    if any((out / "checkpoints").glob("step_*")):
        raise InputError(f"{out} holds a run; pass --resume to go on, or another --out")
    if start_from is None or engine_weights.is_engine(start_from):
        return start_from
    place = checkpoint.find(start_from)
    grow.check(checkpoint.describe(place).config.network, config.network)
    checkpoint.check(place, ("ema",) if checkpoint.is_weights_alone(place) else _STARTED)
    return place


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
            "generator": torch.optim.Adam(self.model.parameters(), schedule.lr, betas, fused=True),
            "discriminator": torch.optim.Adam(
                self.judge.parameters(), schedule.lr_discriminator, betas, fused=True
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
        generator = torch.Generator(self.device)
        generator.manual_seed(seeds.word(schedule.seed, self.step))
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
            diverging.descend(optimizer, self.config.schedule.clip)
        else:
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
        DivergedError: A loss or a weight is not finite, or the loss has exploded.
        InputError: As `origin`, or `out` has learnt from other pictures or masks, or `stop` lies
            behind it or past the last step, or there is no such device.
    """
    trainer = Trainer(config, named(device), lpips, compiled=compiled)
    if trainer.device.type == "cuda":  # every step has the same sizes: the fastest way to each
        torch.backends.cudnn.benchmark = True
    _prepare(out, trainer, batches.dataset, resume, start_from)
    every, steps = config.schedule.evaluate_every, _end(trainer, stop)
    with (
        stopping.told() as told,
        _first_writes(out, trainer.step, steps) as written,
        contextlib.closing(
            ahead(batches, trainer.step, steps, for_gpu=trainer.device.type == "cuda")
        ) as ready,
    ):
        if resume and _due(trainer.step, every, steps):
            with distributed.agreed():
                if written is not None and not record.is_measured(out, trainer.step):
                    _evaluate(trainer, val, written)  # it ended between the two
        began, seen = time.monotonic(), 0
        watch = diverging.Watch(out)
        while trainer.step < steps:
            terms = trainer.train_step(*next(ready))
            if written is not None:
                written.bar.update()
            seen += config.schedule.batch
            if trainer.step % LOG_EVERY == 0:
                speed = seen / (time.monotonic() - began)
                began, seen = time.monotonic(), 0
                terms = distributed.mean(terms)
                if written is not None:
                    written.log(trainer.step, terms, speed)
            due = _due(trainer.step, every, steps)
            kept = due or told()  # one look: a signal may come between two
            if kept or trainer.step % LOG_EVERY == 0:
                with distributed.agreed():
                    watch.check(terms, trainer.state, trainer.step)
            if kept:
                with distributed.agreed():  # the others wait here
                    if written is not None:  # first kept, for an evaluation may be cut off
                        checkpoint.save(out, _said(trainer, batches.dataset), trainer.state)
                        if due:
                            _evaluate(trainer, val, written)
                began, seen = time.monotonic(), 0
                if told():
                    raise KeyboardInterrupt
    return distributed.first(lambda: checkpoint.find(out))


def _first_writes(
    out: Path, began: int, steps: int
) -> contextlib.AbstractContextManager[record.Record | None]:
    if distributed.rank() > 0:
        return contextlib.nullcontext()
    return record.opened(out, began, steps)


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


def _prepare(
    out: Path, trainer: Trainer, learnt: Dataset | None, resume: bool, start_from: Path | None
) -> None:
    place = distributed.first(lambda: _swept(out, trainer.config, resume, start_from))
    with distributed.agreed():
        if place is not None and engine_weights.is_engine(place):
            _begin_with_engine(place, trainer)
        elif place is not None:
            stored = checkpoint.describe(place)
            trainer.pictures = stored.pictures
            if resume:
                dataset.check_same(place, stored.dataset, learnt)
                trainer.step = stored.step
                checkpoint.load(place, trainer.state)
            else:
                _begin_with(place, stored.config.network, trainer)
        if distributed.rank() == 0 and resume:
            record.cut(out, trainer.step)
            checkpoint.prune(out)  # it may have been killed before it could
        elif distributed.rank() == 0:
            record.begin(out)


def _begin_with(place: Path, before: NetworkConfig, trainer: Trainer) -> None:
    alone = checkpoint.is_weights_alone(place)
    for name in _AVERAGED if alone else _STARTED:
        module: nn.Module = getattr(trainer.state, name)
        source = "ema" if alone else name
        if before == trainer.config.network:
            checkpoint.load_module(place, source, module)
        else:
            stored = checkpoint.tensors(place, source)
            module.load_state_dict(grow.grown(stored, module.state_dict()))


def _begin_with_engine(place: Path, trainer: Trainer) -> None:
    stored = engine_weights.read(place)
    grow.check(stored.config.network, trainer.config.network)
    trainer.pictures = stored.pictures
    for module in (trainer.model, trainer.ema):
        module.load_state_dict(grow.grown(stored.state, module.state_dict()))


def _swept(out: Path, config: RunConfig, resume: bool, start_from: Path | None) -> Path | None:
    for folder in (out, out / "checkpoints", out / "samples"):
        atomic.sweep(folder)
    return origin(out, config, resume, start_from)


def _said(trainer: Trainer, learnt: Dataset | None) -> checkpoint.Description:
    return checkpoint.Description(trainer.config, trainer.step, trainer.pictures, learnt)


def _evaluate(trainer: Trainer, val: Tensor, written: record.Record) -> None:
    report = evaluation.evaluate(
        trainer.ema, val, direction=trainer.config.loss.direction, lpips=trainer.lpips
    )
    written.add(trainer.step, report)

"""What a run writes about itself: metrics.jsonl, TensorBoard's events, samples/, a progress bar."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO

from torch import Tensor
from tqdm import tqdm

from picme_rt import atomic, files
from picme_rt.errors import InputError
from picme_training.board import Board
from picme_training.evaluation import Report


class Record(NamedTuple):
    """Where one process, the first, writes what happens."""

    out: Path
    board: Board
    metrics: TextIO
    bar: "tqdm[NoReturn]"

    def log(self, step: int, terms: dict[str, Tensor], speed: float) -> None:
        """Writes the losses by name, and how many pictures a second were learnt from."""
        numbers = {name: round(float(value), 5) for name, value in terms.items()}
        for name, value in numbers.items():
            self.board.add_scalar(f"train/{name}", value, step)
        self.board.add_scalar("images_per_second", speed, step)
        self._line({"step": step, **numbers, "images/s": round(speed, 1)})
        shown = {"L1": numbers["L1"], "L_A": numbers["L_A"], "D": numbers["L_D"]}
        self.bar.set_postfix({**shown, "img_s": f"{speed:.0f}"})

    def add(self, step: int, report: Report) -> None:
        """Writes an evaluation, its pictures too; names dead primitives on stderr."""
        for name, value in report.scalars.items():
            self.board.add_scalar(f"val/{name}", value, step)
        for i, (used, alpha) in enumerate(zip(report.usage, report.alpha, strict=True)):
            self.board.add_scalar(f"primitives/used_{i}", used, step)
            self.board.add_scalar(f"primitives/alpha_{i}", alpha, step)
        self.board.add_image("val/completions", report.grid, step)
        (self.out / "samples").mkdir(exist_ok=True)
        sample = self.out / "samples" / f"step_{step:08d}.png"
        files.write_picture(sample, files.Photograph(report.grid, None, None))
        self._line(
            {
                "step": step,
                **{f"val_{k}": round(v, 5) for k, v in report.scalars.items()},
                "used": [round(u, 4) for u in report.usage],
                "alpha": [round(a, 4) for a in report.alpha],
            }
        )
        if dead := [i for i, used in enumerate(report.usage) if used == 0]:
            tqdm.write(
                f"step {step}: no picture of val has primitive {dead} as its best",
                file=sys.stderr,
            )

    def _line(self, content: dict[str, object]) -> None:
        print(json.dumps(content), file=self.metrics, flush=True)


@contextlib.contextmanager
def opened(out: Path, began: int, steps: int) -> Iterator[Record]:
    """The record of a run at step `began` of `steps`."""
    with (
        contextlib.closing(Board(out, began + 1)) as board,
        atomic.named(out / "metrics.jsonl"),  # all else that is written here has its own name
        (out / "metrics.jsonl").open("a") as metrics,
        tqdm(total=steps, initial=began, unit="step", smoothing=0.05) as bar,
    ):
        yield Record(out, board, metrics, bar)


def is_measured(out: Path, step: int) -> bool:
    """Whether the record of a run has an evaluation of a step."""
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return any(line["step"] == step and "val_pairwise" in line for line in lines)


def begin(out: Path) -> None:
    """Makes the folder of a new run; a record without a checkpoint is kept under another name."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "metrics.jsonl").exists():
        (out / "metrics.jsonl").replace(out / "metrics.stopped.jsonl")


def cut(out: Path, step: int) -> None:
    """Drops the lines after a step: they are computed again, and must not be there twice.

    Raises:
        InputError: A line is damaged.
    """
    metrics = out / "metrics.jsonl"
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

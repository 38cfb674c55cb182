"""Trains and measures what docs/method.md compares: rows of one file, each with its seeds.

    python training/compare.py training/comparison.toml --data cats256/train --val cats256/val
        --lpips-weights lpips_squeeze.safetensors --out runs/comparison [--rows p6 p1] [--jobs 4]

What is finished stays: a run goes on from its newest checkpoint, and one that was measured with
these pictures, and with weights of LPIPS or without as now, is not touched again. At the end the
table of all that is measured is printed, as Markdown, and written to OUT/table.md. `--pictures N`
takes another budget for every row, and says so in the table. `--stage N` takes every run to N
pictures and measures it there; a later call goes on.
"""

import argparse
import dataclasses
import json
import math
import statistics
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from picme_rt import atomic
from picme_rt.errors import InputError, PicmeError
from picme_training import children, config

CONFIGS = Path(__file__).parent / "configs"
COLUMNS = {
    "pairwise": "difference of pairs, levels",
    "LPIPS_pairs": "LPIPS of pairs",
    "LPIPS_hole": "LPIPS in the hole",
    "PSNR": "PSNR, dB",
    "SSIM": "SSIM",
    "KID": "KID",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One row with one seed."""

    row: str
    seed: int
    pictures: int
    settings: config.RunConfig

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.row}-{self.seed}-{self.pictures}"

    def stop(self, stage: int | None) -> int:
        """The step at which it has seen `stage` pictures; its last one without a stage."""
        steps = self.settings.schedule.steps
        return steps if stage is None else min(steps, self._steps(stage))

    def report(self, out: Path, stage: int | None) -> Path:
        """The file of its measures at a stage of the run."""
        step = self.stop(stage)
        last = step == self.settings.schedule.steps
        return out / self.name / ("report.json" if last else f"report-{step:08d}.json")

    def seen(self, stage: int | None) -> int:
        """Pictures seen by then, as the table says it."""
        return self.pictures if stage is None else min(self.pictures, stage)

    def _steps(self, pictures: int) -> int:
        return math.ceil(pictures / self.settings.schedule.batch)


def runs_of(plan: Path, rows: list[str] | None, pictures: int | None) -> list[Run]:
    """The runs that a file of rows asks for, seed by seed.

    Args:
        plan: A TOML file as training/comparison.toml.
        rows: Names to take; None takes all.
        pictures: A budget in place of each row's own.

    Raises:
        InputError: The file, a name or a value is wrong.
    """
    try:
        tables = tomllib.loads(plan.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise InputError(f"{plan} is no file of rows: {exc}") from exc
    if unknown := set(rows or []) - set(tables):
        raise InputError(f"rows must be of {', '.join(tables)}, got {', '.join(sorted(unknown))}")
    found = []
    for name in dict.fromkeys(rows or tables):
        table = tables[name]
        if not isinstance(table, dict):
            raise InputError(f"{name} must be a table of a row, got {table!r}")
        if set(table) - {"set"} != {"config", "seeds", "pictures"}:
            raise InputError(f"[{name}] must have config, seeds and pictures, got {sorted(table)}")
        seeds, budget = table["seeds"], table["pictures"] if pictures is None else pictures
        if type(budget) is not int or budget < 1:
            raise InputError(f"pictures must be a number, at least 1, got {budget!r} for [{name}]")
        if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) < len(seeds):
            raise InputError(f"seeds must be a list of different numbers, got {seeds} for [{name}]")
        if not isinstance(table.get("set", {}), dict):
            raise InputError(f"[{name}.set] must be a table, got {table['set']!r}")
        base = config.load(CONFIGS / f"{table['config']}.toml").to_dict()
        for part, values in table.get("set", {}).items():
            base[part] = base.get(part, {}) | values if isinstance(values, dict) else values
        steps = math.ceil(budget / config.from_dict(base).schedule.batch)
        every = max(1, min(base["schedule"]["evaluate_every"], steps))
        for seed in seeds:
            base["schedule"] |= {"steps": steps, "seed": seed, "evaluate_every": every}
            found.append(Run(name, seed, budget, config.from_dict(base)))
    return sorted(found, key=lambda run: run.seed)  # what is broken off leaves whole pairs


def toml_of(settings: config.RunConfig) -> str:
    """The settings as `picme train` reads them."""
    lines: list[str] = []
    for name, value in settings.to_dict().items():
        if not isinstance(value, dict):
            lines.insert(0, f"{name} = {json.dumps(value)}")
            continue
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in value.items())]
    return "\n".join(lines) + "\n"


def check(run: Run, out: Path) -> None:
    """Refuses to take what another plan trained or measured for this run.

    Raises:
        InputError: Its folder was begun with other settings.
    """
    settings = out / run.name / "run.toml"
    if settings.exists() and settings.read_text() != toml_of(run.settings):
        raise InputError(
            f"{settings.parent} was begun with other settings than {run.row} has now; "
            "delete it, or pass another --out"
        )


def measured_as(report: Path, val: Path, weights: str | None) -> bool:
    """Whether a report is of these held-out pictures, and has LPIPS where weights are given.

    Raises:
        InputError: It is damaged.
    """
    found = _read(report)
    return found["data"] == str(val) and (found["feature_space"] is None) == (weights is None)


def _read(report: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(report.read_text())
    except ValueError as exc:
        raise InputError(f"{report} is damaged: {exc}; delete it to measure again") from exc
    return found


def finish(run: Run, arguments: argparse.Namespace) -> None:
    """Trains and measures one run, as far as it is not done.

    Raises:
        PicmeError: A command failed.
    """
    folder = arguments.out / run.name
    report, settings = run.report(arguments.out, arguments.stage), folder / "run.toml"
    if report.exists() and measured_as(report, arguments.val, arguments.lpips_weights):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.file(settings) as fresh:
        fresh.write_text(toml_of(run.settings))
    kept = [int(at.name[5:]) for at in (folder / "run" / "checkpoints").glob("step_*")]
    if arguments.train_only and max(kept, default=0) >= run.stop(arguments.stage):
        return
    weights = ["--lpips-weights", arguments.lpips_weights] if arguments.lpips_weights else []
    _picme(
        folder,
        *("train", settings, "--data", arguments.data, "--val", arguments.val, *weights),
        *("--out", folder / "run", "--device", arguments.device, *(["--resume"] * bool(kept))),
        *("--stop", run.stop(arguments.stage)),
    )
    if arguments.train_only:
        return
    said = _picme(
        folder,
        *("evaluate", folder / "run", "--data", arguments.val, *weights),
        *("--masks", "centre", "--json"),
    )
    with atomic.file(report) as fresh:
        fresh.write_text(said)


def _picme(folder: Path, *command: object) -> str:
    with (folder / "log.txt").open("a") as log:
        done = children.run([sys.executable, "-m", "picme_rt", *map(str, command)], log)
    if done.returncode:
        raise PicmeError(f"picme {command[0]} of {folder.name} failed: see {log.name}")
    return done.stdout


def table_of(runs: list[Run], out: Path, stage: int | None = None) -> str:
    """Mean and standard deviation over the seeds, of the runs that are measured (at a stage)."""
    lines = [
        f"| row | pictures | seeds | {' | '.join(COLUMNS.values())} |",
        "|---|---:|---:" + "|---:" * len(COLUMNS) + "|",
    ]
    for row, pictures in dict.fromkeys((run.row, run.seen(stage)) for run in runs):
        files = [run.report(out, stage) for run in runs if run.row == row]
        reports = [_read(file) for file in files if file.exists()]
        if reports:
            cells = [_cell(reports, measure) for measure in COLUMNS]
            lines.append(f"| {row} | {pictures:,} | {len(reports)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(reports: list[dict[str, Any]], measure: str) -> str:
    models = [report["measures"]["model"] for report in reports]
    found = [model[measure] for model in models if measure in model]
    values = [value["mean"] for value in found]
    if not values:
        return "-"
    if len(values) == 1:  # KID has a spread of its own, over subsets
        spread = found[0]["spread"] if measure == "KID" else None
    else:
        spread = statistics.stdev(values)
    return f"{statistics.mean(values):.4g}" + ("" if spread is None else f" ± {spread:.2g}")


def main(argv: list[str] | None = None) -> int:
    """Runs what is asked for; 0 if all of it is measured, 1 if not, 130 when interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("plan", type=Path, metavar="PLAN", help="training/comparison.toml")
    parser.add_argument("--data", type=Path, required=True, help="as of picme train")
    parser.add_argument("--val", type=Path, required=True, help="held-out pictures")
    parser.add_argument("--lpips-weights", help="LPIPS-squeeze as safetensors")
    parser.add_argument("--out", type=Path, required=True, help="a folder a run")
    parser.add_argument("--rows", nargs="+", help="these alone (default: all)")
    parser.add_argument("--pictures", type=int, help="another budget for every row")
    parser.add_argument("--stage", type=int, help="pictures to stop and measure every run at")
    parser.add_argument("--device", default="cpu", help="a torch device (default: cpu)")
    parser.add_argument(
        "--train-only", action="store_true", help="measure later, or where the libraries are"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    arguments = parser.parse_args(argv)
    try:
        for name in ("stage", "jobs"):
            if (value := getattr(arguments, name)) is not None and value < 1:
                raise InputError(f"--{name} must be at least 1, got {value}")
        runs = runs_of(arguments.plan, arguments.rows, arguments.pictures)
        for run in runs:
            check(run, arguments.out)
        with children.told(), ThreadPoolExecutor(arguments.jobs) as pool:
            failed = [str(e) for e in pool.map(lambda run: _tried(run, arguments), runs) if e]
        table = table_of(runs, arguments.out, arguments.stage)
        print(table, end="", flush=True)
        with atomic.file(arguments.out / "table.md") as fresh:
            fresh.write_text(table)
    except (PicmeError, OSError) as exc:
        print(f"compare: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compare: interrupted; the same command goes on", file=sys.stderr)
        return 130
    for line in failed:
        print(f"compare: {line}", file=sys.stderr)
    return 1 if failed else 0


def _tried(run: Run, arguments: argparse.Namespace) -> PicmeError | OSError | None:
    try:
        finish(run, arguments)
    except (PicmeError, OSError) as exc:
        return exc
    return None


if __name__ == "__main__":
    sys.exit(main())

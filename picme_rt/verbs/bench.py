"""`picme bench ENGINE`: how fast each backend is on this machine; --tune lets `auto` know."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from picme_rt import atomic, backends, choices, engine, tuning, verbs
from picme_rt.errors import InputError
from picme_rt.session import PATCH

if TYPE_CHECKING:
    from picme_rt.speed.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "engine", type=verbs.engine, metavar="ENGINE", help="the engine's directory"
    )
    parser.add_argument(
        "--tune", action="store_true",
        help="first measure backends, threads and micro-batches, and keep what is fastest for "
        "`auto` on this machine",
    )  # fmt: skip
    parser.add_argument(
        "--lower", action="store_true",
        help="with --tune: `auto` may be bf16 or int8 on this machine, where the engine says that "
        "its pictures cannot be told from those of fp32 (default: fp32 alone)",
    )  # fmt: skip
    parser.add_argument("--backend", help="time this one alone (default: all that are here)")
    parser.add_argument(
        "--precision", help="time this one alone (default: all that the engine has here)"
    )
    parser.add_argument(
        "--rounds", type=int, default=10, help="calls of each kind, at least 1 (default: 10)"
    )
    parser.add_argument(
        "--chart", type=Path, metavar="FILE.png",
        help="write a bar chart of a call's stages, a PNG picture",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="write all numbers as JSON to FILE too"
    )
    parser.add_argument(
        "--json", action="store_true", help="print all numbers as JSON instead of the table"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def run(arguments: argparse.Namespace) -> None:
    """Prints the table (`picme_rt.speed.table`), writes the chart and the JSON file."""
    from tqdm import tqdm

    from picme_rt.speed import report, table

    if arguments.rounds < 1:
        raise InputError(f"--rounds must be at least 1, got {arguments.rounds}")
    if arguments.engine == PATCH:
        raise InputError(
            "picme bench times engines, got patch, which is none: picme complete --engine patch "
            "--json prints the seconds that a picture took"
        )
    _check_free(arguments.chart, "--chart", ".png", force=arguments.force)
    _check_free(arguments.out, "--out", "", force=arguments.force)
    if arguments.lower and not arguments.tune:
        raise InputError("--lower must go with --tune, got it alone")
    if arguments.tune and (arguments.backend or arguments.precision):
        raise InputError("--tune compares all backends; leave out --backend and --precision")
    if engine.kind_of(arguments.engine) == "idc":
        _run_pyramid(arguments)
        return
    loaded = engine.load(arguments.engine)
    tuned = None
    if arguments.tune:
        if arguments.lower and not loaded.quality:
            print(
                f"picme: {arguments.engine} does not say how near lower precisions come, so auto "
                "stays in fp32: `picme export ENGINE -o OUT --calibration DIR --lpips-weights "
                "FILE` makes an engine that does",
                file=sys.stderr,
            )
        choices.check(loaded, backends.BACKENDS)  # now, not after minutes
        measured = tuning.tune(
            loaded, lower=arguments.lower, progress=lambda pairs: tqdm(pairs, disable=None)
        )
        tuned = str(choices.write(loaded, backends.BACKENDS, measured))
    done = report.measure(
        arguments.engine,
        rounds=arguments.rounds,
        backend=arguments.backend,
        precision=arguments.precision,
        progress=lambda rounds: tqdm(rounds, unit="round", disable=None),
    )
    if arguments.out is not None:
        with atomic.file(arguments.out) as fresh:
            fresh.write_text(_json(done, tuned), encoding="utf-8")
    if arguments.chart is not None:
        from picme_rt.speed import chart

        with atomic.file(arguments.chart) as fresh:
            chart.write(done, fresh)
    print(_json(done, tuned) if arguments.json else table.text(done))
    if tuned is not None:
        print(f"choices of auto: {tuned}", file=sys.stderr if arguments.json else sys.stdout)


def _run_pyramid(arguments: argparse.Namespace) -> None:
    """The same of an engine of one picture, which has other stages and nothing to tune."""
    from tqdm import tqdm

    from picme_rt.speed import pyramids

    for name in ("tune", "chart"):
        if getattr(arguments, name):
            raise InputError(f"--{name} must be left out for an engine of kind 'idc'")
    done = pyramids.measure(
        arguments.engine,
        rounds=arguments.rounds,
        backend=arguments.backend,
        precision=arguments.precision,
        progress=lambda rounds: tqdm(rounds, unit="round", disable=None),
    )
    text = json.dumps(dataclasses.asdict(done), indent=1)
    if arguments.out is not None:
        with atomic.file(arguments.out) as fresh:
            fresh.write_text(text, encoding="utf-8")
    print(text if arguments.json else pyramids.text(done))


def _check_free(place: Path | None, flag: str, suffix: str, *, force: bool) -> None:
    """Refuses a file before anything is measured for it."""
    if place is None:
        return
    if suffix and place.suffix.lower() != suffix:
        raise InputError(f"{flag} must be a file {suffix}, got {place}")
    if place.is_dir() or not place.parent.is_dir():
        raise InputError(f"{flag} must be a file in a folder that is there, got {place}")
    if place.exists() and not force:
        raise InputError(f"{place} exists; pass --force to overwrite, or another {flag}")


def _json(done: "Report", tuned: str | None) -> str:
    return json.dumps({**dataclasses.asdict(done), "choices": tuned}, indent=1)

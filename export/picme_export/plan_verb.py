"""`picme export ENGINE --target tensorrt|tensorrt-rtx`: plans beside an engine's graphs."""

import argparse
import json
from pathlib import Path
from typing import Any

from picme_rt import plans
from picme_rt.backends import tensorrt_library
from picme_rt.backends.tensorrt_library import LIBRARIES
from picme_rt.errors import InputError

_NOT_FOR_PLANS = (
    "out",
    "calibration",
    "lpips_weights",
    "name",
    "card",
    "data",
    "licence",
    "commit",
    "rewrites",
    "weights",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of plans but `--target`, which other exports share."""
    group = parser.add_argument_group("plans for NVIDIA's GPUs")
    group.add_argument(
        "--gpu", choices=(plans.PORTABLE, *plans.RTX_TARGETS),
        help="with tensorrt-rtx: portable is every GPU from sm80 on that it knows, of which sm90 "
        "is none (default: portable)",
    )  # fmt: skip
    group.add_argument(
        "--max-batch", type=int, default=plans.Options.max_batch, metavar="B",
        help=f"most pictures a run (default: {plans.Options.max_batch})",
    )  # fmt: skip
    group.add_argument(
        "--max-k", type=int, default=plans.Options.max_k, metavar="K",
        help=f"most results a picture and run (default: {plans.Options.max_k})",
    )  # fmt: skip


def asked(arguments: argparse.Namespace) -> bool:
    """Whether plans are to be built."""
    return arguments.target in LIBRARIES


def check(arguments: argparse.Namespace) -> None:
    """Refuses what no plan can be built with, before anything is exported for it.

    Raises:
        InputError: A number out of range, or as `plan_builder.write` says.
        MissingPackageError: The library is not installed.
        UnavailableError: It is too old, or finds no GPU that it needs.
    """
    for name in ("max_batch", "max_k"):
        if not 1 <= getattr(arguments, name) <= plans.MOST:
            raise InputError(
                f"--{name.replace('_', '-')} must be 1 to {plans.MOST}, "
                f"got {getattr(arguments, name)}"
            )
    tensorrt_library.load(arguments.target)
    from picme_export import plan_builder

    plan_builder.target_of(arguments.target, arguments.gpu)


def check_beside(arguments: argparse.Namespace) -> None:
    """Refuses what has nothing to say where plans are all that is made.

    Raises:
        InputError: An argument of another kind of export.
    """
    for name in _NOT_FOR_PLANS:
        if getattr(arguments, name):
            raise InputError(
                f"--{name.replace('_', '-')} must not go with --target and an engine: plans "
                "are built beside its graphs"
            )


def run(arguments: argparse.Namespace, engine: Path) -> dict[str, Any]:
    """Builds; gives what `--json` prints, and without it prints what was built."""
    options = plans.Options(arguments.precision, arguments.max_batch, arguments.max_k)
    from picme_export import plan_builder

    done = plan_builder.write(
        engine,
        library=arguments.target,
        options=options,
        gpu=arguments.gpu,
        force=arguments.force,
    )
    if not arguments.json:
        for role in plans.ROLES:
            size = done.files[role].bytes
            print(f"{role:8} {done.layers[role]} layers, {size / 1e6:.1f} MB, {options.precision}")
        print(done.path)
    return {"plans": str(done.path), **json.loads(plans.record(done))}

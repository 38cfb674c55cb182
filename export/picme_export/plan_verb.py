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
        InputError: A number out of range, or a GPU for a library that builds for the one here.
        MissingPackageError: The library is not installed.
        UnavailableError: It is too old.
    """
    for name in ("max_batch", "max_k"):
        if not 1 <= getattr(arguments, name) <= plans.MOST:
            raise InputError(
                f"--{name.replace('_', '-')} must be 1 to {plans.MOST}, "
                f"got {getattr(arguments, name)}"
            )
    if arguments.gpu is not None and arguments.target != "tensorrt-rtx":
        raise InputError(
            f"--gpu must go with --target tensorrt-rtx, got {arguments.gpu}: TensorRT builds for "
            "the GPU here"
        )
    tensorrt_library.load(arguments.target)


def run(arguments: argparse.Namespace, engine: Path) -> dict[str, Any]:
    """Builds; prints what was built, or gives it where it is asked for as JSON.

    Raises:
        InputError: Arguments of another kind of export, and as `check` says.
    """
    if arguments.source == engine:
        for name in _NOT_FOR_PLANS:
            if getattr(arguments, name):
                raise InputError(
                    f"--{name.replace('_', '-')} must not go with --target and an engine: plans "
                    "are built beside its graphs"
                )
        check(arguments)
    options = plans.Options(arguments.precision, arguments.max_batch, arguments.max_k)
    from picme_export import plan_builder

    done = plan_builder.write(
        engine,
        library=arguments.target,
        options=options,
        gpu=arguments.gpu,
        force=arguments.force,
    )
    if arguments.json:
        return {"plans": str(done.path), **json.loads(plans.record(done))}
    for role in plans.ROLES:
        size = done.files[role].bytes
        print(f"{role:8} {done.layers[role]} layers, {size / 1e6:.1f} MB, {options.precision}")
    print(done.path)
    return {}

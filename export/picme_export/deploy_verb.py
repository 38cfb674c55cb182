"""`picme export ENGINE --pipeline | --target triton`: an engine for other programs and servers.

`--target` is declared here for plans too (`plan_verb`).
"""

import argparse
import dataclasses
import json

from picme_rt import engine as engines
from picme_rt.backends.tensorrt_library import LIBRARIES
from picme_rt.errors import InputError

TARGETS = ("triton",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of deployment."""
    parser.add_argument(
        "--target", choices=(*TARGETS, *LIBRARIES),
        help="triton: an ENGINE as models in OUT, a repository of Triton Inference Server; plans "
        "for NVIDIA's GPUs: tensorrt for the one that is here, tensorrt-rtx without any",
    )  # fmt: skip
    parser.add_argument(
        "--pipeline", action="store_true",
        help="an ENGINE's whole way from bytes to bytes as the one ONNX file OUT",
    )  # fmt: skip


def asked(arguments: argparse.Namespace) -> bool:
    """Whether an engine is to be deployed, not made."""
    return arguments.pipeline or arguments.target in TARGETS


def run(arguments: argparse.Namespace) -> None:
    """Writes the pipeline or the repository; prints how near it comes to a session."""
    _check(arguments)
    from picme_export import triton
    from picme_export.pipeline import export

    source, out, force = arguments.source, arguments.out, arguments.force
    if arguments.pipeline:
        found = export.export(source, out, force=force)
    else:
        found = triton.write(source, out, name=arguments.name, force=force)
    if arguments.json:
        print(json.dumps({"out": str(out), **dataclasses.asdict(found)}, indent=1))
        return
    print(f"at most {found.levels} levels from a session, {found.share:.4%} of the hole's values")
    print(out)


def _check(arguments: argparse.Namespace) -> None:
    """Refuses what can be refused before anything heavy is imported."""
    if arguments.pipeline and arguments.target:
        raise InputError(
            f"--pipeline must go without --target, got {arguments.target}; a repository of Triton "
            "holds the pipeline too"
        )
    what = "--pipeline" if arguments.pipeline else f"--target {arguments.target}"
    if not (arguments.source / engines.MANIFEST).exists():
        raise InputError(
            f"{what} must be given an engine, got {arguments.source}; `picme export CHECKPOINT -o "
            "ENGINE` makes one"
        )
    if arguments.out is None:
        raise InputError(f"{what} needs -o OUT, the file or directory to be made")
    others = ["calibration", "lpips_weights", "card", "data", "licence", "commit"]
    others += ["rewrites", "weights", "gpu"]  # what was traced from a checkpoint, and plans
    wrong = [name for name in others if getattr(arguments, name)]
    wrong += ["precision"] if arguments.precision != "fp32" else []
    wrong += ["name"] if arguments.pipeline and arguments.name else []
    if wrong:
        flag = wrong[0].replace("_", "-")
        raise InputError(f"--{flag} must go with an engine's export, not with {what}")

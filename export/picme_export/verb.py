"""`picme export CHECKPOINT|ENGINE -o ENGINE`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picme_export import deploy_verb, plan_verb
from picme_rt import engine as engines
from picme_rt.errors import InputError
from picme_rt.verbs import info

if TYPE_CHECKING:  # torch, only when it runs: `--help` stays instant
    from picme_export.rewrites import Target
    from picme_export.variant import Calibration

PRECISIONS = ("fp32", "int8", "fp16", "bf16")
_OF_ENGINES = ("fp32", "int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "source", type=Path, metavar="CHECKPOINT|ENGINE",
        help="a checkpoint, a run (its newest), or with --calibration an engine, to which a lower "
        "precision is added; with --pipeline or --target an engine",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=Path,
        help="the engine's directory; not needed where plans are built beside an engine's graphs",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32",
        help="fp32 alone, or int8 beside it; fp16 and bf16 for plans alone (default: fp32)",
    )  # fmt: skip
    plan_verb.add_arguments(parser)
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR",
        help="a hundred pictures or more, a folder or a file of picme pack: int8 is calibrated on "
        "some, and every precision measured on others",
    )  # fmt: skip
    parser.add_argument(
        "--lpips-weights", metavar="FILE",
        help="LPIPS-squeeze as safetensors, or `download`: with --calibration LPIPS is measured "
        "too, without which `auto` takes no lower precision",
    )  # fmt: skip
    deploy_verb.add_arguments(parser)
    parser.add_argument(
        "--rewrites", choices=("cpu", "gpu"),
        help="what a checkpoint's graphs are rewritten for; they run everywhere either way, a GPU "
        "launches half as many operators of its own (default: gpu with a --target of plans, but "
        "in bf16, which TensorRT-RTX has no transposed convolution of; else cpu)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", choices=("fp32", "fp16"),
        help="how the weights of a checkpoint lie in the files: fp16 rounds them and takes half "
        "the space; what runs computes as before (default: fp32)",
    )  # fmt: skip
    parser.add_argument("--name", help="the engine's name (default: the directory's)")
    parser.add_argument("--card", type=Path, help="a model card, Markdown, to put into the engine")
    parser.add_argument("--data", default="", help="provenance: what it was trained on")
    parser.add_argument("--licence", default="", help="provenance: licence of the weights")
    parser.add_argument("--commit", default="", help="provenance: commit of the training code")
    parser.add_argument("--force", action="store_true", help="replace an engine that exists")
    parser.add_argument("--json", action="store_true", help="print the errors as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Exports; prints errors against torch, and the quality of precisions against fp32."""
    if deploy_verb.asked(arguments):
        deploy_verb.run(arguments)
        return
    if plan_verb.asked(arguments):
        plan_verb.check(arguments)
    if plan_verb.asked(arguments) and (arguments.source / engines.MANIFEST).exists():
        plan_verb.check_beside(arguments)
        told = plan_verb.run(arguments, arguments.source)
    else:
        told = _export(arguments)
        if plan_verb.asked(arguments):
            told |= plan_verb.run(arguments, arguments.out)
    if arguments.json:
        print(json.dumps(told, indent=1))


def _export(arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes an engine; gives and prints as `_print` does."""
    _check(arguments)
    from picme_export import export, variant

    calibration = _calibration(arguments)
    errors = {}
    if calibration is not None and (arguments.source / engines.MANIFEST).exists():
        variant.extend(arguments.source, arguments.out, calibration, force=arguments.force)
    else:
        entries = {name: getattr(arguments, name) for name in ("data", "licence", "commit")}
        errors = export.export(
            arguments.source,
            arguments.out,
            name=arguments.name,
            card=arguments.card,
            provenance={name: value for name, value in entries.items() if value},
            calibration=calibration,
            rewritten_for=_rewritten_for(arguments),
            weights=arguments.weights or "fp32",
            force=arguments.force,
        )
    return _print(arguments, errors)


def _rewritten_for(arguments: argparse.Namespace) -> "Target":
    """What was asked for, else what suits the plans to be built."""
    if arguments.rewrites is not None:
        asked: Target = arguments.rewrites
        return asked
    return "gpu" if plan_verb.asked(arguments) and arguments.precision != "bf16" else "cpu"


def _check(arguments: argparse.Namespace) -> None:
    """Refuses what can be refused before torch is imported."""
    if arguments.out is None:
        raise InputError("-o must be the directory of the engine to be written, got none")
    if arguments.precision not in _OF_ENGINES and not plan_verb.asked(arguments):
        raise InputError(
            f"--precision {arguments.precision} must go with --target tensorrt or tensorrt-rtx"
        )
    if arguments.gpu is not None and not plan_verb.asked(arguments):
        raise InputError(f"--gpu must go with --target tensorrt-rtx, got {arguments.gpu} alone")
    if arguments.precision == "int8" and arguments.calibration is None:
        raise InputError(
            f"--precision {arguments.precision} must have --calibration DIR with real pictures, "
            "got none"
        )
    if arguments.lpips_weights is not None and arguments.calibration is None:
        raise InputError("--lpips-weights must go with --calibration DIR, got it alone")
    if (arguments.source / engines.MANIFEST).exists():
        if arguments.calibration is None:
            raise InputError(
                "an engine must go with --calibration DIR, which adds a lower precision, or with "
                f"--target or --pipeline, got {arguments.source} with none of them"
            )
        for name in ("name", "card", "data", "licence", "commit", "rewrites", "weights"):
            if getattr(arguments, name):
                raise InputError(f"--{name} must go with a checkpoint, got it with an engine")
    if arguments.card is not None and not arguments.card.is_file():
        raise InputError(f"--card must be a Markdown file, got {arguments.card}")


def _calibration(arguments: argparse.Namespace) -> "Calibration | None":
    if arguments.calibration is None:
        return None
    from picme_export.variant import Calibration
    from picme_training import perceptual

    given, lpips = arguments.lpips_weights, None
    if given is not None:
        lpips = perceptual.download() if given == "download" else perceptual.load(Path(given))
    return Calibration(arguments.calibration, lpips, int8=arguments.precision == "int8")


def _print(arguments: argparse.Namespace, errors: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Gives what `--json` prints, and without it prints what was exported."""
    done = engines.load(arguments.out)
    quality = json.loads(engines.manifest(done))["quality"]
    graphs = done.provenance.get("graphs", {})
    told = {"engine": str(arguments.out), "parity": errors, "graphs": graphs, "quality": quality}
    if arguments.json:
        return told
    for role, by_batch in errors.items():
        for batch, error in by_batch.items():
            print(f"{role:8} {batch:8} largest error against torch {error:.2e}")
    for line in info.graph_lines(graphs):
        print(line)
    if arguments.precision == "int8":
        about = done.provenance["int8"]
        print(
            f"int8     {about['share']:.0%} of the decoder's multiplications; in float32: "
            f"{', '.join(about['float32']) or 'none'}"
        )
    for precision, one in done.quality.items():
        distance = "not measured" if one.lpips is None else f"{one.lpips:.4f}"
        print(
            f"{precision:8} {one.psnr:.1f} dB to fp32 in the hole ({one.least_psnr:.1f} at least), "
            f"LPIPS {distance}; {'near' if one.near else 'not near'} enough for auto"
        )
    print(arguments.out)
    return told

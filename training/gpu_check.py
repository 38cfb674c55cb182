"""`make gpu-check`: what a machine with a GPU does with this project, in figures and checks.

Needs that machine's python3 with torch and NumPy, and nothing installed. Every part is measured
once and kept in a JSON, so an interrupted run goes on where it stopped, and one that broke off is
a failed check, measured again by the next run. docs/gpu.md reads the tables.
"""

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODULES = {
    "environment": "gpu.environment",
    "decode": "gpu.decode",
    "training": "gpu.steps",
    "kernels": "gpu.kernels",
    "inference": "gpu.inference",
    "tensorrt": "gpu.tensorrt_session",
}
FORMAT = 2
Report = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Measures the parts asked for; gives 0, 1 for an error or a failed check, 2 for usage."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    parts: list[str] = arguments.parts or list(MODULES)
    if unknown := [part for part in parts if part not in MODULES]:
        parser.error(f"PART must be one of {', '.join(MODULES)}, got {', '.join(unknown)}")
    add_paths()
    try:
        machine = _machine(arguments.device)
        report = _opened(arguments.out, machine, arguments)
        for part in dict.fromkeys(parts):
            if "broke" not in report["parts"].get(part, {"broke": ""}) and not arguments.force:
                print(f"gpu-check: {part} is in {arguments.out}, kept", file=sys.stderr)
                continue
            _measure(part, report, arguments)
    except Refused as exc:
        print(f"gpu-check: {exc}", file=sys.stderr)
        return 1
    return _tell(report)


class Refused(Exception):  # noqa: N818  # not a mistake of ours: the user is told in one line
    """The machine or the file is not what a measurement needs."""


def add_paths() -> None:
    """Puts this folder and the repository in front of sys.path: nothing has to be installed."""
    for place in (HERE, HERE.parent):
        if str(place) not in sys.path:
            sys.path.insert(0, str(place))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure a machine with a GPU: peaks, decoding, training, the sampler's bits."
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(MODULES)} (default: all)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("gpu_check.json"), help="default: gpu_check.json"
    )
    parser.add_argument("--force", action="store_true", help="measure anew what the file holds")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="try the script: small sizes, figures without meaning"
    )
    return parser


def _machine(device: str) -> str:
    """The GPU's name, or `cpu`.

    Raises:
        Refused: torch or a GPU is missing.
    """
    try:
        import torch
    except ModuleNotFoundError as exc:
        raise Refused(f"needs torch 2.6 or later, which {sys.executable} does not have") from exc
    if device == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise Refused(
            f"no GPU: torch {torch.__version__} sees none; run it where there is one, "
            "or try the script with --device cpu --tiny"
        )
    return str(torch.cuda.get_device_name())


def _opened(path: Path, machine: str, arguments: argparse.Namespace) -> Report:
    """The report so far, or a new one.

    Raises:
        Refused: The file is no report, or one of another machine or size.
    """
    settings = {"machine": machine, "tiny": arguments.tiny}
    fresh: Report = {"format": FORMAT, "settings": settings, "parts": {}}
    if not path.exists():
        return fresh
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        held = {"format": report["format"], "settings": report["settings"]}
    except (ValueError, KeyError, TypeError) as exc:
        raise Refused(f"{path} is no report of gpu-check: name another --out") from exc
    if held == {"format": FORMAT, "settings": settings}:
        return dict(report)
    if arguments.force:
        return fresh
    raise Refused(
        f"{path} holds format {held['format']}, {held['settings']}, this is format {FORMAT}, "
        f"{settings}: name another --out, or pass --force to start anew"
    )


def _measure(part: str, report: Report, arguments: argparse.Namespace) -> None:
    import torch

    print(f"gpu-check: {part} ...", file=sys.stderr, flush=True)
    began = time.perf_counter()
    try:
        module = importlib.import_module(MODULES[part])
    except ModuleNotFoundError as exc:
        raise Refused(
            f"{part} needs {exc.name}, which this python3 lacks; name other parts"
        ) from exc
    try:
        found = module.measure(torch.device(arguments.device), arguments.tiny)
    except Exception as exc:  # the other parts are still worth having
        traceback.print_exc()
        failed = importlib.import_module("gpu.attempts").failed(f"{part} comes to its end", exc)
        found = {"broke": failed["said"], "checks": [failed]}
    report["parts"][part] = {"seconds": round(time.perf_counter() - began, 1), **found}
    whole = {name: held for name, held in report["parts"].items() if "broke" not in held}
    if "environment" in whole:
        tflops = whole["environment"]["peaks"]["tflops"]
        for name in {"decode", "training", "inference"} & set(whole):
            importlib.import_module(MODULES[name]).add_shares(whole[name], tflops)
    partial = arguments.out.with_name(arguments.out.name + ".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, arguments.out)


def _tell(report: Report) -> int:
    """Prints every part's table and the checks that failed."""
    tiny = ", --tiny: the figures mean nothing" if report["settings"]["tiny"] else ""
    print(f"# {report['settings']['machine']}{tiny}")
    failed = []
    for part, module in MODULES.items():
        if part in report["parts"]:
            found = report["parts"][part]
            print(f"\n## {part} ({found['seconds']} s)\n")
            broke = found.get("broke")
            table = importlib.import_module(module).table
            print(table(found) if broke is None else f"It broke off: {broke}")
            checks = found["checks"]
            failed += [{"part": part, **check} for check in checks if not check["pass"]]
            print(f"\n{sum(check['pass'] for check in checks)} of {len(checks)} checks passed.")
    for check in failed:
        print(f"gpu-check: failed: {json.dumps(check)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

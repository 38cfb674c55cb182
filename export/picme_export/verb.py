"""`picme export CHECKPOINT -o ENGINE`."""

import argparse
import json
from pathlib import Path

from picme_rt import engine as engines
from picme_rt.verbs import info


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="a checkpoint, or a run (its newest)"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="the engine's directory")
    parser.add_argument("--name", help="the engine's name (default: the directory's)")
    parser.add_argument("--card", type=Path, help="a model card to put into the engine")
    parser.add_argument("--data", default="", help="provenance: what it was trained on")
    parser.add_argument("--licence", default="", help="provenance: licence of the weights")
    parser.add_argument("--commit", default="", help="provenance: commit of the training code")
    parser.add_argument("--force", action="store_true", help="replace an engine that exists")
    parser.add_argument("--json", action="store_true", help="print the errors as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Exports and prints the largest error against torch of each graph at each batch size."""
    from picme_export import export  # torch, only now: `--help` stays instant

    entries = {name: getattr(arguments, name) for name in ("data", "licence", "commit")}
    errors = export.export(
        arguments.checkpoint,
        arguments.out,
        name=arguments.name,
        card=arguments.card,
        provenance={name: value for name, value in entries.items() if value},
        force=arguments.force,
    )
    done = engines.load(arguments.out).provenance["graphs"]
    if arguments.json:
        about = {"engine": str(arguments.out), "parity": errors, "graphs": done}
        print(json.dumps(about, indent=1))
        return
    for role, by_batch in errors.items():
        for batch, error in by_batch.items():
            print(f"{role:8} {batch:8} largest error against torch {error:.2e}")
    for line in info.graph_lines(done):
        print(line)
    print(arguments.out)

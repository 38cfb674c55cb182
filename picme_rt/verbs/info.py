"""`picme info ENGINE`: what an engine is, and what would run it here."""

import argparse
import dataclasses
import json
from typing import Any

from picme_rt import engine, verbs, work
from picme_rt.session import Session
from picme_rt.verbs.complete import add_engine_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "engine", type=verbs.engine, metavar="ENGINE", help="the engine's directory, or patch"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Loads the engine, so that what is printed was tried, and prints its `Info`.

    And how much of a decode a hole takes: work follows the hole.
    """
    with Session(
        arguments.engine,
        device=arguments.device,
        backend=arguments.backend,
        precision=arguments.precision,
    ) as session:
        info = dataclasses.asdict(session.info)
    shares = {}
    if info["primitives"]:  # what has none decodes nothing
        loaded, files = engine.load(arguments.engine), set(info["sha256"])
        variant = next(v for v, roles in loaded.variants.items() if set(roles.values()) == files)
        shares = info["decode_share"] = work.shares(loaded, variant)
    if arguments.json:
        print(json.dumps(info, indent=1))
        return
    provenance = info.pop("provenance")
    info.pop("decode_share", None)
    for name, value in info.items():
        if value is not None:
            print(f"{name:12} {value}")
    for name in (
        "data",
        "licence",
        "commit",
        "pictures_seen",
        "parity",
        "rewritten_for",
        "weights",
    ):
        if name in provenance:
            print(f"{name:12} {provenance[name]}")
    for name, share in shares.items():
        print(f"{name:12} takes {share:.0%} of a decode's multiply-adds")
    for line in graph_lines(provenance.get("graphs", {})):
        print(line)


def graph_lines(graphs: dict[str, Any]) -> list[str]:
    """What the rewrites at export did to each graph, in words."""
    found = []
    for role, report in graphs.items():
        if report:
            before, after = (n / 1e6 for n in report["macs"])
            nodes = " -> ".join(str(n) for n in report["operators"])
            found.append(
                f"{role:12} {before:.1f} -> {after:.1f} million multiply-adds, {nodes} operators"
            )
    return found

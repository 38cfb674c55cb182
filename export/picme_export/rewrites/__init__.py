"""Exact rewrites of exported graphs, one a file, in the order in which they are applied.

Each keeps what the graph gives, up to the rounding of float32, and does nothing where it does not
fit. What each is worth stands in docs/benchmarks.md.
"""

from collections.abc import Callable
from typing import Any

import onnx

from picme_export.rewrites import (
    joined_transposed,
    late_concat,
    phase_heads,
    pooled_convolutions,
    transposed_phases,
)
from picme_export.rewrites.graph import Graph

PASSES = {
    "pooled convolutions": pooled_convolutions.rewrite,
    "joined transposed": joined_transposed.rewrite,
    "late concat": late_concat.rewrite,
    "transposed phases": transposed_phases.rewrite,
    "phase heads": phase_heads.rewrite,
}


def apply(model: onnx.ModelProto, macs: Callable[[onnx.ModelProto], int]) -> dict[str, Any]:
    """Rewrites a model in place.

    Args:
        model: An exported graph, metadata stripped.
        macs: Multiply-adds of a model at batch 1 (`graph_shapes.check`), which refuses what no
            engine may have.

    Returns:
        `macs` and `operators`, each [before, after]; `rewrites`, how often each pass that fitted
        was applied.
    """
    before, operators = macs(model), len(model.graph.node)
    done = {}
    for name, rewrite in PASSES.items():
        graph = Graph(model)
        if count := rewrite(graph):
            graph.finish()
            done[name] = count
    return {
        "macs": [before, macs(model)],
        "operators": [operators, len(model.graph.node)],
        "rewrites": done,
    }

"""Exact rewrites of exported graphs, one a file, in the order in which they are applied.

Each keeps what the graph gives, up to the rounding of float32, and does nothing where it does not
fit. What each is worth stands in docs/benchmarks.md.
"""

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
from picme_rt import graph_shapes, tensors

PASSES = {
    "pooled convolutions": pooled_convolutions.rewrite,
    "joined transposed": joined_transposed.rewrite,
    "late concat": late_concat.rewrite,
    "transposed phases": transposed_phases.rewrite,
    "phase heads": phase_heads.rewrite,
}


def apply(model: onnx.ModelProto, table: tensors.Graph) -> dict[str, Any]:
    """Rewrites a model in place.

    Args:
        model: An exported graph, metadata stripped.
        table: Its inputs and outputs.

    Returns:
        `macs` and `operators`, each [before, after], multiply-adds at batch 1 by
        `graph_shapes.check`; `rewrites`, how often each pass that fitted was applied.

    Raises:
        EngineError: The graph is none that an engine may have.
    """
    before, operators = cost(model, table), len(model.graph.node)
    done = {}
    for name, rewrite in PASSES.items():
        graph = Graph(model)
        if count := rewrite(graph):
            graph.finish()
            done[name] = count
    return {
        "macs": [before, cost(model, table)],
        "operators": [operators, len(model.graph.node)],
        "rewrites": done,
    }


def cost(model: onnx.ModelProto, table: tensors.Graph) -> int:
    """Multiply-adds of a graph at batch 1."""
    return graph_shapes.check(model.SerializeToString(), table).macs

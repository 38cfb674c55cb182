"""Exact rewrites of exported graphs, one a file, in the order in which they are applied.

Each keeps what the graph gives, up to the rounding of float32, and does nothing where it does not
fit. What each is worth stands in docs/benchmarks.md.
"""

from collections.abc import Callable
from typing import Any, Literal

import onnx

from picme_export.rewrites import (
    doublings,
    joined_transposed,
    late_concat,
    phase_heads,
    pooled_convolutions,
    small_pools,
    spread_channels,
    transposed_phases,
    wide_strides,
)
from picme_export.rewrites.graph import Graph

PASSES = {
    "pooled convolutions": pooled_convolutions.rewrite,
    "joined transposed": joined_transposed.rewrite,
    "late concat": late_concat.rewrite,
    "transposed phases": transposed_phases.rewrite,
    "phase heads": phase_heads.rewrite,
    "wide strides": wide_strides.rewrite,
    "small pools": small_pools.rewrite,
    "spread channels": spread_channels.rewrite,
    "doublings": doublings.rewrite,
}
Target = Literal["cpu", "gpu"]
FOR: dict[Target, tuple[str, ...]] = {"cpu": tuple(PASSES), "gpu": ("pooled convolutions",)}
"""Which passes a graph goes through: the others take arithmetic apart that a GPU launches whole."""


def apply(
    model: onnx.ModelProto, macs: Callable[[onnx.ModelProto], int], target: Target = "cpu"
) -> dict[str, Any]:
    """Rewrites a model in place.

    Args:
        model: An exported graph, metadata stripped.
        macs: Multiply-adds of a model at batch 1 (`graph_shapes.check`), which refuses what no
            engine may have.
        target: What the graph is to be fast on.

    Returns:
        `macs` and `operators`, each [before, after]; `rewrites`, how often each pass that fitted
        was applied.
    """
    before, operators = macs(model), len(model.graph.node)
    done = {}
    for name in FOR[target]:
        graph = Graph(model)
        if count := PASSES[name](graph):
            graph.finish()
            done[name] = count
    return {
        "macs": [before, macs(model)],
        "operators": [operators, len(model.graph.node)],
        "rewrites": done,
    }

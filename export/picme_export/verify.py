"""Parity: what an exported graph gives against what torch gives."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from picme_export.graphs import random_inputs
from picme_rt import tensors
from picme_rt.errors import PicmeError

BATCHES = (1, 2, 7)
TOLERANCE = 1e-4
"""Largest absolute error, pictures being in [-1, 1]; other outputs are judged relative to their
largest magnitude where that is over 1."""


class ParityError(PicmeError):
    """An exported graph does not give what torch gives."""


def parity(module: nn.Module, graph: tensors.Graph, path: Path) -> dict[str, float]:
    """Largest error of any output at each batch size, by `batch_N`.

    Raises:
        ParityError: An error is over `TOLERANCE`.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = {}
    for batch in BATCHES:
        inputs = random_inputs(graph, batch, torch.Generator().manual_seed(batch))
        with torch.no_grad():
            out = module(*inputs.values())
        expected = [out] if isinstance(out, torch.Tensor) else list(out)
        got = session.run(
            [t.name for t in graph.outputs], {k: v.numpy() for k, v in inputs.items()}
        )
        errors = []
        for name, one, other in zip(graph.outputs, expected, got, strict=True):
            reference = one.numpy()
            if reference.shape != other.shape:
                raise ParityError(f"{name.name} must be {reference.shape}, got {other.shape}")
            scale = max(1.0, float(np.abs(reference).max()))
            errors.append(float(np.abs(reference - other).max()) / scale)
        found[f"batch_{batch}"] = max(errors)
        if not found[f"batch_{batch}"] <= TOLERANCE:
            raise ParityError(
                f"{path.name} differs from torch by {max(errors):.2e} at batch {batch}, "
                f"more than {TOLERANCE}; the engine was not written"
            )
    return found

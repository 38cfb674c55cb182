"""A trained pyramid as one ONNX graph, compared with torch, and as an engine directory.

    erosion, noise_0, noise_1, ...  ->  picture

Batch norm is folded, a scale's way to the next is two products with constant matrices that also
lay the border of zeros around it, and what is constant (fixed noise, depth in the hole) is inside.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picme_export.verify import ParityError
from picme_rt import atomic, tensors
from picme_rt import engine as engines
from picme_rt.errors import EngineError, InputError
from picme_rt.images import Hole
from picme_rt.onnx_file import OPSET
from picme_rt.operators import RULES
from picme_training.internal import cascade
from picme_training.internal.cascade import SHARPNESS, Frozen
from picme_training.internal.masked import STEEP
from picme_training.internal.stack import REACH, SLOPE

TOLERANCE = 1e-5
"""Largest absolute error against torch, pictures being in [-1, 1]."""
BATCHES = (1, 2, 5)
EROSIONS = (0.0, 2.5, 4.0, 7.0)


def table(scales: Sequence[Frozen]) -> tensors.Graph:
    """Inputs and outputs of a pyramid's graph."""
    noises = (
        tensors.Tensor(f"noise_{i}", tuple(one.fixed.shape[1:])) for i, one in enumerate(scales)
    )
    return tensors.Graph(
        (tensors.Tensor("erosion", (1,), batched=False), *noises),
        (tensors.Tensor("picture", (3, *scales[-1].size)),),
    )


class ScaleGraph(nn.Module):
    """One scale: the scale before (B, 3, h', w'), erosion and noise -> (B, 3, h, w)."""

    def __init__(self, scale: Frozen):
        super().__init__()
        weights = [weight.contiguous() for weight in scale.weights]
        if scale.fixed.shape[1] == 1 and len(scale.bank) == 0:  # one noise for three channels
            weights[0] = weights[0].sum(1, keepdim=True)
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(scale.biases)
        self.amplitude = float(scale.amplitude)
        constants = {
            "depth": scale.depth * STEEP,
            "inside": (scale.depth * STEEP).clamp(0, 1),
            "fixed": scale.fixed,
            "rows": F.pad(scale.rows, [0, 0, REACH, REACH]),
            "columns": F.pad(scale.columns, [0, 0, REACH, REACH]).T.contiguous(),
        }
        self.size = scale.size
        self.chooses = len(scale.bank) > 0
        if self.chooses:
            constants |= {"chooser": scale.chooser * SHARPNESS, "bank": scale.bank.flatten(1)}
        self.pasted = not bool(scale.open.all())  # else the scale before enters as it is
        if self.pasted:
            constants |= {"open": scale.open, "kept": scale.kept}
        for name, constant in constants.items():
            self.register_buffer(f"constant_{name}", constant)  # never the name of an input

    def forward(self, before: Tensor | None, erosion: Tensor, noise: Tensor) -> Tensor:
        constant = self.get_buffer
        new = (constant("constant_depth") - erosion * STEEP).clamp(0, 1)
        new = new * constant("constant_inside")
        fixed = constant("constant_fixed")
        x = fixed + new * (noise - fixed)
        previous = None
        if self.chooses:
            chosen = torch.softmax(x.flatten(1) @ constant("constant_chooser"), 1)
            previous = (chosen @ constant("constant_bank")).reshape(-1, 3, *self.size)
        x = x * self.amplitude
        if previous is not None:
            x = F.pad(previous, [REACH] * 4) + x
        if before is not None:
            if self.pasted:
                before = before * constant("constant_open") + constant("constant_kept")
            wide = constant("constant_rows") @ before @ constant("constant_columns")
            previous = wide[:, :, REACH:-REACH, REACH:-REACH]
            x = wide + x
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = F.leaky_relu(F.conv2d(x, weight, bias), SLOPE)
        change = torch.tanh(F.conv2d(x, self.weights[-1], self.biases[-1]))
        return change if previous is None else change + previous


class PyramidGraph(nn.Module):
    """erosion (1,), noise_0 (B, 1, h + 10, w + 10), noise_1 (B, 3, ...), ... -> picture."""

    def __init__(self, scales: Sequence[Frozen]):
        super().__init__()
        self.scales = nn.ModuleList(ScaleGraph(scale) for scale in scales)

    def forward(self, erosion: Tensor, *noises: Tensor) -> Tensor:
        found = None
        for scale, noise in zip(self.scales, noises, strict=True):
            found = scale(found, erosion, noise)
        assert found is not None  # a pyramid has a scale
        return found.clamp(-1.0, 1.0)


def to_onnx(scales: Sequence[Frozen], path: Path) -> None:
    """Writes the graph, with a free batch axis and its weights inside.

    Raises:
        EngineError: It came out with an operator that no engine may have.
    """
    graph, module = table(scales), PyramidGraph(scales).eval()
    batch = torch.export.Dim("B", min=1, max=4096)
    noises = cascade.draw(scales, torch.Generator().manual_seed(0), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations, not ours to mend
        program = torch.onnx.export(
            module,
            (torch.ones(1), *noises),
            dynamo=True,
            opset_version=OPSET,
            input_names=[t.name for t in graph.inputs],
            output_names=[t.name for t in graph.outputs],
            dynamic_shapes=({}, tuple({0: batch} for _ in noises)),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # with dynamo=True
    model = program.model_proto
    values = *model.graph.input, *model.graph.output, *model.graph.value_info
    for entry in (model, model.graph, *model.graph.node, *model.graph.initializer, *values):
        del entry.metadata_props[:]  # hold file names and lines of the exporting machine
        entry.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    if foreign := sorted({node.op_type for node in model.graph.node} - set(RULES)):
        raise EngineError(f"an engine's operators must be of picme_rt/operators.py, got {foreign}")
    path.write_bytes(model.SerializeToString())


@torch.no_grad()
def parity(scales: Sequence[Frozen], path: Path) -> dict[str, float]:
    """The largest error of the graph against `cascade.sample`, by batch size.

    Raises:
        ParityError: It is more than `TOLERANCE`.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = {}
    for batch in BATCHES:
        noises = cascade.draw(scales, torch.Generator().manual_seed(batch), batch)
        errors = []
        for erosion in EROSIONS:
            expected = cascade.sample(scales, noises, torch.tensor(erosion)).numpy()
            feeds = {f"noise_{i}": noise.numpy() for i, noise in enumerate(noises)}
            feeds["erosion"] = np.array([erosion], np.float32)
            (got,) = session.run(["picture"], feeds)
            errors.append(float(np.abs(got - expected).max()))
        found[f"batch_{batch}"] = max(errors)
        if not max(errors) <= TOLERANCE:
            raise ParityError(
                f"{path.name} differs from torch by {max(errors):.2e} at batch {batch}, "
                f"more than {TOLERANCE}; the engine was not written"
            )
    return found


def check_target(target: Path, *, force: bool) -> None:
    """Refuses a place that `write` would refuse, before the hours of training.

    Raises:
        InputError: `target` exists and is no engine, or `force` is not set.
    """
    if target.exists() and not (target / engines.MANIFEST).is_file():
        raise InputError(f"{target} exists and is no engine; write to another place")
    if target.exists() and not force:
        raise InputError(f"{target} exists; pass --force (force=True) to replace it")


def write(
    scales: Sequence[Frozen],
    target: Path,
    *,
    hole: Hole,
    fingerprint: str,
    about: dict[str, Any],
    force: bool = False,
) -> dict[str, float]:
    """Writes an engine of kind `idc`; gives the largest errors against torch.

    Args:
        scales: The pyramid, on the CPU.
        target: The engine's directory.
        hole: (H, W) bool, that it was trained with.
        fingerprint: Of picture and hole (`store.fingerprint`).
        about: Provenance.
        force: Replace an engine that exists.

    Raises:
        InputError: `target` exists.
        ParityError: The graph does not give what torch gives; nothing is written.
    """
    check_target(target, force=force)
    with atomic.directory(target, force=force) as fresh:
        (fresh / "fp32").mkdir()
        to_onnx(scales, fresh / "fp32" / "pyramid.onnx")
        errors = parity(scales, fresh / "fp32" / "pyramid.onnx")
        (fresh / "hole.bits").write_bytes(np.packbits(hole).tobytes())
        names = ("fp32/pyramid.onnx", "hole.bits")
        contents = {name: (fresh / name).read_bytes() for name in names}
        graph = table(scales)
        content = {
            "format": engines.FORMAT,
            "kind": "idc",
            "name": target.name,
            "picture": list(hole.shape),
            "sizes": [list(scale.size) for scale in scales],
            "fingerprint": fingerprint,
            "hole": "hole.bits",
            "tensors": {
                way: {t.name: list(t.axes) for t in getattr(graph, way)}
                for way in ("inputs", "outputs")
            },
            "variants": {"fp32": {"pyramid": "fp32/pyramid.onnx"}},
            "files": {
                name: {"sha256": hashlib.sha256(held).hexdigest(), "bytes": len(held)}
                for name, held in contents.items()
            },
            "provenance": {**about, "parity": errors},
        }
        (fresh / engines.MANIFEST).write_text(json.dumps(content, indent=1) + "\n")
    return errors

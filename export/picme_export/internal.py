"""A trained pyramid as one ONNX graph, compared with torch, and as an engine directory.

    erosion, noise_0, noise_1, ...  ->  picture

Batch norm is folded, a scale's way to the next is two products with constant matrices that also
lay the border of zeros around it, and what is constant (fixed noise, depth in the hole) is inside.
Only what the hole needs is there: a window of each scale (internal_windows.py).
"""

import hashlib
import math
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

from picme_export import internal_windows
from picme_export.verify import ParityError
from picme_rt import atomic, graph_shapes, pyramid
from picme_rt import engine as engines
from picme_rt.errors import InputError
from picme_rt.framing import Box
from picme_rt.images import Hole
from picme_rt.onnx_file import OPSET
from picme_rt.pyramid import Pyramid
from picme_training.internal import cascade
from picme_training.internal.cascade import SHARPNESS, Frozen
from picme_training.internal.masked import STEEP
from picme_training.internal.stack import REACH
from picme_training.norms import SLOPE

TOLERANCE = 1e-5
"""Largest absolute error against torch, pictures being in [-1, 1]."""
BATCHES = (1, 2, 5)
EROSIONS = (0.0, 2.5, 4.0, 7.0)


class ScaleGraph(nn.Module):
    """One scale's window: that of the scale before (B, 3, h', w'), erosion and noise -> it.

    Args:
        scale: The scale.
        window: Its places (h, w) that are made.
        before: Those of the scale before; None at the coarsest.
    """

    def __init__(self, scale: Frozen, window: Box, before: Box | None):
        super().__init__()
        weights = [weight.contiguous() for weight in scale.weights]
        self.chooses = len(scale.bank) > 0
        if scale.fixed.shape[1] == 1 and not self.chooses:  # one noise for three channels
            weights[0] = weights[0].sum(1, keepdim=True)
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(scale.biases)
        self.amplitude = float(scale.amplitude)
        part = padded(window)
        depth = scale.depth[part]
        constants = {
            "depth": depth * STEEP,
            "inside": (depth * STEEP).clamp(0, 1),
            "fixed": scale.fixed[part],
        }
        if self.chooses:
            constants |= _choice(scale, window)
        # else the scale before enters as it is
        self.pasted = before is not None and not bool(scale.open.all())
        if before is not None and self.pasted:
            rows, columns = slice(before.top, before.bottom), slice(before.left, before.right)
            constants["open"] = scale.open[:, :, rows, columns]
            constants["kept"] = scale.kept[:, :, rows, columns]
        if before is not None:
            for name, matrix, first, last, begin, end in (
                ("rows", scale.rows, window.top, window.bottom, before.top, before.bottom),
                ("columns", scale.columns, window.left, window.right, before.left, before.right),
            ):
                wide = F.pad(matrix, [0, 0, REACH, REACH])[first : last + 2 * REACH, begin:end]
                constants[f"{name}_padded"], constants[name] = wide, wide[REACH:-REACH]
        for name, constant in constants.items():
            turned = constant.T if name.startswith("columns") else constant
            # never the name of an input
            self.register_buffer(f"constant_{name}", turned.contiguous())

    def forward(self, before: Tensor | None, erosion: Tensor, noise: Tensor) -> Tensor:
        constant = self.get_buffer
        new = (constant("constant_depth") - erosion * STEEP).clamp(0, 1)
        new = new * constant("constant_inside")
        fixed = constant("constant_fixed")
        noise = fixed + new * (noise - fixed)
        x = noise * self.amplitude
        previous = None
        if self.chooses:
            chosen = torch.softmax(noise.flatten(1) @ constant("constant_chooser"), 1)
            high, wide = noise.shape[2:]
            x = (chosen @ constant("constant_bank_padded")).reshape(-1, 3, high, wide) + x
            size = -1, 3, high - 2 * REACH, wide - 2 * REACH
            previous = (chosen @ constant("constant_bank")).reshape(size)
        if before is not None:
            if self.pasted:
                before = before * constant("constant_open") + constant("constant_kept")
            # twice, padded and not: a slice of it is an operator more
            previous = constant("constant_rows") @ before @ constant("constant_columns")
            x = constant("constant_rows_padded") @ before @ constant("constant_columns_padded") + x
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = F.leaky_relu(F.conv2d(x, weight, bias), SLOPE)
        change = torch.tanh(F.conv2d(x, self.weights[-1], self.biases[-1]))
        return change if previous is None else change + previous


def _choice(scale: Frozen, window: Box) -> dict[str, Tensor]:
    """How the noise of a window chooses, and what: the window holds the whole hole."""
    part = padded(window)
    chooser = scale.chooser.T.reshape(1, -1, *scale.fixed.shape[2:])[part]
    wide = F.pad(scale.bank, [REACH] * 4)[part]
    return {
        "chooser": chooser.flatten(2)[0].T * SHARPNESS,
        "bank_padded": wide.flatten(1),
        "bank": wide[:, :, REACH:-REACH, REACH:-REACH].flatten(1),
    }


def padded(window: Box) -> tuple[slice, ...]:
    """A window's part of a map (B, C, h + 10, w + 10)."""
    more = 2 * REACH
    return np.s_[:, :, window.top : window.bottom + more, window.left : window.right + more]


class PyramidGraph(nn.Module):
    """erosion (1,), noise_0 (B, 1, h + 10, w + 10), noise_1 (B, 3, ...), ... -> picture."""

    def __init__(self, scales: Sequence[Frozen], windows: Sequence[Box]):
        super().__init__()
        self.scales = nn.ModuleList(
            ScaleGraph(scale, window, before)
            for scale, window, before in zip(scales, windows, [None, *windows[:-1]], strict=True)
        )

    def forward(self, erosion: Tensor, *noises: Tensor) -> Tensor:
        found = None
        for scale, noise in zip(self.scales, noises, strict=True):
            found = scale(found, erosion, noise)
        assert found is not None  # a pyramid has a scale
        return found.clamp(-1.0, 1.0)


def to_onnx(scales: Sequence[Frozen], windows: tuple[Box, ...], path: Path) -> None:
    """Writes the graph, with a free batch axis and its weights inside.

    Args:
        scales: The pyramid.
        windows: The places of each scale that are made.
        path: The file.

    Raises:
        EngineError: It came out as no graph that the runtime opens.
    """
    graph, module = pyramid.table(windows), PyramidGraph(scales, windows).eval()
    batch = torch.export.Dim("B", min=1, max=4096)
    drawn = cascade.draw(scales, torch.Generator().manual_seed(0), 2)
    noises = [noise[padded(window)] for noise, window in zip(drawn, windows, strict=True)]
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
    content = model.SerializeToString()
    graph_shapes.check_fixed(content, graph, math.prod(scales[-1].size))
    path.write_bytes(content)


@torch.no_grad()
def parity(scales: Sequence[Frozen], windows: tuple[Box, ...], path: Path) -> dict[str, float]:
    """The largest error of the graph against `cascade.sample` of the whole, by batch size.

    Raises:
        ParityError: It is more than `TOLERANCE`.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found, last = {}, windows[-1]
    for batch in BATCHES:
        noises = cascade.draw(scales, torch.Generator().manual_seed(batch), batch)
        errors = []
        for erosion in EROSIONS if batch == 1 else EROSIONS[1:2]:
            whole = cascade.sample(scales, noises, torch.tensor(erosion)).numpy()
            expected = whole[:, :, last.top : last.bottom, last.left : last.right]
            feeds = {
                f"noise_{i}": noise[padded(window)].numpy()
                for i, (noise, window) in enumerate(zip(noises, windows, strict=True))
            }
            feeds["erosion"] = np.array([erosion], np.float32)
            (got,) = session.run(["picture"], feeds)
            errors.append(float(np.abs(got - expected).max()))
        worst = found[f"batch_{batch}"] = float(np.max(errors))  # max() would lose a NaN
        if not worst <= TOLERANCE:
            raise ParityError(
                f"{path.name} differs from torch by {worst:.2e} at batch {batch}, "
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
        fingerprint: Of picture and hole (`picme_rt.pyramid.fingerprint`).
        about: Provenance.
        force: Replace an engine that exists.

    Raises:
        InputError: `target` exists.
        ParityError: The graph does not give what torch gives; nothing is written.
    """
    check_target(target, force=force)
    with atomic.directory(target, force=force) as fresh:
        (fresh / "fp32").mkdir()
        windows = internal_windows.windows(scales)
        to_onnx(scales, windows, fresh / "fp32" / "pyramid.onnx")
        errors = parity(scales, windows, fresh / "fp32" / "pyramid.onnx")
        (fresh / "hole.bits").write_bytes(np.packbits(hole).tobytes())
        contents = {n: (fresh / n).read_bytes() for n in ("fp32/pyramid.onnx", "hole.bits")}
        engine = Pyramid(
            path=fresh,
            name=target.name,
            picture=(hole.shape[0], hole.shape[1]),
            sizes=tuple(scale.size for scale in scales),
            windows=windows,
            fingerprint=fingerprint,
            hole_file="hole.bits",
            variants={"fp32": {"pyramid": "fp32/pyramid.onnx"}},
            files={
                name: engines.File(hashlib.sha256(held).hexdigest(), len(held))
                for name, held in contents.items()
            },
            provenance={**about, "parity": errors},
        )
        (fresh / engines.MANIFEST).write_text(pyramid.manifest(engine))
        pyramid.load(fresh).hole()  # what is written must be what the runtime reads
    return errors

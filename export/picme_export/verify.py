"""Parity: what an exported graph gives against what torch gives."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from picme_rt import tensors
from picme_rt.errors import PicmeError
from picme_rt.framing import Box
from picme_rt.windows import Windows, windows
from picme_training.networks import Picme

Array = NDArray[np.float32]
BATCHES = (1, 2, 7)
TOLERANCE = 1e-4
"""Largest absolute error, pictures being in [-1, 1]; other outputs are judged relative to their
largest magnitude where that is over 1."""


class ParityError(PicmeError):
    """An exported graph does not give what torch gives."""


@torch.no_grad()
def requests(model: Picme, batch: int) -> dict[str, torch.Tensor]:
    """A batch as a session makes it: smooth random pictures with holes, encoded and sampled once.

    Returns:
        Every input of both graphs by name.
    """
    random, size = torch.Generator().manual_seed(batch), model.config.size
    coarse = torch.rand(batch, 3, 8, 8, generator=random) * 2 - 1
    image = F.interpolate(coarse, size, mode="bilinear")
    blocks = (torch.rand(batch, 1, 8, 8, generator=random) < 0.4).float()
    hole = F.interpolate(blocks, size, mode="nearest")
    encoding, mixture = model.encode(image, hole)
    drawn = torch.randint(model.config.primitives, (batch,), generator=random)
    noise = torch.randn(batch, model.latent_dim, generator=random)
    found = {"image": image, "hole": hole, "z": mixture.primitive(drawn).sample(noise)}
    if encoding.z_m is not None:
        found["z_m"] = encoding.z_m.mu
    return found | {f"f_{i}": feature for i, feature in enumerate(encoding.features)}


def boxes(size: int) -> list[Box]:
    """Boxes of every kind: the whole picture, its middle, corners, an edge, single pixels."""
    half, most = size // 2, size - 1
    return [
        Box(0, 0, size, size),
        Box(size // 4, size // 4, size - size // 4, size - size // 4),
        Box(0, 0, half + 3, size // 3),
        Box(half + 1, most - size // 5, size, size),
        Box(half - 1, 0, half, 1),
        Box(most, most, size, size),
        Box(half + 3, 0, half + 8, size),
    ]


def parity(model: Picme, module: nn.Module, graph: tensors.Graph, path: Path) -> dict[str, float]:
    """Largest error of any output at each batch size, by `batch_N`.

    Args:
        model: Makes the inputs.
        module: The graph in torch; a decoder's box is compared with its whole picture.
        graph: Names and shapes of its inputs and outputs.
        path: The graph in ONNX.

    Raises:
        ParityError: An error is over `TOLERANCE`.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = {}
    for batch in BATCHES:
        asked = requests(model, batch)
        size, crops = model.config.size, getattr(module, "crops", ())
        asked["box"] = torch.from_numpy(windows(size, crops, Box(0, 0, size, size)).rows)
        inputs = {t.name: asked[t.name] for t in graph.inputs}
        with torch.no_grad():
            out = module(*inputs.values())
        expected = [out] if isinstance(out, torch.Tensor) else list(out)
        errors = []
        for box in boxes(size) if crops else boxes(size)[:1]:
            found_windows = windows(size, crops, box)
            feeds = {k: v.numpy() for k, v in inputs.items()}
            if crops:
                feeds["box"] = found_windows.rows
            got = session.run([t.name for t in graph.outputs], feeds)
            for name, one, other in zip(graph.outputs, expected, got, strict=True):
                reference = one.numpy()
                if name.cropped:
                    reference, other = _boxes_of(reference, other, found_windows)
                if reference.shape != other.shape:
                    raise ParityError(f"{name.name} must be {reference.shape}, got {other.shape}")
                scale = max(1.0, float(np.abs(reference).max()))
                errors.append(float(np.abs(reference - other).max()) / scale)
        worst = found[f"batch_{batch}"] = float(np.max(errors))  # max() would lose a NaN
        if not worst <= TOLERANCE:
            raise ParityError(
                f"{path.name} differs from torch by {worst:.2e} at batch {batch}, "
                f"more than {TOLERANCE}; the engine was not written"
            )
    return found


def _boxes_of(whole: Array, made: Array, asked: Windows) -> tuple[Array, Array]:
    """The box in a whole picture, and in what was made for it."""
    box, place = asked.box, asked.made
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    part = made[:, :, rows.start - place.top :, columns.start - place.left :]
    found = whole[:, :, rows, columns]
    return found, part[:, :, : found.shape[2], : found.shape[3]]

"""The pipeline as one ONNX file, compared with a session before it is kept."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from picme_export.pipeline import stages
from picme_export.verify import ParityError
from picme_rt import atomic
from picme_rt import engine as engines
from picme_rt.errors import InputError
from picme_rt.images import Hole, Image
from picme_rt.noise import noise
from picme_rt.session import Session

LEVELS = 1
"""Most levels by which a pixel may differ from a session's."""
_K = 3


@dataclasses.dataclass(frozen=True)
class Difference:
    """What a pipeline's pictures differ by from a session's.

    Attributes:
        levels: The largest difference of 0..255.
        share: Of the hole's values that differ at all.
    """

    levels: int
    share: float


def export(source: Path, target: Path, *, force: bool = False) -> Difference:
    """Writes the whole way of an engine as one file.

    Args:
        source: The engine's directory.
        target: The file.
        force: Replace a file that exists.

    Raises:
        InputError: `target` exists, or the engine has no fp32.
        EngineError: `source` is no engine.
        ParityError: The graph does not give what a session gives; nothing is written.
    """
    if target.is_dir() or (target.exists() and not force):
        raise InputError(f"{target} exists; pass --force to overwrite a file, or another --out")
    model = stages.whole(stages.of(engines.load(source)))
    found = difference(model, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic.file(target) as fresh:
        fresh.write_bytes(model.SerializeToString())
    return found


def difference(model: onnx.ModelProto, source: Path) -> Difference:
    """Runs a pipeline beside a session of its engine on a picture of smooth colours.

    Raises:
        ParityError: They differ by more than `LEVELS`, in a primitive, or outside the hole.
    """
    image, hole = _picture(engines.load(source).size)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    run = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    with Session(source, backend="onnxruntime", precision="fp32") as session:
        drawn = noise(0, latent=session.info.latent, k=_K)
        wanted = session.complete(image, hole, k=_K, seed=0)
    feeds = {"image": image, "mask": hole.astype(np.uint8), **drawn._asdict()}
    pictures, primitives = run.run(stages.RESULTS, feeds)
    apart = np.abs(pictures.astype(np.int16) - wanted.images)
    found = Difference(int(apart.max()), float((apart[:, hole] > 0).mean()))
    known = bool((pictures[:, ~hole] == image[~hole]).all())
    same = np.array_equal(primitives, np.asarray(wanted.primitives))
    if not known or not same or found.levels > LEVELS:
        raise ParityError(
            f"the pipeline must be within {LEVELS} level of a session, got {found.levels}; known "
            f"pixels equal: {known}, primitives equal: {same}; nothing was written"
        )
    return found


def _picture(size: int) -> tuple[Image, Hole]:
    """Waves of colour, larger than the engine's square, and an ellipse near the border."""
    rows, columns = np.ogrid[: size + size // 3, : 2 * size]
    waves = [np.sin(rows / (9 + 4 * c)) + np.cos(columns / (13 - 3 * c)) for c in range(3)]
    image = (127.5 + 60 * np.stack(waves, axis=-1)).astype(np.uint8)
    hole = ((rows - size / 2) / (size / 3)) ** 2 + ((columns - size / 4) / (size / 3)) ** 2 < 1
    return image, hole

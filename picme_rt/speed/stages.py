"""The stages of a call, each as a function that does its share of k results again and again."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from picme_rt import composite, framing, graph_shapes, kernels
from picme_rt import engine as engines
from picme_rt.backends.host_backend import HostBackend
from picme_rt.errors import InputError
from picme_rt.framing import Framing
from picme_rt.images import Hole, Image
from picme_rt.models import EngineModel
from picme_rt.session import Session

Stage = Literal["pre", "encode", "sample", "decode", "composite"]
STAGES: tuple[Stage, ...] = ("pre", "encode", "sample", "decode", "composite")


def prepare(session: Session) -> None:
    """Lets results go side by side from the next call on, as they come to in use."""
    model = session._model
    if isinstance(model, EngineModel) and isinstance(backend := model.loaded(), HostBackend):
        backend.prepare()


def stages(
    session: Session, img: Image, hole: Hole, *, k: int
) -> dict[Stage, Callable[[], object]]:
    """What `session.complete(img, hole, k=k)` does, stage by stage, for its largest region.

    Args:
        session: An open session; buffers of its backend are borrowed for good.
        img: (H, W, 3) uint8.
        hole: (H, W) bool, True somewhere.
        k: Results of the stages that are done for each: `sample`, `decode` and `composite`.

    Returns:
        `pre` (from bytes to the engine's square, and what the way back needs), `encode`, `sample`,
        `decode` (k latents in micro-batches, as a call decodes them: side by side once the session
        is prepared) and `composite` (k pictures to bytes), in this order.
    """
    model = session._model
    if not isinstance(model, EngineModel):
        raise InputError("stages are those of an engine, got a session of patch mode")
    backend, size = model.loaded(), session.info.size
    framed: Framing = "free" if session.info.framing == "free" else "aligned"
    encoded = model.encode(img, hole)
    part = encoded._parts[0]
    values = part.values
    region = framing.regions(hole, size, framed)[0]
    fitted = composite.fit(img, hole, region, size)
    image, unknown = fitted.image[None], fitted.hole[None]
    mixture = (values["log_alpha"], values["mu"], values["log_sigma"])
    seeds, batch = np.zeros(1, np.uint64), backend.micro_batch
    drawn = kernels.sample_gmm(*mixture, seeds, k=k).z[0].astype(np.float32)
    z = np.resize(drawn, (-(-k // batch) * batch, drawn.shape[1]))
    decoding = backend.decoding(values, part.box)
    picture, target = decoding(z[:batch])[0].copy(), img.copy()
    runs = [z[first : first + batch] for first in range(0, k, batch)]

    def pre() -> None:
        square = framing.regions(hole, size, framed)[0]
        composite.canvas(composite.fit(img, hole, square, size), hole, square)

    def decode() -> None:
        for _ in decoding.each(runs, lambda place, pictures: None):
            pass

    def paste() -> None:
        for _ in range(k):
            encoded._paste([picture], target)

    return {
        "pre": pre,
        "encode": lambda: backend.encode(image, unknown),
        "sample": lambda: kernels.sample_gmm(*mixture, seeds, k=k),
        "decode": decode,
        "composite": paste,
    }


def decoder_macs(path: Path, precision: str) -> int:
    """Multiply-adds of one decode of the whole square, as the graph counts them.

    Args:
        path: The engine's directory.
        precision: A variant of the engine, or one that a backend makes of its fp32.
    """
    engine = engines.load(path)
    files = engine.variants.get(precision) or engine.variants["fp32"]
    content = engine.read(files["decoder"])
    return graph_shapes.check(content, engine.tables.decoder, engine.crops).macs

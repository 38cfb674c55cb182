"""The stages of a call, each as a function that does its share of k results again and again."""

from collections.abc import Callable

import numpy as np

from picme_rt import composite, framing, graph_shapes, kernels
from picme_rt import engine as engines
from picme_rt.framing import Framing
from picme_rt.images import Hole, Image
from picme_rt.session import Session

STAGES = ("pre", "encode", "sample", "decode", "composite")


def stages(session: Session, img: Image, hole: Hole, *, k: int) -> dict[str, Callable[[], object]]:
    """What `session.complete(img, hole, k=k)` does, stage by stage, on its largest region.

    Args:
        session: An open session; its backend's buffers are borrowed until it is closed.
        img: (H, W, 3) uint8.
        hole: (H, W) bool, True somewhere.
        k: Results of the stages that are done for each: sample, decode and composite.

    Returns:
        `pre` (from bytes to the engine's square, and what the way back needs), `encode`, `sample`,
        `decode` (k latents in micro-batches) and `composite` (k pictures to bytes), in this order.
    """
    backend, size = session._loaded(), session.info.size
    framed: Framing = "free" if session.info.framing == "free" else "aligned"
    part = session.encode(img, hole)._parts[0]
    region = framing.regions(hole, size, framed)[0]
    fitted = composite.fit(img, hole, region, size)
    image, unknown = fitted.image[None], fitted.hole[None]
    mixture = [part.values[name] for name in ("log_alpha", "mu", "log_sigma")]
    seeds, batch = np.zeros(1, np.uint64), backend.micro_batch
    z = np.resize(kernels.sample_gmm(*mixture, seeds, k=k).z[0], (-(-k // batch) * batch, -1))
    decode = backend.decoding(part.values)
    picture, target = decode(z[:batch])[:1].copy(), img.copy()

    def pre() -> object:
        region = framing.regions(hole, size, framed)[0]
        return composite.canvas(composite.fit(img, hole, region, size), hole, region)

    def run_decoder() -> object:
        for first in range(0, k, batch):
            made = decode(z[first : first + batch])
        return made

    def paste() -> object:
        for _ in range(k):
            kernels.composite(
                picture[None], img[None], [part.canvas], out=target[None, None]
            )
        return target

    functions = (
        pre,
        lambda: backend.encode(image, unknown),
        lambda: kernels.sample_gmm(*mixture, seeds, k=k),
        run_decoder,
        paste,
    )
    return dict(zip(STAGES, functions, strict=True))


def decoder_macs(path: str, precision: str) -> int:
    """Multiply-adds of one decode as the engine's graph counts them (graph_shapes.py).

    Args:
        path: The engine's directory.
        precision: What it runs in: a variant's name, or one that is made of fp32.
    """
    engine = engines.load(engines.Path(path))
    files = engine.variants.get(precision) or engine.variants["fp32"]
    return graph_shapes.check(engine.read(files["decoder"]), engine.tables.decoder).macs

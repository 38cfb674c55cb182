"""An engine whose whole way from bytes to bytes is on one GPU, as a model of a session."""

from typing import TYPE_CHECKING

from picme_rt import backends, composite, framing, models
from picme_rt.backends import Chosen
from picme_rt.composite import Canvas, Fit
from picme_rt.engine import Engine
from picme_rt.errors import ClosedError
from picme_rt.images import Hole, Image
from picme_rt.models import Info
from picme_rt.torch_encoded import TorchEncoded

if TYPE_CHECKING:
    from picme_rt.backends.torch_pipeline import Pipeline


def load(engine: Engine, chosen: Chosen) -> "TorchModel":
    """The engine's pipeline on the device of these settings.

    Raises:
        PicmeError: As `backends.load`.
    """
    from picme_rt.backends import torch

    return TorchModel(engine, chosen, torch.pipeline(engine, chosen.settings))


def fitted(pixels: Image, hole: Hole, engine: Engine) -> list[tuple[Fit, Canvas]]:
    """Each region of a hole: the engine's square, and the way back from it."""
    found = []
    for region in framing.regions(hole, engine.size, engine.framing):
        fit = composite.fit(pixels, hole, region, engine.size)
        found.append((fit, composite.canvas(fit, hole, region)))
    return found


class TorchModel:
    """See `picme_rt.models.Model`.

    Args:
        engine: The engine.
        chosen: How it is opened, and who chose that.
        pipeline: Of one picture.
    """

    def __init__(self, engine: Engine, chosen: Chosen, pipeline: "Pipeline"):
        self._engine, self._chosen = engine, chosen
        self._pipeline: Pipeline | None = pipeline

    def info(self) -> Info:
        """See `Model.info`."""
        kernel = self._loaded().launches.name
        variant = backends.variant(self._engine, self._chosen.settings.precision)
        return models.info_of(self._engine, self._chosen, variant=variant, kernel=kernel)

    def encode(self, pixels: Image, hole: Hole) -> TorchEncoded:
        """See `Model.encode`: Algorithm 2, lines 1-2, for each region of the hole."""
        pipeline = self._loaded()
        layers = [
            pipeline.encode([fit], [canvas]) for fit, canvas in fitted(pixels, hole, self._engine)
        ]
        return TorchEncoded(self._loaded, self._engine.primitives, pixels.copy(), layers)

    def close(self) -> None:
        """See `Model.close`."""
        self._pipeline = None

    def _loaded(self) -> "Pipeline":
        pipeline = self._pipeline  # once: another thread may close
        if pipeline is None:
            raise ClosedError(models.CLOSED)
        return pipeline

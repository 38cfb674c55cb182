"""The one graph of an engine of kind `idc` on the CPU: noise in, the window of a picture out."""

from collections.abc import Sequence

import numpy as np

from picme_rt import backends, graph_shapes
from picme_rt.backends import Chosen
from picme_rt.backends.graphs import Checked
from picme_rt.backends.host import Pool, Runner
from picme_rt.choices import Settings
from picme_rt.errors import EngineError, InputError, one_line
from picme_rt.images import Float
from picme_rt.pyramid import Pyramid
from picme_rt.turns import Turns

BACKENDS = ("onnxruntime", "openvino")
DEVICES = ("cpu",)


class PyramidBackend:
    """A pyramid's graph, loaded; safe to share between threads.

    Args:
        settings: How it was opened.
        variant: The engine's variant whose file it is.
        pool: Of the graph's runners.
    """

    device = "cpu"

    def __init__(self, settings: Settings, variant: str, pool: Pool):
        self.name, self.precision, self.variant = settings.backend, settings.precision, variant
        self.threads, self.micro_batch = settings.threads, settings.micro_batch
        self._pool = pool

    def __call__(self, noises: Sequence[Float], erosion: float) -> Float:
        """Noise of each scale, the coarsest first, and places to erode by -> (3, h, w)."""
        runner = self._pool.take()
        try:
            _fill(runner, noises, erosion)
            self._pool.run(runner)
            picture: Float = runner.outputs["picture"][0].copy()
            return picture
        finally:
            self._pool.give(runner)


def _fill(runner: Runner, noises: Sequence[Float], erosion: float) -> None:
    runner.inputs["erosion"][:] = erosion
    for i, noise in enumerate(noises):
        runner.inputs[f"noise_{i}"][:] = noise


def choose(engine: Pyramid, *, backend: str, device: str, precision: str) -> Chosen:
    """As `backends.choose`, among those that run a pyramid.

    Raises:
        InputError: As there.
        MissingPackageError: As there.
    """
    for what, got, known in (("backend", backend, BACKENDS), ("device", device, DEVICES)):
        if got not in ("auto", *known):
            raise InputError(
                f"{what} of an engine of kind 'idc' must be one of {('auto', *known)}, got {got!r}"
            )
    return backends.choose(engine, backend=backend, device="cpu", precision=precision)


def load(engine: Pyramid, settings: Settings, turns: Turns) -> PyramidBackend:
    """Loads the graph: read and checked here, before any library sees it.

    Raises:
        MissingPackageError: The backend's package is not installed.
        UnavailableError: This machine does not compute in the precision.
        EngineError: The graph is damaged or has other inputs and outputs than the manifest says.
    """
    variant = settings.precision if settings.precision in engine.variants else "fp32"
    name = engine.variants[variant]["pyramid"]
    path, content = engine.path / name, engine.read(name)
    try:
        graph_shapes.check_fixed(content, engine.table, int(np.prod(engine.sizes[-1])))
    except EngineError as exc:
        raise EngineError(
            f"{path} is no graph of an engine: {one_line(exc)}; train it again"
        ) from exc
    checked = Checked(path, content, engine.table)
    if settings.backend == "openvino":
        from picme_rt.backends import openvino

        make = openvino.runners(checked, settings)
    else:
        from picme_rt.backends import onnxruntime

        make = onnxruntime.runners(checked, settings)
    return PyramidBackend(settings, variant, Pool("pyramid", make, turns))

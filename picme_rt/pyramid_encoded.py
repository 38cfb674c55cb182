"""The picture of a pyramid and its hole, ready to be asked for results."""

import numbers
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np

from picme_rt import kernels, pyramid, pyramid_frame
from picme_rt.backends.pyramids import PyramidBackend
from picme_rt.encoded import Completion, Completions, Encoding, Request
from picme_rt.errors import EngineError, InputError
from picme_rt.images import Float, Hole, Image
from picme_rt.pipeline import GoOn
from picme_rt.pyramid import Pyramid

_NEVER = 1e6  # places from the known ones that no hole has
_PICTURE = 1.01  # largest magnitude that a graph gives: it ends in a clip to 1


class PyramidEncoded(Encoding):
    """A picture whose hole its own pyramid fills; made by `Session(ENGINE).encode`.

    Args:
        loaded: Gives the backend, or raises where it was closed.
        engine: Trained on the picture.
        pixels: (H, W, 3) uint8; copied.
        hole: (H, W) bool, inside of the engine's.
    """

    def __init__(
        self, loaded: Callable[[], PyramidBackend], engine: Pyramid, pixels: Image, hole: Hole
    ):
        super().__init__(pixels.copy())
        self._loaded, self._table = loaded, engine.table
        self._frame = pyramid_frame.frame(engine, pixels, hole.copy()) if hole.any() else None

    @property
    def mixture(self) -> None:
        """See `Encoding.mixture`: there is none."""

    def gather(self, request: Request, go_on: GoOn) -> Completions:
        """See `Encoding.gather`."""
        request, erosion = _checked(request)
        done = np.empty((request.k, *self._img.shape), np.uint8)
        for _ in self._results(self._loaded(), request, erosion, into=done):
            go_on()
        indices = np.arange(request.first, request.first + request.k, dtype=np.int64)
        return Completions(done, indices, None, None)

    def one_by_one(self, request: Request) -> Iterator[Completion]:
        """See `Encoding.one_by_one`."""
        return self._results(self._loaded(), *_checked(request), into=None)

    def _results(
        self, backend: PyramidBackend, request: Request, erosion: float, into: Image | None
    ) -> Iterator[Completion]:
        for i in range(request.k):
            target = np.empty_like(self._img) if into is None else into[i]
            target[:] = self._img
            if self._frame is not None:
                made = backend(self.noises(request, request.first + i), erosion)
                _check_picture(made)
                pyramid_frame.paste(self._frame, made, target)
            yield Completion(target, request.first + i, None, None)

    def noises(self, request: Request, index: int) -> list[Float]:
        """Noise of every scale: of seed, index, scale and place alone, times the temperature."""
        shapes = [t.shape for t in self._table.inputs if t.batched]
        if request.mode == "mean":
            return [np.zeros(shape, np.float32) for shape in shapes]
        seeds, factor = np.array([request.seed], np.uint64), np.float32(request.temperature)
        return [
            kernels.normal(seeds, shape, k=1, first=index, place=1 + scale)[0, 0] * factor
            for scale, shape in enumerate(shapes)
        ]


def _checked(request: Request) -> tuple[Request, float]:
    """The same with plain integers, and the places that the hole is eroded by.

    Raises:
        InputError: An option is wrong, or belongs to engines with a mixture.
    """
    erosion = eroded_by(request.diversity)
    checked = request._replace(diversity=None).checked(0)
    return checked, _NEVER if request.mode == "mean" else erosion


def eroded_by(diversity: object) -> float:
    """Places that the hole is eroded by at every scale for a diversity.

    Raises:
        InputError: It is none.
    """
    if diversity is None:
        diversity = pyramid.DEFAULT
    if isinstance(diversity, str) and diversity in pyramid.DIVERSITY:
        return pyramid.DIVERSITY[diversity]
    number = isinstance(diversity, (float, numbers.Real)) and not isinstance(diversity, bool)
    if number and -_NEVER <= cast(float, diversity) <= _NEVER:  # NaN is not
        return float(cast(float, diversity))
    raise InputError(
        f"diversity must be low, mid, high or a number of places from -1e6 to 1e6, got "
        f"{diversity!r}; 7, 4 and 0 are low, mid and high"
    )


def _check_picture(made: Float) -> None:
    if not (made.min() >= -_PICTURE and made.max() <= _PICTURE):
        raise EngineError(
            "the engine's pyramid gave values that are not finite or not in [-1, 1]; train it "
            "again, or lower the temperature if it is far above 1"
        )

"""A picture encoded once on a device, and the completions that are asked of it there."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from picme_rt import output_checks
from picme_rt.encoded import Completion, Completions, Encoding, Mixture, Request
from picme_rt.images import Image
from picme_rt.pipeline import GoOn

if TYPE_CHECKING:
    from picme_rt.backends.torch_pipeline import Layer, Pipeline


class TorchEncoded(Encoding):
    """See `Encoding`; the encoder's outputs stay on the device.

    Args:
        loaded: Gives the pipeline, or raises where it was closed.
        primitives: P.
        img: (H, W, 3) uint8.
        layers: Its regions.
    """

    def __init__(
        self,
        loaded: "Callable[[], Pipeline]",
        primitives: int,
        img: Image,
        layers: "list[Layer]",
    ):
        super().__init__(img)
        self._loaded, self._primitives, self._layers = loaded, primitives, layers

    @property
    def mixture(self) -> Mixture | None:
        """See `Encoding.mixture`; None where the hole was empty."""
        return self._loaded().mixture(self._layers[0]) if self._layers else None

    def gather(self, request: Request, go_on: GoOn) -> Completions:
        """See `Encoding.gather`."""
        request = request.checked(self._primitives)
        done = np.empty((request.k, *self._img.shape), np.uint8)
        indices = np.arange(request.first, request.first + request.k, dtype=np.int64)
        primitives = np.empty(request.k, np.int32)
        log_prob = np.empty(request.k, np.float32)
        for place, one in enumerate(self._results(self._loaded(), request)):
            done[place] = one.image
            if one.primitive is not None:
                primitives[place], log_prob[place] = one.primitive, one.log_prob
            go_on()
        if not self._layers:
            return Completions(done, indices, None, None)
        return Completions(done, indices, primitives, log_prob)

    def one_by_one(self, request: Request) -> Iterator[Completion]:
        """See `Encoding.one_by_one`; each image in memory of its own."""
        results = self._results(self._loaded(), request.checked(self._primitives))
        return (dataclasses.replace(one, image=one.image.copy()) for one in results)

    def _results(self, pipeline: "Pipeline", request: Request) -> Iterator[Completion]:
        """Algorithm 2, lines 3-7, a block of n latents at a time, however few are asked for."""
        end = request.first + request.k
        if not self._layers:
            for index in range(request.first, end):
                yield Completion(self._img, index, None, None)
            return
        n, seeds = pipeline.latents, np.array([request.seed], np.uint64)
        # Always n latents a run, result i in place i mod n: no picture's bits can depend on k or
        # first, whatever the device's arithmetic does with a place in a batch.
        for block in range(request.first - request.first % n, end, n):
            wanted = range(max(block, request.first) - block, min(block + n, end) - block)
            asked = request._replace(first=block)
            found = pipeline.complete(self._layers, self._img[None], asked, seeds, wanted)
            output_checks.check_extremes(*found.extremes)
            for place, index in enumerate(range(block + wanted.start, block + wanted.stop)):
                yield Completion(
                    found.images[0, place],
                    index,
                    int(found.primitive[0, place]),
                    float(found.log_prob[0, place]),
                )

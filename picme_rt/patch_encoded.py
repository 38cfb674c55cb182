"""A picture and its hole, ready for `patch`."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from picme_rt import patch, pipeline
from picme_rt.encoded import Completion, Completions, Encoding, Request
from picme_rt.images import Hole, Image
from picme_rt.pipeline import GoOn


class PatchEncoded(Encoding):
    """A picture whose hole is filled with patches of itself; made by `Session("patch").encode`.

    Args:
        alive: Raises where the session was closed.
        pixels: (H, W, 3) uint8; copied.
        hole: (H, W) bool.
        threads: Results that are made at once.
    """

    def __init__(self, alive: Callable[[], None], pixels: Image, hole: Hole, threads: int):
        super().__init__(pixels.copy())
        self._alive, self._hole, self._threads = alive, hole.copy(), threads
        self._prepared = patch.prepare(self._img, hole) if hole.any() else None

    @property
    def mixture(self) -> None:
        """See `Encoding.mixture`: there is none."""

    def gather(self, request: Request, go_on: GoOn) -> Completions:
        """See `Encoding.gather`: several results at once where there are cores."""
        request = request.checked(0)
        self._alive()

        def work(i: int, _: GoOn) -> None:
            self._write(request, i, done[i])

        done = np.empty((request.k, *self._img.shape), np.uint8)
        with contextlib.closing(
            pipeline.in_order(work, range(request.k), at_once=self._threads)
        ) as results:
            for _ in results:
                go_on()
        indices = np.arange(request.first, request.first + request.k, dtype=np.int64)
        return Completions(done, indices, None, None)

    def one_by_one(self, request: Request) -> Iterator[Completion]:
        """See `Encoding.one_by_one`."""
        request = request.checked(0)
        self._alive()
        return self._results(request)

    def _results(self, request: Request) -> Iterator[Completion]:
        for i in range(request.k):
            target = np.empty_like(self._img)
            self._write(request, i, target)
            yield Completion(target, request.first + i, None, None)

    def _write(self, request: Request, i: int, target: Image) -> None:
        target[:] = self._img
        if self._prepared is None:
            return
        mean = request.mode == "mean"
        made = patch.complete(
            self._prepared,
            request.seed,
            0 if mean else request.first + i,
            0.0 if mean else request.temperature,
        )
        top, left = self._prepared.top, self._prepared.left
        part = np.s_[top : top + made.shape[0], left : left + made.shape[1]]
        inside = self._hole[part]
        target[part][inside] = np.rint(made[inside]).clip(0, 255).astype(np.uint8)

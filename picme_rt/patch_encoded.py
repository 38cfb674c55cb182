"""A picture and its hole, ready for `patch`, behind the face of `picme_rt.encoded.Encoded`."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from picme_rt import patch, pipeline
from picme_rt.encoded import Completion, Completions, Request, check_size
from picme_rt.errors import InputError
from picme_rt.images import Hole, Image
from picme_rt.kernels import Mode
from picme_rt.pipeline import GoOn


class PatchEncoded:
    """A picture whose hole is filled with patches of itself; made by `Session("patch").encode`.

    Args:
        alive: Raises where the session was closed.
        pixels: (H, W, 3) uint8; copied.
        hole: (H, W) bool.
        threads: Results that are made at once.
    """

    mixture = None

    def __init__(self, alive: Callable[[], None], pixels: Image, hole: Hole, threads: int):
        self._threads = threads
        self._alive, self._img, self._hole = alive, pixels.copy(), hole.copy()
        self._prepared = patch.prepare(self._img, hole) if hole.any() else None

    def complete(
        self,
        *,
        k: int = 6,
        seed: int = 0,
        first: int = 0,
        mode: Mode = "categorical",
        primitive: int | None = None,
        temperature: float = 1.0,
    ) -> Completions:
        """Results first .. first + k - 1 of a seed, several at once where there are cores."""
        check_size(self._img.shape, k)
        return self.gather(Request(k, seed, first, mode, primitive, temperature), lambda: None)

    def gather(self, request: Request, go_on: GoOn) -> Completions:
        """`complete` for who asks for several pictures: `go_on` may end it after each result."""
        request = checked(request)
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

    def stream(
        self,
        *,
        k: int = 6,
        seed: int = 0,
        first: int = 0,
        mode: Mode = "categorical",
        primitive: int | None = None,
        temperature: float = 1.0,
    ) -> Iterator[Completion]:
        """The results of `complete` one by one, in flat memory."""
        request = checked(Request(k, seed, first, mode, primitive, temperature))
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


def checked(request: Request) -> Request:
    """The same with plain integers.

    Raises:
        InputError: An option is wrong, or belongs to engines with a mixture.
    """
    if request.primitive is not None or request.mode == "per_primitive":
        raise InputError(
            "patch mode has no primitives: leave out mode='per_primitive' and primitive, "
            f"got mode={request.mode!r} and primitive={request.primitive!r}"
        )
    return request.checked(1)

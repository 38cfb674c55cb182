"""A picture encoded once, and the completions that are asked of it (Algorithm 2, lines 3-7)."""

import abc
import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Generator, Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt import composite, framing, kernels, output_checks
from picme_rt.backends import Backend, Decoding
from picme_rt.composite import Canvas
from picme_rt.errors import InputError
from picme_rt.framing import Box, Framing
from picme_rt.images import Float, Hole, Image
from picme_rt.kernels import Mode
from picme_rt.pipeline import GoOn

_INDICES = 1 << 32  # latents of a seed
_RUNS = 96  # whose latents are drawn at once: 3 MB where they are largest
Diversity = Literal["low", "mid", "high"] | float
"""How much results of an engine of kind `idc` differ: a word, or the places that it stands for."""
RESULT_BYTES = 2 << 30
"""Most bytes that one call returns; `stream` has no such limit."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """One result.

    Attributes:
        image: (H, W, 3) uint8; outside the hole equal to the original to the bit.
        index: i; the latent is a function of (seed, i) alone.
        primitive: Which Gaussian of the mixture it came from; None where the hole was empty.
        log_prob: log q(z_c|z_m) of its latent in nats (Eq. 3); None where the hole was empty.
    """

    image: Image
    index: int
    primitive: int | None
    log_prob: float | None


class Completions(NamedTuple):
    """k results of one picture; the fields of `Completion` with k in front."""

    images: NDArray[np.uint8]
    indices: NDArray[np.int64]
    primitives: NDArray[np.int32] | None
    log_prob: NDArray[np.float32] | None


class Request(NamedTuple):
    """What is asked of the sampler: the options of `Encoded.stream`."""

    k: int
    seed: int
    first: int
    mode: Mode
    primitive: int | None
    temperature: float
    diversity: Diversity | None = None

    def checked(self, primitives: int) -> "Request":
        """The same with plain integers, for a mixture of `primitives`; 0: there is no mixture.

        Raises:
            InputError: An option is not as `Session.complete` says, or a diversity is asked for,
                which engines of kind `idc` alone have, or what a mixture alone has.
        """
        if not primitives and (self.primitive is not None or self.mode == "per_primitive"):
            raise InputError(
                "patch mode and engines of kind 'idc' have no primitives: leave out "
                "mode='per_primitive' and primitive, "
                f"got mode={self.mode!r} and primitive={self.primitive!r}"
            )
        options = self._asdict()
        if (diversity := options.pop("diversity")) is not None:
            raise InputError(
                "diversity must be left out but for engines of kind 'idc', "
                f"got {diversity!r}; temperature is the knob of others"
            )
        seed = kernels.check_integer("seed", options.pop("seed"), 0, (1 << 64) - 1)
        k, first, primitive = kernels.check_options(primitives, **options)
        return self._replace(k=k, seed=seed, first=first, primitive=primitive)


class Mixture(NamedTuple):
    """Eq. 3, q(z_c|z_m) of one picture, as `picme_rt.kernels.sample_gmm` takes it.

    Attributes:
        log_alpha: (1, P) float32, log of the mixing coefficients.
        mu: (1, P, D) float32.
        log_sigma: (1, P, D) float32.
    """

    log_alpha: Float
    mu: Float
    log_sigma: Float


class Part(NamedTuple):
    """One region of a picture: the encoder's outputs, where its results go, what these need."""

    values: dict[str, Float]
    canvas: Canvas
    box: Box


class Encoding(abc.ABC):
    """A picture made ready once, to be asked for results as often as wanted.

    Args:
        img: (H, W, 3) uint8, the original.
    """

    def __init__(self, img: Image):
        self._img = img

    @property
    @abc.abstractmethod
    def mixture(self) -> Mixture | None:
        """What the latents are drawn from, of the largest region; None where there is none."""

    @abc.abstractmethod
    def gather(self, request: Request, go_on: GoOn) -> Completions:
        """`complete` for who asks for several pictures: `go_on`, called after runs, may end it."""

    @abc.abstractmethod
    def one_by_one(self, request: Request) -> Iterator[Completion]:
        """`stream` of a request; a wrong one is refused at once, not at the first result."""

    def complete(
        self,
        *,
        k: int = 6,
        seed: int = 0,
        first: int = 0,
        mode: Mode = "categorical",
        primitive: int | None = None,
        temperature: float = 1.0,
        diversity: Diversity | None = None,
    ) -> Completions:
        """Results first .. first + k - 1 of a seed; otherwise as `Session.complete`."""
        check_size(self._img.shape, k)
        request = Request(k, seed, first, mode, primitive, temperature, diversity)
        return self.gather(request, lambda: None)

    def stream(
        self,
        *,
        k: int = 6,
        seed: int = 0,
        first: int = 0,
        mode: Mode = "categorical",
        primitive: int | None = None,
        temperature: float = 1.0,
        diversity: Diversity | None = None,
    ) -> Iterator[Completion]:
        """The results of `complete` one by one, in flat memory."""
        return self.one_by_one(Request(k, seed, first, mode, primitive, temperature, diversity))


class Encoded(Encoding):
    """A picture that was encoded once; made by `Session.encode`."""

    def __init__(
        self, loaded: Callable[[], Backend], primitives: int, img: Image, parts: list[Part]
    ):
        super().__init__(img)
        self._loaded, self._primitives, self._parts = loaded, primitives, parts

    @property
    def mixture(self) -> Mixture | None:
        """See `Encoding.mixture`; None where the hole was empty."""
        if not self._parts:
            return None
        return Mixture(*(self._parts[0].values[name].copy() for name in Mixture._fields))

    def gather(self, request: Request, go_on: GoOn) -> Completions:
        """See `Encoding.gather`."""
        request = request.checked(self._primitives)
        backend, end = self._loaded(), request.first + request.k
        done = np.empty((request.k, *self._img.shape), np.uint8)
        indices = np.arange(request.first, end, dtype=np.int64)
        if not self._parts:
            done[:] = self._img
            return Completions(done, indices, None, None)
        primitives, log_prob = np.empty(request.k, np.int32), np.empty(request.k, np.float32)
        every = _runs(request, backend.micro_batch)
        while runs := list(itertools.islice(every, _RUNS)):
            begin, stop = runs[0].start, runs[-1].stop
            drawn = self._sample(request, begin, stop - begin)
            for part, sample in zip(self._parts, drawn, strict=True):
                z = np.asarray(sample.z[0], np.float32)
                with contextlib.closing(self._fill(backend, part, runs, z, request, done)) as each:
                    for _ in each:
                        go_on()
            asked = _asked(request, range(begin, stop))
            here = slice(asked.start - request.first, asked.stop - request.first)
            there = slice(asked.start - begin, asked.stop - begin)
            primitives[here] = drawn[0].primitive[0, there]
            log_prob[here] = _joint(drawn)[there]
        return Completions(done, indices, primitives, log_prob)

    def one_by_one(self, request: Request) -> Iterator[Completion]:
        """See `Encoding.one_by_one`."""
        return self._results(self._loaded(), request.checked(self._primitives))

    def _results(self, backend: Backend, request: Request) -> Iterator[Completion]:
        """Algorithm 2, lines 3-7, each result as it is asked for."""
        size = backend.micro_batch
        decoders: list[Decoding] = []
        try:
            decoders += (backend.decoding(part.values, part.box) for part in self._parts)
            for run in _runs(request, size):
                drawn = self._sample(request, run.start, len(run))
                latents = [np.asarray(sample.z[0], np.float32) for sample in drawn]
                made = [
                    decode(_in_run(z, size)) for decode, z in zip(decoders, latents, strict=True)
                ]
                for decode, pictures in zip(decoders, made, strict=True):
                    output_checks.check_picture(pictures, decode.box)
                for index in _asked(request, run):
                    target, place = np.empty_like(self._img), index - run.start
                    self._paste([pictures[place] for pictures in made], target)
                    yield Completion(target, index, *_statistics(drawn, place))
        finally:
            for decode in decoders:
                decode.close()

    def _fill(
        self,
        backend: Backend,
        part: Part,
        runs: list[range],
        z: Float,
        request: Request,
        done: NDArray[np.uint8],
    ) -> Generator[None, None, None]:
        """Algorithm 2, lines 6-7, for one region of some results; yields after each run.

        Args:
            backend: What decodes.
            part: The region.
            runs: The latents of each run, by index.
            z: Latents, (n, D), from that of the first index on.
            request: What is asked.
            done: (k, H, W, 3), all results.
        """
        size = backend.micro_batch
        latents = [_in_run(z[run.start - runs[0].start :], size) for run in runs]
        decode = backend.decoding(part.values, part.box)

        def take(place: int, pictures: Float) -> None:
            output_checks.check_picture(pictures, decode.box)
            for index in _asked(request, runs[place]):
                picture = pictures[index - runs[place].start]
                self._paste_part(part, picture, done[index - request.first])

        try:
            with contextlib.closing(decode.each(latents, take)) as ended:
                yield from ended
        finally:
            decode.close()

    def _paste(self, pictures: list[Float], target: Image) -> None:
        """Writes one result."""
        if not self._parts:
            target[:] = self._img
        for part, picture in zip(self._parts, pictures, strict=True):
            self._paste_part(part, picture, target)

    def _paste_part(self, part: Part, picture: Float, target: Image) -> None:
        """Writes the hole of a region; with the first one the known pixels too."""
        known = self._img[None] if part is self._parts[0] else None
        kernels.composite(picture[None, None], known, [part.canvas], out=target[None, None])

    def _sample(self, request: Request, first: int, k: int) -> list[kernels.GmmSample]:
        """Algorithm 2, lines 4-5, for each region: the same noise, each region's own mixture."""
        return [
            kernels.sample_gmm(
                part.values["log_alpha"],
                part.values["mu"],
                part.values["log_sigma"],
                np.array([request.seed], np.uint64),
                k=k,
                first=first,
                mode=request.mode,
                primitive=request.primitive,
                temperature=request.temperature,
            )
            for part in self._parts
        ]


def encode(
    loaded: Callable[[], Backend],
    pixels: Image,
    hole: Hole,
    *,
    size: int,
    framed: Framing,
    primitives: int,
) -> Encoded:
    """Encodes a picture once: Algorithm 2, lines 1-2, for each of its regions.

    Args:
        loaded: Gives the backend, or raises where it was closed.
        pixels: (H, W, 3) uint8; copied.
        hole: (H, W) bool.
        size: Side of the network's picture.
        framed: How the network was trained.
        primitives: P.
    """
    backend, parts = loaded(), []
    for region in framing.regions(hole, size, framed):
        fitted = composite.fit(pixels, hole, region, size)
        values = backend.encode(fitted.image[None], fitted.hole[None])
        output_checks.check_values(values)
        values["hole"] = fitted.hole[None]
        canvas = composite.canvas(fitted, hole, region)
        parts.append(Part(values, canvas, composite.needed(canvas)))
    return Encoded(loaded, primitives, pixels.copy(), parts)


def _runs(request: Request, size: int) -> Iterator[range]:
    """The latents of each run, by index; one after the other, for there may be billions.

    Always `size` of them, latent i in place i mod size: no picture's bits can depend on k or first,
    whatever a backend's arithmetic does with a place in a batch. The last index there is ends one.
    """
    first, end = request.first, request.first + request.k
    for at in range(first - first % size, end, size):
        yield range(at, min(at + size, _INDICES))


def _asked(request: Request, run: range) -> range:
    """Those of some latents whose results are asked for."""
    return range(max(run.start, request.first), min(run.stop, request.first + request.k))


def _in_run(z: Float, size: int) -> Float:
    """(size, D): the first of some latents, over again where there are fewer."""
    return z[:size] if len(z) >= size else np.resize(z, (size, z.shape[1]))


def _statistics(drawn: list[kernels.GmmSample], i: int) -> tuple[int | None, float | None]:
    """The primitive of the largest region, and the joint log density of all regions."""
    if not drawn:
        return None, None
    return int(drawn[0].primitive[0, i]), float(_joint(drawn)[i])


def _joint(drawn: list[kernels.GmmSample]) -> NDArray[np.float32]:
    """(k,) joint log density of all regions, which share nothing but their noise."""
    each = [one.log_prob[0] for one in drawn if one.log_prob is not None]  # it was asked for
    found: NDArray[np.float32] = np.stack(each).sum(0, np.float64).astype(np.float32)
    return found


def check_size(shape: tuple[int, ...], k: int) -> None:
    """Refuses a k whose results would not fit, before any memory is taken.

    Args:
        shape: (H, W, 3) of the picture, or the number of all bytes of a batch.
        k: Results asked for; anything but an integer is left to `Request`.

    Raises:
        InputError: k results take more than `RESULT_BYTES`.
    """
    size = int(k) * math.prod(shape) if isinstance(k, (int, np.integer)) else 0
    if size > RESULT_BYTES:
        raise InputError(
            f"k = {k} results would take {size / 2**30:.1f} GiB, more than the "
            f"{RESULT_BYTES / 2**30:.0f} GiB of one call; ask for fewer, or use session.stream"
        )

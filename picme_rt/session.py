"""The runtime: one engine, loaded once, that completes pictures.

session = picme_rt.Session("engines/cats64")
done = session.complete(img, mask, k=6)
"""

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from picme_rt import backends, composite, framing, images, kernels
from picme_rt import engine as engines
from picme_rt.errors import ClosedError, InputError
from picme_rt.images import Float, Image, ImageLike
from picme_rt.kernels import Mode

RESULT_BYTES = 2 << 30
"""Most bytes that one call returns; `stream` has no such limit."""
STREAM_BLOCK = 16  # latents sampled at a time


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


@dataclasses.dataclass(frozen=True)
class Info:
    """What runs, and what `auto` chose.

    Attributes:
        engine: The engine's directory.
        name: The engine's name.
        backend: What runs the graphs.
        device: Where.
        precision: The engine's variant.
        sampler: `native` (compiled kernels) or `ref` (NumPy): the same bits.
        size: Side of the network's picture in pixels.
        framing: `aligned` or `free`.
        primitives: P of the mixture.
        latent: D of z_c.
        micro_batch: Latents a decoder call.
        sha256: Digest of each file of the variant in use.
        provenance: Training data, licence, commit and measures, as the engine says.
    """

    engine: str
    name: str
    backend: str
    device: str
    precision: str
    sampler: str
    size: int
    framing: str
    primitives: int
    latent: int
    micro_batch: int
    sha256: dict[str, str]
    provenance: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Request:
    """What is asked of the sampler, checked."""

    k: int
    seed: int
    first: int
    mode: Mode
    primitive: int | None
    temperature: float

    def __post_init__(self) -> None:
        for name, low in (("k", 1), ("first", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < low:
                raise InputError(f"{name} must be an integer of at least {low}, got {value!r}")
        if self.seed >= 1 << 64:
            raise InputError(f"seed must be below 2**64, got {self.seed}")
        if self.first + self.k > 1 << 32:
            raise InputError(f"first + k must be at most 2**32, got {self.first + self.k}")
        if self.mode not in get_args(Mode):
            raise InputError(f"mode must be one of {get_args(Mode)}, got {self.mode!r}")


class Session:
    """One engine, loaded; may be shared between threads; a context manager.

    Args:
        engine: The engine's directory.
        device: `auto` or `cpu`.
        backend: `auto` or `onnxruntime`.
        precision: `auto` or one of the engine's variants.

    Raises:
        EngineError: The engine is missing, damaged, newer or foreign.
        InputError: An unknown device, backend or precision.
        MissingPackageError: The backend's package is not installed; the message names the extra.
    """

    def __init__(
        self,
        engine: str | Path,
        *,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
    ):
        if not isinstance(engine, (str, Path)):
            raise InputError(f"engine must be the path of a directory, got {engine!r}")
        self._engine = engines.load(Path(engine))
        self._backend: backends.Backend | None = backends.load(
            self._engine, backend=backend, device=device, precision=precision
        )
        self._closing = threading.Lock()

    @property
    def info(self) -> Info:
        """What runs, and what `auto` chose."""
        engine, backend = self._engine, self._loaded()
        files = engine.variants[backend.precision].values()
        return Info(
            engine=str(engine.path),
            name=engine.name,
            backend=backend.name,
            device=backend.device,
            precision=backend.precision,
            sampler="native" if kernels.native_is_built() else "ref",
            size=engine.size,
            framing=engine.framing,
            primitives=engine.primitives,
            latent=engine.latent,
            micro_batch=backend.micro_batch,
            sha256={name: engine.files[name].sha256 for name in files},
            provenance=engine.provenance,
        )

    def complete(
        self,
        img: ImageLike,
        mask: ImageLike,
        *,
        k: int = 6,
        seed: int = 0,
        mode: Mode = "categorical",
        primitive: int | None = None,
        temperature: float = 1.0,
    ) -> Completions:
        """K completions of one picture.

        Latent i is a function of (seed, i) alone: never of k, batch, thread or device.

        Args:
            img: (H, W, 3) uint8 RGB of any size, or a PIL image.
            mask: (H, W), nonzero = hole, or a PIL image of one channel. The bytes of `img` under
                the hole are never read.
            k: Number of results, at least 1.
            seed: 0 to 2**64 - 1.
            mode: `categorical` draws the primitive of each result from alpha (Algorithm 2),
                `per_primitive` gives result i primitive i mod P (Fig. 11), `mean` gives the mean of
                the likeliest primitive, without noise.
            primitive: Draw every result from this primitive (App. C).
            temperature: Factor on the standard deviation of each primitive.

        Returns:
            `Completions`; an empty mask gives k copies of `img`.

        Raises:
            InputError: An argument is not as above, or the results would not fit `RESULT_BYTES`.
            ClosedError: The session is closed.
        """
        _check_size(img, k)
        encoded = self.encode(img, mask)
        return encoded.complete(
            k=k, seed=seed, mode=mode, primitive=primitive, temperature=temperature
        )

    def stream(
        self,
        img: ImageLike,
        mask: ImageLike,
        *,
        k: int = 6,
        seed: int = 0,
        mode: Mode = "categorical",
        primitive: int | None = None,
        temperature: float = 1.0,
    ) -> Iterator[Completion]:
        """The results of `complete` one by one, each as soon as it is ready, in flat memory."""
        encoded = self.encode(img, mask)
        return encoded.stream(
            k=k, seed=seed, mode=mode, primitive=primitive, temperature=temperature
        )

    def complete_batch(
        self,
        imgs: Sequence[ImageLike],
        masks: Sequence[ImageLike],
        *,
        k: int = 6,
        seed: int | Sequence[int] = 0,
        mode: Mode = "categorical",
        primitive: int | None = None,
        temperature: float = 1.0,
    ) -> list[Completions]:
        """Completes several pictures, of any sizes; entry b equals `complete` of picture b.

        Args:
            imgs: Pictures, as in `complete`.
            masks: One mask for each picture.
            k: Results a picture.
            seed: One seed for all, or a list with one a picture.
            mode: As in `complete`.
            primitive: As in `complete`.
            temperature: As in `complete`.

        Raises:
            InputError: As in `complete`, or the lengths differ.
        """
        seeds = [seed] * len(imgs) if isinstance(seed, (int, np.integer)) else list(seed)
        if not len(imgs) == len(masks) == len(seeds):
            raise InputError(
                "imgs, masks and seed must be of one length, "
                f"got {len(imgs)}, {len(masks)} and {len(seeds)}"
            )
        return [
            self.complete(
                img, mask, k=k, seed=one, mode=mode, primitive=primitive, temperature=temperature
            )
            for img, mask, one in zip(imgs, masks, seeds, strict=True)
        ]

    def encode(self, img: ImageLike, mask: ImageLike) -> "Encoded":
        """Encodes a picture once, to ask for completions as often as wanted.

        Args:
            img: As in `complete`.
            mask: As in `complete`.
        """
        backend = self._loaded()
        pixels = images.read_image(img)
        hole = images.read_mask(mask, pixels.shape[:2])
        parts = []
        for region in framing.regions(hole, self._engine.size, self._engine.framing):
            fitted = composite.fit(pixels, hole, region, self._engine.size)
            values = backend.encode(fitted.image[None], fitted.hole[None])
            values["hole"] = fitted.hole[None]
            parts.append(_Part(values, composite.Canvas(fitted, hole, region)))
        return Encoded(self, pixels.copy(), parts)

    def close(self) -> None:
        """Frees the engine; later calls raise `ClosedError`. Closing twice is allowed."""
        with self._closing:
            self._backend = None

    def _loaded(self) -> backends.Backend:
        backend = self._backend
        if backend is None:
            raise ClosedError("this session is closed; open another one with picme_rt.Session")
        return backend

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Part(NamedTuple):
    """One region of a picture: the encoder's outputs, and where its results go."""

    values: dict[str, Float]
    canvas: composite.Canvas


class Encoded:
    """A picture that was encoded once; made by `Session.encode`."""

    def __init__(self, session: Session, img: Image, parts: list[_Part]):
        self._session, self._img, self._parts = session, img, parts

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
        """Results first .. first + k - 1 of a seed; otherwise as `Session.complete`."""
        _check_size(self._img, k)
        request = _Request(k, seed, first, mode, primitive, temperature)
        done = np.empty((k, *self._img.shape), np.uint8)
        found = []
        for place, one in enumerate(self._run(request, into=done)):
            found.append((one.primitive, one.log_prob))
            assert one.index == first + place
        indices = np.arange(first, first + k, dtype=np.int64)
        if not self._parts:
            return Completions(done, indices, None, None)
        primitives, log_prob = zip(*found, strict=True)
        return Completions(
            done, indices, np.array(primitives, np.int32), np.array(log_prob, np.float32)
        )

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
        return self._run(_Request(k, seed, first, mode, primitive, temperature), into=None)

    def _run(self, request: _Request, into: NDArray[np.uint8] | None) -> Iterator[Completion]:
        """Algorithm 2, lines 3-7, in blocks; checks at once, computes as it is asked."""
        backend = self._session._loaded()
        self._sample(request, request.first, 1)  # refuses bad options before the first result
        return self._results(backend, request, into)

    def _results(
        self, backend: backends.Backend, request: _Request, into: NDArray[np.uint8] | None
    ) -> Iterator[Completion]:
        decoders = [backend.decoding(part.values) for part in self._parts]
        try:
            end = request.first + request.k
            for start in range(request.first, end, STREAM_BLOCK):
                count = min(STREAM_BLOCK, end - start)
                drawn = self._sample(request, start, count)
                for i in range(count):
                    place = start + i - request.first
                    target = np.empty_like(self._img) if into is None else into[place]
                    target[:] = self._img
                    for part, decode, sample in zip(self._parts, decoders, drawn, strict=True):
                        part.canvas.paste(decode(sample.z[0, i : i + 1])[0], target)
                    yield Completion(target, start + i, *_statistics(drawn, i))
        finally:
            for decode in decoders:
                decode.close()

    def _sample(self, request: _Request, first: int, k: int) -> list[kernels.GmmSample]:
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


def _statistics(drawn: list[kernels.GmmSample], i: int) -> tuple[int | None, float | None]:
    """The primitive of the largest region, and the joint log density of all regions."""
    if not drawn:
        return None, None
    return int(drawn[0].primitive[0, i]), float(sum(one.log_prob[0, i] for one in drawn))


def _check_size(img: ImageLike, k: int) -> None:
    """Refuses a k whose results would not fit, before any memory is taken."""
    shape = np.shape(img) if isinstance(img, np.ndarray) else getattr(img, "size", ())
    if not isinstance(k, (int, np.integer)) or not isinstance(shape, tuple) or len(shape) < 2:
        return  # refused with its own message by the reader of that argument
    size = int(k) * int(shape[0]) * int(shape[1]) * 3
    if size > RESULT_BYTES:
        raise InputError(
            f"k = {k} results would take {size / 2**30:.1f} GiB, more than the "
            f"{RESULT_BYTES / 2**30:.0f} GiB of one call; ask for fewer, or use session.stream"
        )

"""The runtime: one engine, loaded once, that completes pictures.

session = picme_rt.Session("engines/cats128")
done = session.complete(img, mask, k=6)
"""

import dataclasses
import numbers
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from picme_rt import backends, choices, encoded, images, kernels, pipeline
from picme_rt import engine as engines
from picme_rt.compiled import check_integer
from picme_rt.encoded import Completion, Completions, Encoded, Request, check_size
from picme_rt.errors import ClosedError, InputError
from picme_rt.images import ImageLike
from picme_rt.kernels import Mode
from picme_rt.pipeline import GoOn
from picme_rt.turns import Turns

_LONGEST_WAIT = 86_400_000  # a day
_BATCH_AT_ONCE = 2  # so one picture is fitted or pasted while another is decoded


@dataclasses.dataclass(frozen=True)
class Info:
    """What runs, and what `auto` chose.

    Attributes:
        engine: The engine's directory.
        name: The engine's name.
        backend: What runs the graphs.
        chosen_by: Why this backend: `asked` for by name, `measured` as the fastest on this machine
            (`picme bench --tune`), or `default`, the first that is installed.
        device: Where.
        precision: What the decoder is computed in: a variant of the engine, or bf16 made of fp32.
        threads: Threads that the backend computes with.
        sampler: `native` (compiled kernels) or `ref` (NumPy): the same bits.
        composite: What pastes the results: `native` or `ref`, the same bits.
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
    chosen_by: str
    device: str
    precision: str
    threads: int
    sampler: str
    composite: str
    size: int
    framing: str
    primitives: int
    latent: int
    micro_batch: int
    sha256: dict[str, str]
    provenance: dict[str, Any]


class Session:
    """One engine, loaded; may be shared between threads; a context manager.

    Args:
        engine: The engine's directory.
        device: `auto` or `cpu`.
        backend: `onnxruntime`, `openvino`, or `auto`: the fastest that `picme bench --tune` found
            with this engine on this machine, else the first of these two that is installed.
        precision: One of the engine's variants, such as `int8`, or `bf16` (openvino): up to a few
            levels from fp32 in the hole, with the same primitives and log probabilities. `auto` is
            fp32, or what `picme bench --tune --lower` found and nobody sees (`picme_rt.quality`).
        threads: Threads that one run of the backend computes with, 1 to 4096; None is what was
            measured, else one for each physical core. With 1, calls of several threads share the
            cores best; a single call takes longer. Results may differ in a level with another
            number, and `info` says it.
        max_wait_ms: Most milliseconds that a run waits for its turn while as many calls compute as
            there are cores; then it goes ahead beside them. None waits, oldest first; 0 never does.
            No result depends on it.

    Raises:
        EngineError: The engine is missing, damaged, newer or foreign.
        InputError: An unknown device, backend or precision, or a number out of its range.
        MissingPackageError: The backend's package is not installed; the message names the extra.
        UnavailableError: This CPU does not compute in the precision.
    """

    def __init__(
        self,
        engine: str | Path,
        *,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        max_wait_ms: float | None = None,
    ):
        if not isinstance(engine, (str, Path)):
            raise InputError(f"engine must be the path of a directory, got {engine!r}")
        if threads is not None:
            threads = check_integer("threads", threads, 1, choices.MOST_THREADS)
        longest = None if max_wait_ms is None else 1e-3 * _check_wait(max_wait_ms)
        self._engine = engines.load(Path(engine))
        chosen = backends.choose(self._engine, backend=backend, device=device, precision=precision)
        self._chosen_by = chosen.by
        settings = chosen.settings
        if threads is not None:
            settings = dataclasses.replace(settings, threads=threads)
        turns = Turns(choices.cores(), longest)
        self._backend: backends.Backend | None = backends.load(self._engine, settings, turns)

    @property
    def info(self) -> Info:
        """What runs, and what `auto` chose."""
        engine, backend = self._engine, self._loaded()
        files = engine.variants[backend.variant].values()
        return Info(
            engine=str(engine.path),
            name=engine.name,
            backend=backend.name,
            chosen_by=self._chosen_by,
            device=backend.device,
            precision=backend.precision,
            threads=backend.threads,
            sampler="native" if kernels.native_is_built() else "ref",
            composite="native" if kernels.native_is_built() else "ref",
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
        pixels = images.read_image(img)
        check_size(pixels.shape, k)
        return self.encode(pixels, mask).complete(
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
        return self.encode(img, mask).stream(
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
        self._loaded()  # a closed session says so for an empty batch too
        for name, value in (("imgs", imgs), ("masks", masks)):
            if not isinstance(value, (Sequence, np.ndarray)):
                raise InputError(
                    f"{name} must be a list of pictures, got {type(value).__name__}; for one "
                    "picture use session.complete"
                )
        seeds = list(seed) if isinstance(seed, (Sequence, np.ndarray)) else [seed] * len(imgs)
        if not len(imgs) == len(masks) == len(seeds):
            raise InputError(
                "imgs, masks and seed must be of one length, "
                f"got {len(imgs)}, {len(masks)} and {len(seeds)}"
            )
        pictures = [images.read_image(img) for img in imgs]
        check_size((sum(picture.size for picture in pictures),), k)

        def work(place: int, go_on: GoOn) -> Completions:
            request = Request(k, seeds[place], 0, mode, primitive, temperature)
            return self.encode(pictures[place], masks[place]).gather(request, go_on)

        at_once = min(_BATCH_AT_ONCE, choices.cores())
        return list(pipeline.in_order(work, range(len(pictures)), at_once=at_once))

    def encode(self, img: ImageLike, mask: ImageLike) -> Encoded:
        """Encodes a picture once, to ask for completions as often as wanted.

        Args:
            img: As in `complete`.
            mask: As in `complete`.
        """
        self._loaded()  # a closed session says so, whatever it is given
        pixels = images.read_image(img)
        return encoded.encode(
            self._loaded,
            pixels,
            images.read_mask(mask, pixels.shape[:2]),
            size=self._engine.size,
            framed=self._engine.framing,
            primitives=self._engine.primitives,
        )

    def close(self) -> None:
        """Frees the engine; later calls raise `ClosedError`. Closing twice is allowed."""
        self._backend = None

    def _loaded(self) -> backends.Backend:
        backend = self._backend
        if backend is None:
            raise ClosedError("this session is closed; open another one with picme_rt.Session")
        return backend

    def __enter__(self) -> Self:
        self._loaded()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_wait(value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (float, numbers.Real))
        or not 0 <= float(value) <= _LONGEST_WAIT
    ):
        raise InputError(
            f"max_wait_ms must be a number from 0 to {_LONGEST_WAIT} or None, got {value!r}; "
            "None waits for its turn however long that takes"
        )
    return float(value)

"""The runtime: one engine, loaded once, that completes pictures.

session = picme_rt.Session("engines/cats256")
done = session.complete(img, mask, k=6)
"""

import numbers
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, Self, cast, overload

import numpy as np

from picme_rt import choices, devices, images, pipeline
from picme_rt.compiled import check_integer
from picme_rt.encoded import Completion, Completions, Diversity, Encoding, Request, check_size
from picme_rt.engine import kind_of
from picme_rt.errors import InputError
from picme_rt.images import ImageLike
from picme_rt.kernels import Mode
from picme_rt.models import Info, Model, OnDevice, TakesBatches, open_engine
from picme_rt.pipeline import GoOn
from picme_rt.turns import Turns

if TYPE_CHECKING:
    from picme_rt.device_model import DeviceCompletions

PATCH = "patch"
_LONGEST_WAIT = 86_400_000  # a day
_BATCH_AT_ONCE = 2  # so one picture is fitted or pasted while another is decoded


class Session:
    """One engine, loaded; may be shared between threads; a context manager.

    Args:
        engine: The engine's directory, or the word `patch`: the hole is filled with patches of the
            picture itself, without any engine (docs/patch.md). A directory of that name: `./patch`.
        device: `cpu`, `cuda` (the first GPU), `cuda:N`, or `auto`: the CPU; the first GPU with
            backend tensorrt.
        backend: `onnxruntime`, `openvino` (the CPU alone), `torch`, or `auto`: on the CPU the
            fastest that `picme bench --tune` found with this engine on this machine, else the first
            of the first two that is installed; on a GPU the first that finds it. Or `tensorrt`,
            which `auto` never takes: it needs plans (`picme export --target`).
        precision: One of the engine's variants, such as `int8`, or what a backend makes of fp32:
            `bf16` (openvino, torch), and on a GPU `fp16` and `tf32` (torch). In the first three up
            to a few levels from fp32 in the hole, with the same primitives and log probabilities.
            `auto` is fp32, or what `picme bench --tune --lower` found and nobody sees
            (`picme_rt.quality`).
        threads: Threads that one run of the backend computes with, 1 to 4096; None is what was
            measured, else one for each physical core; and one a run, where that changes no bit (not
            on torch), while as many calls of `complete` are in work as there are cores, or while
            the results of one that is alone go side by side. Results may differ in a level with
            another number, and `info` says it. A GPU computes one call at a time, whatever it is.
        max_wait_ms: Most milliseconds that a run waits for its turn while as many calls compute as
            there are cores; then it goes ahead beside them. None waits, oldest first; 0 never does.
            On the CPU alone.
            No result depends on it.

    Raises:
        EngineError: The engine is missing, damaged, newer or foreign.
        InputError: An unknown device, backend or precision, or a number out of its range.
        MissingPackageError: The backend's package is not installed; the message names the extra.
        UnavailableError: This CPU does not compute in the precision; or the GPU, its driver or a
            library for it is missing.
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
        # one more than can compute: the buffers of eight calls in turn would be in no cache
        self._calls = Turns(choices.cores() + 1, longest)
        if engine == PATCH:
            from picme_rt import patch_model

            patch_model.check(device, backend, precision, max_wait_ms)
            self._model: Model = patch_model.PatchModel(threads or choices.cores())
            return
        on_gpu = backend == "tensorrt" or devices.parse(device) != devices.CPU
        if on_gpu and longest is not None:
            raise InputError(
                f"max_wait_ms must be None on a GPU, got {max_wait_ms!r}: it takes one run at a "
                "time, oldest first"
            )
        if kind_of(Path(engine)) == "idc":
            from picme_rt import pyramid_model

            self._model = pyramid_model.PyramidModel(
                Path(engine),
                device=device,
                backend=backend,
                precision=precision,
                threads=threads,
                turns=Turns(choices.cores(), longest),
            )
            return
        if backend == "tensorrt":
            from picme_rt import device_model

            self._model = device_model.open_model(Path(engine), device=device, precision=precision)
            return
        self._model = open_engine(
            Path(engine),
            device=device,
            backend=backend,
            precision=precision,
            threads=threads,
            turns=Turns(choices.cores(), longest),
            calls=self._calls,
        )

    @property
    def info(self) -> Info:
        """What runs, and what `auto` chose."""
        return self._model.info()

    @overload
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
        diversity: Diversity | None = None,
        device_output: Literal[False] = False,
    ) -> Completions: ...

    @overload
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
        diversity: Diversity | None = None,
        device_output: Literal[True],
    ) -> "DeviceCompletions": ...

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
        diversity: Diversity | None = None,
        device_output: bool = False,
    ) -> "Completions | DeviceCompletions":
        """K completions of one picture.

        Latent i is a function of (seed, i) alone: never of k, batch, thread or device.

        Args:
            img: (H, W, 3) uint8 RGB of any size, or a PIL image without transparent pixels, upright
                (`PIL.ImageOps.exif_transpose`).
            mask: (H, W), nonzero = hole, or a PIL image of one channel; with several greys over 127
                is hole. The bytes of `img` under the hole are never read.
            k: Number of results, at least 1.
            seed: 0 to 2**64 - 1.
            mode: `categorical` draws the primitive of each result from alpha (Algorithm 2),
                `per_primitive` gives result i primitive i mod P (Fig. 11), `mean` gives the mean of
                the likeliest primitive, without noise.
            primitive: Draw every result from this primitive (App. C).
            temperature: Factor on the standard deviation of each primitive.
            diversity: Of engines of kind `idc` alone: `low`, `mid` (which None is) or `high`, or at
                how many places from the known ones, at every scale, noise begins (7, 4 and 0).
            device_output: Whether the pictures stay on the GPU, as an array with
                `__cuda_array_interface__` and DLPack; with backend tensorrt alone.

        Returns:
            `Completions`; an empty mask gives k copies of `img`.

        Raises:
            InputError: An argument is not as above, or the results would not fit `RESULT_BYTES`.
            ClosedError: The session is closed.
        """
        self._model.info()  # a closed session says so, whatever it is given
        pixels = images.read_image(img)
        check_size(pixels.shape, k)
        with self._calls:
            encoded = self.encode(pixels, mask)
            asked = Request(k, seed, 0, mode, primitive, temperature, diversity)
            if not device_output:
                return encoded.complete(**asked._asdict())
            if isinstance(encoded, OnDevice):
                return encoded.on_device(asked)
        raise InputError(f"device_output must go with backend tensorrt, got {self.info.backend}")

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
        diversity: Diversity | None = None,
    ) -> Iterator[Completion]:
        """The results of `complete` one by one, each as soon as it is ready, in flat memory."""
        return self.encode(img, mask).stream(
            k=k,
            seed=seed,
            mode=mode,
            primitive=primitive,
            temperature=temperature,
            diversity=diversity,
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
        diversity: Diversity | None = None,
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
            diversity: As in `complete`.

        Raises:
            InputError: As in `complete`, or the lengths differ.
        """
        self._model.info()  # a closed session says so for an empty batch too
        for name, value in (("imgs", imgs), ("masks", masks)):
            if not isinstance(value, (Sequence, np.ndarray)):
                raise InputError(
                    f"{name} must be a list of pictures, got {type(value).__name__}; for one "
                    "picture use session.complete"
                )
        if isinstance(seed, np.ndarray) and seed.ndim == 0:
            seed = seed.item()
        seeds = list(seed) if isinstance(seed, (Sequence, np.ndarray)) else [seed] * len(imgs)
        if not len(imgs) == len(masks) == len(seeds):
            raise InputError(
                "imgs, masks and seed must be of one length, "
                f"got {len(imgs)}, {len(masks)} and {len(seeds)}"
            )
        pictures = [images.read_image(img) for img in imgs]
        check_size((sum(picture.size for picture in pictures),), k)

        if isinstance(self._model, TakesBatches):
            holes = [
                images.read_mask(mask, picture.shape[:2])
                for mask, picture in zip(masks, pictures, strict=True)
            ]
            asked = [Request(k, one, 0, mode, primitive, temperature, diversity) for one in seeds]
            return self._model.complete_together(pictures, holes, asked)

        def work(place: int, go_on: GoOn) -> Completions:
            request = Request(k, seeds[place], 0, mode, primitive, temperature, diversity)
            with self._calls:
                return self.encode(pictures[place], masks[place]).gather(request, go_on)

        at_once = min(_BATCH_AT_ONCE, choices.cores())
        return list(pipeline.in_order(work, range(len(pictures)), at_once=at_once))

    def encode(self, img: ImageLike, mask: ImageLike) -> Encoding:
        """Encodes a picture once, to ask for completions as often as wanted.

        Args:
            img: As in `complete`.
            mask: As in `complete`.
        """
        self._model.info()  # a closed session says so, whatever it is given
        pixels = images.read_image(img)
        return self._model.encode(pixels, images.read_mask(mask, pixels.shape[:2]))

    def close(self) -> None:
        """Frees the engine; later calls raise `ClosedError`. Closing twice is allowed."""
        self._model.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a picme_rt.Session cannot be copied or sent to another process; open one in each "
            "process, and share it between threads"
        )

    def __enter__(self) -> Self:
        self._model.info()
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
        or not 0 <= cast(float, value) <= _LONGEST_WAIT
    ):
        raise InputError(
            f"max_wait_ms must be a number from 0 to {_LONGEST_WAIT} or None, got {value!r}; "
            "None waits for its turn however long that takes"
        )
    return float(value)

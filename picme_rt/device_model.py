"""An engine whose every step from encoder to composite runs on one GPU, under TensorRT.

The host fits pictures to the engine's square and works out canvases; the rest is `DeviceRun`.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picme_rt import composite, cuda_launch, cuda_runtime, framing, plans
from picme_rt import engine as engines
from picme_rt.backends import tensorrt_library
from picme_rt.composite_cuda import composite_cuda
from picme_rt.device_array import DeviceArray
from picme_rt.device_buffers import shares
from picme_rt.device_pipeline import DevicePipeline, Found, Job, Part
from picme_rt.device_run import Kernels
from picme_rt.encoded import Completion, Completions, Encoding, Mixture, Request
from picme_rt.engine import Engine
from picme_rt.errors import InputError
from picme_rt.images import Hole, Image
from picme_rt.models import Info
from picme_rt.pipeline import GoOn
from picme_rt.sampling_cuda import sample_gmm_cuda

BACKEND = "tensorrt"


class DeviceCompletions(NamedTuple):
    """The fields of `Completions`, the pictures left on the GPU."""

    images: DeviceArray
    indices: NDArray[np.int64]
    primitives: NDArray[np.int32] | None
    log_prob: NDArray[np.float32] | None


class DeviceEncoded(Encoding):
    """A picture made ready for the GPU; every call runs encoder and decoder in one graph.

    Args:
        pipeline: The engine on the GPU.
        primitives: P.
        img: (H, W, 3) uint8, the original.
        parts: Its regions; none if the hole is empty.
    """

    def __init__(
        self, pipeline: DevicePipeline, primitives: int, img: Image, parts: Sequence[Part]
    ):
        super().__init__(img)
        self._pipeline, self._primitives, self.parts = pipeline, primitives, parts

    @property
    def mixture(self) -> Mixture | None:
        """See `Encoding.mixture`; the encoder runs for it."""
        return self._pipeline.mixture(self.job(0)) if self.parts else None

    def job(self, seed: int) -> Job:
        """What a run takes of it."""
        return Job(self._img, self.parts, seed)

    def gather(self, request: Request, go_on: GoOn) -> Completions:
        """See `Encoding.gather`: as few runs as the plan allows."""
        request = request.checked(self._primitives)
        indices = np.arange(request.first, request.first + request.k, dtype=np.int64)
        if not self.parts:
            go_on()
            return Completions(np.repeat(self._img[None], request.k, 0), indices, None, None)
        found = []
        for each in self._chunks(request):
            found.append(self._pipeline.run([self.job(request.seed)], each))
            go_on()
        return Completions(
            np.concatenate([one.images[0] for one in found if one.images is not None]),
            indices,
            *_statistics(found, 0),
        )

    def one_by_one(self, request: Request) -> Iterator[Completion]:
        """See `Encoding.one_by_one`: in flat memory, a run at a time."""
        request = request.checked(self._primitives)
        return self._each(request)

    def on_device(self, request: Request) -> DeviceCompletions:
        """`complete` whose pictures stay on the GPU.

        Raises:
            InputError: k is more than the plan's: what stays is made in one run.
        """
        request = request.checked(self._primitives)
        indices = np.arange(request.first, request.first + request.k, dtype=np.int64)
        if not self.parts:
            copies = np.repeat(self._img[None], request.k, 0)
            return DeviceCompletions(self._pipeline.upload(copies), indices, None, None)
        if request.k > (most := self._pipeline.options.max_k):
            raise InputError(
                f"k must be at most {most} with device_output, got {request.k}: ask again with "
                "first, or build plans with a larger --max-k"
            )
        images, found = self._pipeline.keep(self.job(request.seed), request)
        return DeviceCompletions(images, indices, *_statistics([found], 0))

    def _chunks(self, request: Request) -> Iterator[Request]:
        first = request.first
        for k in shares(request.k, self._pipeline.options.max_k):
            yield request._replace(k=k, first=first)
            first += k

    def _each(self, request: Request) -> Iterator[Completion]:
        for each in self._chunks(request):
            part = self.gather(each, lambda: None)
            for i in range(each.k):
                primitive = None if part.primitives is None else int(part.primitives[i])
                log_prob = None if part.log_prob is None else float(part.log_prob[i])
                yield Completion(part.images[i].copy(), each.first + i, primitive, log_prob)


class DeviceModel:
    """An engine on one GPU (`models.Model`).

    Args:
        engine: The engine.
        pipeline: Its plans, loaded.
        precision: Theirs.
    """

    def __init__(self, engine: Engine, pipeline: DevicePipeline, precision: str):
        self._engine, self._pipeline, self._precision = engine, pipeline, precision

    def info(self) -> Info:
        """See `Model.info`."""
        self._pipeline.check_open()
        engine = self._engine
        files = plans.sources(engine, self._precision).values()
        return Info(
            engine=str(engine.path),
            name=engine.name,
            backend=BACKEND,
            chosen_by="asked",
            device=f"cuda:{self._pipeline.device.number}",
            precision=self._precision,
            threads=1,
            sampler="cuda",
            composite="cuda",
            size=engine.size,
            framing=engine.framing,
            primitives=engine.primitives,
            latent=engine.latent,
            micro_batch=self._pipeline.options.max_k,
            sha256={name: engine.files[name].sha256 for name in files},
            provenance=engine.provenance,
        )

    def encode(self, pixels: Image, hole: Hole) -> DeviceEncoded:
        """See `Model.encode`; nothing is on the GPU yet."""
        parts = []
        for region in framing.regions(hole, self._engine.size, self._engine.framing):
            fitted = composite.fit(pixels, hole, region, self._engine.size)
            parts.append(Part(fitted, composite.canvas(fitted, hole, region)))
        return DeviceEncoded(self._pipeline, self._engine.primitives, pixels.copy(), parts)

    def complete_together(
        self, pictures: Sequence[Image], holes: Sequence[Hole], requests: Sequence[Request]
    ) -> list[Completions]:
        """Completes several pictures, those of one size in one run.

        Args:
            pictures: (H, W, 3) uint8 each.
            holes: (H, W) bool each.
            requests: One each, equal but for the seed.
        """
        made = [self.encode(*both) for both in zip(pictures, holes, strict=True)]
        alike: dict[tuple[object, ...], list[int]] = {}
        for i, (one, picture) in enumerate(zip(made, pictures, strict=True)):
            alike.setdefault((picture.shape, len(one.parts)), []).append(i)
        done: dict[int, Completions] = {}
        for (_, regions), places in alike.items():
            if not regions:
                done |= {i: made[i].gather(requests[i], lambda: None) for i in places}
                continue
            most = self._pipeline.options.max_batch
            for start in range(0, len(places), most):
                some = places[start : start + most]
                done |= self._batch({i: made[i] for i in some}, {i: requests[i] for i in some})
        return [done[i] for i in range(len(made))]

    def close(self) -> None:
        """See `Model.close`."""
        self._pipeline.close()

    def _batch(
        self, made: dict[int, DeviceEncoded], requests: dict[int, Request]
    ) -> dict[int, Completions]:
        """Pictures of one size and equally many regions, in one run for each chunk of k."""
        checked = {i: one.checked(self._engine.primitives) for i, one in requests.items()}
        jobs = [one.job(checked[i].seed) for i, one in made.items()]
        request = next(iter(checked.values()))
        first, found = request.first, []
        for k in shares(request.k, self._pipeline.options.max_k):
            found.append(self._pipeline.run(jobs, request._replace(k=k, first=first)))
            first += k
        indices = np.arange(request.first, first, dtype=np.int64)
        return {
            i: Completions(
                np.concatenate([one.images[row] for one in found if one.images is not None]),
                indices.copy(),
                *_statistics(found, row),
            )
            for row, i in enumerate(made)
        }


def _statistics(found: Sequence[Found], row: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Primitives and log probabilities of one picture."""
    return (
        np.concatenate([one.primitives[row] for one in found]),
        np.concatenate([one.log_prob[row] for one in found]),
    )


def open_model(path: Path, *, device: str, precision: str) -> DeviceModel:
    """Opens an engine on a GPU.

    Args:
        path: The engine's directory.
        device: `auto`, `cuda` or `cuda:N`.
        precision: One of its plans, or `auto`: fp32.

    Raises:
        EngineError: The engine or a plan is missing, damaged, stale or foreign; the message has the
            command that builds it.
        InputError: An unknown device or precision.
        MissingPackageError: TensorRT or cuda-python is not installed.
        UnavailableError: There is no driver or GPU, or kernels are built without CUDA.
    """
    named = device if isinstance(device, str) else ""  # it is a user's
    if not (found := re.fullmatch(r"auto|cuda(:(\d{1,3}))?", named)):
        raise InputError(
            f"device must be auto, cuda or cuda:N with backend {BACKEND}, got {device!r}"
        )
    engine = engines.load(path)
    precision = "fp32" if precision == "auto" else precision
    plans.sources(engine, precision)
    library = tensorrt_library.installed()
    cuda = cuda_runtime.load(int(found[2] or 0))
    for kernel in ("sample_gmm_cuda", "composite_cuda"):
        cuda_launch.find(kernel)
    gpu = cuda.device()
    built = plans.find(
        engine,
        library=library.name,
        version=library.version,
        gpus=plans.gpus(library.name, gpu.capability, gpu.name),
        precision=precision,
    )
    kernels = Kernels(sample_gmm_cuda, composite_cuda)
    return DeviceModel(engine, DevicePipeline(engine, cuda, library, built, kernels), precision)

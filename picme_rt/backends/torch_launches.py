"""The kernels between and after the two networks, on torch's tensors: on a GPU, and on the CPU.

Both give the same latents and the same bytes, to the bit (docs/sampling.md, docs/compositing.md).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from picme_rt import kernels
from picme_rt.composite import Canvas
from picme_rt.composite_cuda import composite_cuda
from picme_rt.encoded import Request
from picme_rt.packed_canvases import PackedCanvases
from picme_rt.sampling_cuda import sample_gmm_cuda


class Drawn(NamedTuple):
    """Where latents of B pictures are written.

    Attributes:
        z: (B, n, D) float32.
        primitive: (B, n) int32.
        log_prob: (B, n) float32.
    """

    z: Tensor
    primitive: Tensor
    log_prob: Tensor


class Frames(NamedTuple):
    """Where the results of B regions go.

    Attributes:
        canvases: One a region.
        packed: The same for a GPU.
        data: (N,) uint8 on the device, `packed.data`.
    """

    canvases: Sequence[Canvas]
    packed: PackedCanvases
    data: Tensor


class Launches(Protocol):
    """Queues the two kernels.

    Attributes:
        name: As `Info.sampler` calls it.
    """

    name: str

    def sample(self, mixture: Sequence[Tensor], seeds: Tensor, asked: Request, into: Drawn) -> None:
        """Latents asked.first on, as many as `into` has places (Algorithm 2, lines 4-5)."""
        ...

    def paste(
        self, pictures: Tensor, originals: Tensor | None, frames: Frames, out: Tensor
    ) -> None:
        """Pictures (B, k, 3, S, S) into out (B, k, H, W, 3), which has the known pixels if None."""
        ...


class OnGpu:
    """See `Launches`.

    Args:
        stream: Where everything is queued.
    """

    name = "cuda"

    def __init__(self, stream: torch.cuda.Stream):
        self._stream = stream.cuda_stream

    def sample(self, mixture: Sequence[Tensor], seeds: Tensor, asked: Request, into: Drawn) -> None:
        """See `Launches`."""
        log_alpha, mu, log_sigma = mixture
        sample_gmm_cuda(
            log_alpha,
            mu,
            log_sigma,
            seeds,
            k=into.z.shape[1],
            first=asked.first,
            mode=asked.mode,
            primitive=asked.primitive,
            temperature=asked.temperature,
            out_z=into.z,
            out_primitive=into.primitive,
            out_log_prob=into.log_prob,
            stream=self._stream,
        )

    def paste(
        self, pictures: Tensor, originals: Tensor | None, frames: Frames, out: Tensor
    ) -> None:
        """See `Launches`."""
        scratch = frames.packed.scratch_shape(pictures.shape[1])
        if pictures.dtype == torch.bfloat16:  # not every torch names it as others do
            pictures = pictures.view(torch.uint16)
        composite_cuda(
            pictures,
            originals,
            frames.packed,
            frames.data,
            out=out,
            scratch=torch.empty(scratch, device=pictures.device),
            stream=self._stream,
        )


class OnHost:
    """See `Launches`: the kernels of the CPU, which run at once."""

    name = "native" if kernels.native_is_built() else "ref"

    def sample(self, mixture: Sequence[Tensor], seeds: Tensor, asked: Request, into: Drawn) -> None:
        """See `Launches`."""
        log_alpha, mu, log_sigma = (part.numpy() for part in mixture)
        drawn = kernels.sample_gmm(
            log_alpha,
            mu,
            log_sigma,
            seeds.numpy(),
            k=into.z.shape[1],
            first=asked.first,
            mode=asked.mode,
            primitive=asked.primitive,
            temperature=asked.temperature,
        )
        for place, found in zip(into, drawn, strict=True):
            assert isinstance(found, np.ndarray)  # log_prob was asked for
            place.copy_(torch.from_numpy(found))

    def paste(
        self, pictures: Tensor, originals: Tensor | None, frames: Frames, out: Tensor
    ) -> None:
        """See `Launches`."""
        kernels.composite(
            pictures.float().numpy(),
            None if originals is None else originals.numpy(),
            frames.canvases,
            out=out.numpy(),
        )

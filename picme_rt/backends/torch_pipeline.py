"""Bytes in, bytes out on one device: upload, encode, sample, decode, paste, download.

Everything is queued on one stream, and the host waits once a block of results. Encoder and decoder
are recorded, each of one shape: B pictures, and n latents of each. What differs from call to call
(first index, mode, temperature, the picture's size) belongs to the two kernels, which are queued
beside them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from picme_rt import packed_canvases
from picme_rt.backends.torch_launches import Drawn, Frames, Launches
from picme_rt.backends.torch_network import Network
from picme_rt.backends.torch_recording import Recorder, reported
from picme_rt.composite import Canvas, Fit
from picme_rt.encoded import Mixture, Request
from picme_rt.images import Float
from picme_rt.tensors import Tables
from picme_rt.turns import Turns

_LAST_INDEX = 1 << 32


class Layer(NamedTuple):
    """One region of each of B pictures, on the device: what the encoder gave, where results go."""

    values: dict[str, Tensor]
    frames: Frames


class Block(NamedTuple):
    """Results of B pictures, on the host.

    Attributes:
        images: (B, k, H, W, 3) uint8.
        primitive: (B, k) int32, of the first layer.
        log_prob: (B, k) float32, the sum over the layers.
        extremes: The largest magnitude of log_alpha, and of the pictures; NaN if any is.
    """

    images: NDArray[np.uint8]
    primitive: NDArray[np.int32]
    log_prob: Float
    extremes: tuple[float, float]


class Pipeline:
    """One engine on one device; a block of results at a time.

    Args:
        encoder: The first graph.
        decoder: The second.
        tables: Their inputs and outputs.
        rows: The decoder's input `box`, of the whole picture; None if it has none.
        pictures: B.
        latents: n.
        recorder: How work gets to the device.
        launches: The kernels there.
    """

    def __init__(
        self,
        encoder: Network,
        decoder: Network,
        tables: Tables,
        *,
        rows: NDArray[np.int64] | None,
        pictures: int,
        latents: int,
        recorder: Recorder,
        launches: Launches,
    ):
        self._encoder, self._decoder, self._rows = encoder, decoder, rows
        self.pictures, self.latents, self.launches = pictures, latents, launches
        self._recorder, self._turns = recorder, Turns(1)  # its tensors are one call's at a time
        with recorder.queueing():
            self._held = {
                tensor.name: torch.zeros((pictures, *tensor.shape), device=recorder.place)
                for tensor in (*tables.encoder.inputs, *tables.encoder.outputs)
            }
            side = tables.decoder.outputs[0].shape
            dim = tables.decoder.inputs[0].shape[0]
            # what a first, empty run decodes must not be NaN: the extremes are looked at
            self._drawn = Drawn(
                torch.zeros((pictures, latents, dim), device=recorder.place),
                torch.zeros((pictures, latents), dtype=torch.int32, device=recorder.place),
                torch.zeros((pictures, latents), device=recorder.place),
            )
            self._made = torch.zeros(
                (pictures, latents, *side), dtype=decoder.dtype, device=recorder.place
            )
            self._extremes = torch.zeros(2, device=recorder.place)
        self._taken = [t.name for t in tables.decoder.inputs if t.batched and t.name != "z"]
        self._given = [t.name for t in tables.encoder.outputs]
        self._encode = recorder.record(self._call_encoder, encoder.precision)
        self._decode = recorder.record(self._call_decoder, decoder.precision)

    @reported()
    def encode(self, fits: Sequence[Fit], canvases: Sequence[Canvas]) -> Layer:
        """Queues Algorithm 2, lines 1-2, for one region of each of B pictures."""
        packed = packed_canvases.pack(canvases)
        with self._turns, self._recorder.queueing():
            self._held["image"].copy_(self._uploaded(np.stack([one.image for one in fits])))
            self._held["hole"].copy_(self._uploaded(np.stack([one.hole for one in fits])))
            self._encode()
            values = {name: self._held[name].clone() for name in (*self._given, "hole")}
            data = self._uploaded(packed.data)
        return Layer(values, Frames(canvases, packed, data))

    @reported()
    def mixture(self, layer: Layer) -> Mixture:
        """What latents of a layer are drawn from."""
        with self._recorder.queueing():
            return Mixture(*(layer.values[name].cpu().numpy() for name in Mixture._fields))

    @reported()
    def complete(
        self,
        layers: Sequence[Layer],
        originals: NDArray[np.uint8],
        asked: Request,
        seeds: NDArray[np.uint64],
        wanted: range,
    ) -> Block:
        """Algorithm 2, lines 3-7, for results `wanted` of the n from asked.first on.

        Args:
            layers: The regions of each picture, largest first.
            originals: (B, H, W, 3).
            asked: Its mode, primitive, temperature and first; first is a multiple of n.
            seeds: (B,).
            wanted: Places among the n, one after the other.
        """
        shape = (self.pictures, len(wanted), *originals.shape[1:])
        with self._turns, self._recorder.queueing():
            known: Tensor | None = self._uploaded(originals)
            keys = self._uploaded(seeds)
            out = torch.empty(shape, dtype=torch.uint8, device=self._recorder.place)
            self._extremes.zero_()
            found: list[Drawn] = []
            for layer in layers:
                made = self._queue(layer, asked, keys, wanted)
                self.launches.paste(made, known, layer.frames, out)
                known = None
                found.append(Drawn(*(part[:, wanted.start : wanted.stop] for part in self._drawn)))
                if len(layers) > 1:
                    found[-1] = Drawn(*(part.clone() for part in found[-1]))
            host = [self._download(out), self._download(found[0].primitive)]
            host += [self._download(one.log_prob) for one in found]
            host.append(self._download(self._extremes))
            self._recorder.wait()
        images, primitive, *log_prob, extremes = (part.numpy() for part in host)
        return Block(images, primitive, np.sum(log_prob, 0, np.float32), tuple(extremes.tolist()))

    def _queue(self, layer: Layer, asked: Request, keys: Tensor, wanted: range) -> Tensor:
        """Latents and pictures of one layer, (B, k, 3, S, S)."""
        drawn = min(self.latents, _LAST_INDEX - asked.first)
        mixture = [layer.values[name] for name in Mixture._fields]
        into = Drawn(*(part[:, :drawn] for part in self._drawn))
        self.launches.sample(mixture, keys, asked, into)
        for name in self._taken:
            self._held[name].copy_(layer.values[name])
        self._decode()
        largest = mixture[0].amax(-1).abs().amax()
        self._extremes[0:1].copy_(torch.maximum(self._extremes[0], largest)[None])
        return self._made[:, wanted.start : wanted.stop].contiguous()

    def _call_encoder(self) -> None:
        made = self._encoder({name: self._held[name] for name in ("image", "hole")})
        for name, value in made.items():
            self._held[name].copy_(value)

    def _call_decoder(self) -> None:
        inputs: dict[str, Any] = {
            name: self._held[name][:, None]
            .expand(-1, self.latents, *self._held[name].shape[1:])
            .flatten(0, 1)
            for name in self._taken
        }
        z = self._drawn.z.flatten(0, 1)
        made = self._decoder({**inputs, "z": z, "box": self._rows})["picture"]
        self._made.copy_(made.view(self._made.shape))
        self._extremes[1:2].copy_(torch.maximum(self._extremes[1], made.abs().amax())[None])

    def _uploaded(self, array: NDArray[Any]) -> Tensor:
        """A copy of it on the device, queued."""
        here = torch.from_numpy(np.ascontiguousarray(array))
        if self._recorder.place.type == "cpu":
            return here.clone()
        return here.pin_memory().to(self._recorder.place, non_blocking=True)

    def _download(self, there: Tensor) -> Tensor:
        if there.device.type == "cpu":
            return there.clone()
        here = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
        return here.copy_(there, non_blocking=True)

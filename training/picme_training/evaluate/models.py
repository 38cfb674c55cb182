"""What is measured: an engine or a checkpoint behind one protocol, and Telea's completion."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from picme_rt import encoded as runtime
from picme_rt.backends import Take
from picme_rt.backends.side_by_side import one_by_one
from picme_rt.encoded import Encoding
from picme_rt.engine import MANIFEST
from picme_rt.errors import InputError
from picme_rt.framing import Box, Framing
from picme_rt.images import Float, Hole, Image, to_network
from picme_rt.session import Session
from picme_training import checkpoint, losses, networks
from picme_training.networks import Picme, Whitening


class Model(Protocol):
    """A network that completes pictures as a user of the runtime gets them.

    Attributes:
        size: Side of the network's picture in pixels.
        primitives: P of the mixture.
        about: What it is, for the report.
    """

    size: int
    primitives: int
    about: dict[str, Any]

    def encode(self, image: Image, hole: Hole) -> Encoding:
        """Encodes a picture (H, W, 3) with its hole, to be asked for completions."""
        ...

    def best(self, image: Image, hole: Hole) -> int | None:
        """Eq. 4: the primitive nearest to q(z_c|I_c); None where that is not known."""
        ...


def open_model(path: Path) -> Model:
    """The engine, the checkpoint, or the newest checkpoint of the run at `path`.

    Raises:
        EngineError: The engine is damaged, newer, or of another kind.
        InputError: The checkpoint is damaged, or there is neither.
    """
    if (path / MANIFEST).exists():
        return EngineModel(path)
    try:
        place = checkpoint.find(path)
    except InputError as exc:
        raise InputError(
            f"{path} must be an engine ({MANIFEST}), a checkpoint or a run, got none of them"
        ) from exc
    return CheckpointModel(place)


class EngineModel:
    """An engine through `picme_rt.Session`: bytes in and bytes out."""

    def __init__(self, path: Path):
        self._session = Session(path)
        info = self._session.info
        self.size, self.primitives = info.size, info.primitives
        self.about: dict[str, Any] = {
            "engine": str(path),
            "name": info.name,
            "backend": info.backend,
            "precision": info.precision,
            "sha256": info.sha256,
        }

    def encode(self, image: Image, hole: Hole) -> Encoding:
        """See `Model`."""
        return self._session.encode(image, hole)

    def best(self, image: Image, hole: Hole) -> None:
        """No engine holds the posterior."""


class CheckpointModel:
    """A checkpoint's averaged weights in torch, with the runtime's framing, sampler and composite.

    So it draws the latents of its engine, and its results differ from the engine's by rounding.
    """

    def __init__(self, place: Path):
        said = checkpoint.describe(place)
        self._model = Picme(said.config.network)
        checkpoint.load_module(place, "ema", self._model)
        networks.fold(self._model)
        self._framing: Framing = said.config.framing
        self._direction = said.config.loss.direction
        self._backend = _Torch(self._model)
        self.size, self.primitives = said.config.network.size, said.config.network.primitives
        self.about: dict[str, Any] = {
            "checkpoint": str(place),
            "step": said.step,
            "pictures_seen": said.pictures,
            "preset": said.config.network.preset,
        }

    def encode(self, image: Image, hole: Hole) -> Encoding:
        """See `Model`."""
        return runtime.encode(
            lambda: self._backend,
            image,
            hole,
            size=self.size,
            framed=self._framing,
            primitives=self.primitives,
        )

    @torch.inference_mode()
    def best(self, image: Image, hole: Hole) -> int | None:
        """See `Model`; None for pictures of another size than the network's.

        None too for weights that come from an engine, which has no statistics to whiten z_c with.
        """
        whiten = self._model.whiten
        unknown = isinstance(whiten, Whitening) and whiten.num_batches_tracked == 0
        if unknown or image.shape[:2] != (self.size, self.size):
            return None
        levels = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)
        picture = torch.from_numpy(to_network(levels))
        inside = torch.from_numpy(hole[None, None].astype(np.float32))
        _, mixture = self._model.encode(picture, inside)
        target = self._model.posterior(self._model.features(picture, 1 - inside))
        each = losses.divergences(mixture, target, self._direction)
        return int(losses.best_primitive(each)[0])


class _Torch:
    """A `picme_rt.backends.Backend` of a network in torch, on the CPU."""

    name, device, precision, variant, micro_batch = "torch", "cpu", "fp32", "fp32", 1

    def __init__(self, model: Picme):
        self._model, self.threads = model, torch.get_num_threads()

    @torch.inference_mode()
    def encode(self, image: Float, hole: Float) -> dict[str, Float]:
        encoding, mixture = self._model.encode(torch.from_numpy(image), torch.from_numpy(hole))
        values = mixture._asdict()
        if encoding.z_m is not None:
            values["z_m"] = encoding.z_m.mu
        values |= {f"f_{i}": feature for i, feature in enumerate(encoding.features)}
        return {name: value.numpy() for name, value in values.items()}

    def decoding(self, encoded: dict[str, Float], box: Box | None = None) -> "_Decoding":
        return _Decoding(self._model, encoded)


class _Decoding:
    def __init__(self, model: Picme, encoded: dict[str, Float]):
        self._model, size = model, model.config.size
        self.box = Box(0, 0, size, size)  # always the whole picture
        given = {name: torch.from_numpy(value) for name, value in encoded.items()}
        self._z_m, self._hole = given.get("z_m"), given["hole"]
        self._features = tuple(given[f"f_{i}"] for i in range(len(model.encoder.shapes)))

    @torch.inference_mode()
    def __call__(self, z: Float) -> Float:
        made = self._model.decode(torch.from_numpy(z), self._z_m, self._features, self._hole)
        picture: Float = made[-1].numpy()
        return picture

    def each(self, latents: Sequence[Float], take: Take) -> Generator[None, None, None]:
        return one_by_one(self, latents, take)

    def close(self) -> None:
        """There is nothing to give back."""


RADIUS = 3  # pixels around a place that Telea's method looks at: the usual value


def telea(image: Image, hole: Hole) -> Image:
    """The completion of Telea (2004), as OpenCV has it: known colours marched into the hole.

    OpenCV reads a few bytes under a hole that is not a rectangle: they are grey here.
    """
    import cv2

    seen = np.where(hole[..., None], np.uint8(128), image)
    return np.asarray(cv2.inpaint(seen, hole.astype(np.uint8), RADIUS, cv2.INPAINT_TELEA))

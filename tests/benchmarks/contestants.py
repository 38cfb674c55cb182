"""Who runs in the latency suite: an engine, and four ways to do the same work without picme_rt.

The reference loop is how PIC and PICMM test: torch eager, spectral norm live (its weights are
divided again at every call), the picture encoded once, each latent decoded by a call of its own.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from cpu_backends import EVERY
from numpy.typing import NDArray
from torch import Tensor, nn

from picme_rt import backends, kernels
from picme_rt import engine as engines
from picme_training.config import NetworkConfig, Preset
from picme_training.networks import Picme

SHIPPED = Path(__file__).parents[2] / "engines" / "cats128"
Image = NDArray[np.uint8]
Hole = NDArray[np.bool_]


class Network(NamedTuple):
    """One network as an engine and in torch.

    Attributes:
        engine: Its engine.
        folded: The network, spectral norm folded.
        live: The same network as it is trained; in `eval` mode.
    """

    engine: Path
    folded: Picme
    live: Picme


def random_network(preset: Preset, size: int) -> Picme:
    """A preset as it is shipped, with random weights."""
    fine = preset == "cats" and size > 64
    torch.manual_seed(0)
    return Picme(NetworkConfig(preset, size, 6, detail=fine, push_pull=fine)).eval()


def runnable(engine: Path) -> list[tuple[str, str]]:
    """Every backend and precision that an engine offers and this machine computes in."""
    loaded = engines.load(engine)
    unable = {"bf16"} - {precision for _, precision in EVERY}
    return [
        (name, precision)
        for name in backends.installed()
        if name != "torch"  # the suite has contestants of its own for it
        for precision in backends.offered(loaded, name)
        if precision not in unable
    ]


def tiles(side: int) -> tuple[Image, Hole]:
    """16 x 16 flat tiles, and a hole in the middle half as wide and high."""
    rng = np.random.default_rng(0)
    tile = np.ones((side // 16, side // 16, 1))
    image = np.kron(rng.integers(0, 256, (16, 16, 3)), tile).astype(np.uint8)
    hole = np.zeros((side, side), bool)
    hole[side // 4 : -side // 4, side // 4 : -side // 4] = True
    return image, hole


def pixels(image: Image, hole: Hole) -> tuple[Tensor, Tensor]:
    """(1, 3, S, S) in [-1, 1] and (1, 1, S, S), as the network takes them."""
    return (
        torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1,
        torch.from_numpy(hole).float()[None, None],
    )


def latents(mixture: tuple[Tensor, ...], k: int) -> Tensor:
    """(k, D), those of seed 0: every contestant decodes the same."""
    drawn = kernels.sample_gmm(*(t.numpy() for t in mixture), np.zeros(1, np.uint64), k=k)
    return torch.from_numpy(drawn.z[0])


@torch.no_grad()
def one_by_one(model: Picme, image: Image, hole: Hole, k: int) -> Tensor:
    """Bytes to (k, 3, S, S): encode, then k decodes of one latent; the reference loop if live."""
    known, holes = pixels(image, hole)
    encoding, mixture = model.encode(known, holes)
    assert encoding.z_m is not None
    return torch.cat(
        [
            model.decode(z[None], encoding.z_m.mu, encoding.features, holes)[-1]
            for z in latents(mixture, k)
        ]
    )


@torch.no_grad()
def at_once(model: Picme, image: Image, hole: Hole, k: int) -> Tensor:
    """Bytes to (k, 3, S, S): encode, then one decode of k latents."""
    known, holes = pixels(image, hole)
    encoding, mixture = model.encode(known, holes)
    assert encoding.z_m is not None
    features = tuple(f.expand(k, -1, -1, -1) for f in encoding.features)
    z_m, wide = encoding.z_m.mu.expand(k, -1), holes.expand(k, -1, -1, -1)
    return model.decode(latents(mixture, k), z_m, features, wide)[-1]


class _Encoder(nn.Module):
    def __init__(self, model: Picme):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, hole: Tensor) -> tuple[Tensor, ...]:
        encoding, mixture = self.model.encode(image, hole)
        return (*mixture, encoding.z_m.mu, *encoding.features)


class _Decoder(nn.Module):
    def __init__(self, model: Picme):
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, z_m: Tensor, hole: Tensor, *features: Tensor) -> Tensor:
        return self.model.decode(z, z_m, features, hole)[-1]


def plain_export(model: Picme, folder: Path) -> Callable[[Image, Hole, int], Tensor]:
    """What `torch.onnx.export` makes of a folded network, on ONNX Runtime as it comes.

    Args:
        model: The network, folded.
        folder: Where its two graphs are written.

    Returns:
        Bytes to (k, 3, S, S), as `one_by_one`.
    """
    size = model.config.size
    known, hole = torch.zeros(1, 3, size, size), torch.ones(1, 1, size, size)
    encoder, decoder = _Encoder(model).eval(), _Decoder(model).eval()
    with torch.no_grad():
        encoded = encoder(known, hole)
    z = torch.zeros(1, model.latent_dim)
    sessions = []
    for name, module, inputs in (
        ("encoder", encoder, (known, hole)),
        ("decoder", decoder, (z, encoded[3], hole, *encoded[4:])),
    ):
        path = folder / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            torch.onnx.export(module, inputs, path, dynamo=True, verbose=False)
        sessions.append(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]))
    places = [[one.name for one in session.get_inputs()] for session in sessions]

    def complete(image: Image, hole: Hole, k: int) -> Tensor:
        given = [t.numpy() for t in pixels(image, hole)]
        values = sessions[0].run(None, dict(zip(places[0], given, strict=True)))
        rest = [values[3], given[1], *values[4:]]
        drawn = latents(tuple(torch.from_numpy(v) for v in values[:3]), k).numpy()
        made = [
            sessions[1].run(None, dict(zip(places[1], [z[None], *rest], strict=True)))[0]
            for z in drawn
        ]
        return torch.from_numpy(np.concatenate(made))

    return complete

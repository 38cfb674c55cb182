"""What a session runs, behind one protocol: an engine's two graphs here, patches in patch_model.

A session is asked for pictures of all kinds; a model gets bytes and a hole that were checked.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from picme_rt import backends, encoded, kernels
from picme_rt import engine as engines
from picme_rt.encoded import Completions, Encoded, Encoding, Request
from picme_rt.engine import Engine
from picme_rt.errors import ClosedError
from picme_rt.images import Hole, Image
from picme_rt.turns import Turns

if TYPE_CHECKING:
    from picme_rt.device_model import DeviceCompletions

CLOSED = "this session is closed; open another one with picme_rt.Session"


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
        threads: Threads that the backend computes a lone result with, and every result's bits.
        sampler: `native` (compiled kernels), `ref` (NumPy) or `cuda` (on the GPU): the same bits.
        composite: What pastes the results: one of these, the same bits.
        size: Side of the network's picture in pixels.
        framing: `aligned` or `free`.
        primitives: P of the mixture.
        latent: D of z_c.
        micro_batch: Latents a decoder call.
        sha256: Digest of each file of the variant in use.
        provenance: Training data, licence, commit and measures, as the engine says.
        picture: (H, W) of the one picture that it completes; None where it takes any.
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
    picture: tuple[int, int] | None = None


class Model(Protocol):
    """What a session runs; safe to share between threads."""

    def info(self) -> Info:
        """What runs. Raises `ClosedError` once it is closed, as `encode` does."""
        ...

    def encode(self, pixels: Image, hole: Hole) -> Encoding:
        """Makes a picture (H, W, 3) uint8 with the hole (H, W) bool ready."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


@runtime_checkable
class TakesBatches(Protocol):
    """A model that completes several pictures in one run."""

    def complete_together(
        self, pictures: Sequence[Image], holes: Sequence[Hole], requests: Sequence[Request]
    ) -> list[Completions]:
        """Completes pictures (H, W, 3) uint8; the requests are equal but for the seed."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A picture made ready whose results may stay on a GPU."""

    def on_device(self, request: Request) -> "DeviceCompletions":
        """`Encoding.complete`, the pictures left where they are made."""
        ...


def open_engine(
    path: Path,
    *,
    device: str,
    backend: str,
    precision: str,
    threads: int | None,
    turns: Turns,
    calls: Turns,
) -> Model:
    """An engine, opened.

    Args:
        path: The engine's directory.
        device: As `backends.choose` takes it, and so are the next two.
        backend: Likewise.
        precision: Likewise.
        threads: Threads of one run of the backend; None leaves it to what was chosen, and to
            whether calls meet.
        turns: Who may run on the CPU.
        calls: Who is in work.
    """
    engine = engines.load(path)
    chosen = backends.choose(engine, backend=backend, device=device, precision=precision)
    if threads is not None:
        settings = dataclasses.replace(chosen.settings, threads=threads)
        chosen = chosen._replace(settings=settings)
    if chosen.settings.backend == "torch" and chosen.settings.device != "cpu":
        from picme_rt import torch_model

        if kernels.cuda_is_built():
            return torch_model.load(engine, chosen)
    return EngineModel(engine, chosen, turns, calls if threads is None else None)


def info_of(engine: Engine, chosen: backends.Chosen, *, variant: str, kernel: str) -> Info:
    """What is known of an engine once it is opened.

    Args:
        engine: The engine.
        chosen: How it is opened.
        variant: Whose files run.
        kernel: What draws and pastes.
    """
    settings = chosen.settings
    return Info(
        engine=str(engine.path),
        name=engine.name,
        backend=settings.backend,
        chosen_by=chosen.by,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        sampler=kernel,
        composite=kernel,
        size=engine.size,
        framing=engine.framing,
        primitives=engine.primitives,
        latent=engine.latent,
        micro_batch=settings.micro_batch,
        sha256={name: engine.files[name].sha256 for name in engine.variants[variant].values()},
        provenance=engine.provenance,
    )


class EngineModel:
    """An engine on one backend.

    Args:
        engine: The engine.
        chosen: How it is opened, and who chose that.
        turns: Who may run.
        calls: As `backends.load` has it.
    """

    def __init__(
        self, engine: Engine, chosen: backends.Chosen, turns: Turns, calls: Turns | None = None
    ):
        self._engine, self._chosen = engine, chosen
        self._backend: backends.Backend | None = backends.load(
            engine, chosen.settings, turns, calls
        )

    def info(self) -> Info:
        """See `Model.info`."""
        kernel = "native" if kernels.native_is_built() else "ref"
        variant = self.loaded().variant
        return info_of(self._engine, self._chosen, variant=variant, kernel=kernel)

    def encode(self, pixels: Image, hole: Hole) -> Encoded:
        """See `Model.encode`: Algorithm 2, lines 1-2."""
        return encoded.encode(
            self.loaded,
            pixels,
            hole,
            size=self._engine.size,
            framed=self._engine.framing,
            primitives=self._engine.primitives,
        )

    def close(self) -> None:
        """See `Model.close`."""
        self._backend = None

    def loaded(self) -> backends.Backend:
        """The backend.

        Raises:
            ClosedError: It was closed.
        """
        backend = self._backend
        if backend is None:
            raise ClosedError(CLOSED)
        return backend

"""What a session runs, behind one protocol: an engine's two graphs here, patches in patch_model.

A session is asked for pictures of all kinds; a model gets bytes and a hole that were checked.
"""

import dataclasses
from pathlib import Path
from typing import Any, Protocol

from picme_rt import backends, encoded, kernels
from picme_rt import engine as engines
from picme_rt.encoded import Encoded, Encoding
from picme_rt.errors import ClosedError
from picme_rt.images import Hole, Image
from picme_rt.turns import Turns

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


class EngineModel:
    """An engine on one backend.

    Args:
        path: The engine's directory.
        device: As `backends.choose` takes it, and so are the next two.
        backend: Likewise.
        precision: Likewise.
        threads: Threads of one run of the backend; None leaves it to what was chosen.
        turns: Who may run.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str,
        backend: str,
        precision: str,
        threads: int | None,
        turns: Turns,
    ):
        self._engine = engines.load(path)
        chosen = backends.choose(self._engine, backend=backend, device=device, precision=precision)
        self._chosen_by = chosen.by
        settings = chosen.settings
        if threads is not None:
            settings = dataclasses.replace(settings, threads=threads)
        self._backend: backends.Backend | None = backends.load(self._engine, settings, turns)

    def info(self) -> Info:
        """See `Model.info`."""
        engine, backend = self._engine, self.loaded()
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

"""An engine of kind `idc` as a model of a session: one picture, completed in many ways."""

import dataclasses
from pathlib import Path

from picme_rt import kernels, pyramid, pyramid_encoded, pyramid_frame
from picme_rt.backends import pyramids
from picme_rt.backends.pyramids import PyramidBackend
from picme_rt.errors import ClosedError, InputError
from picme_rt.images import Hole, Image
from picme_rt.models import CLOSED, Info
from picme_rt.pyramid_encoded import PyramidEncoded
from picme_rt.turns import Turns


class PyramidModel:
    """See `picme_rt.models.Model`; the arguments are those of `picme_rt.models.EngineModel`.

    Raises:
        EngineError: The engine is damaged.
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
        self._engine = pyramid.load(path)
        self._trained = self._engine.hole()
        pyramid_frame.check_window(self._engine, self._trained)
        chosen = pyramids.choose(self._engine, backend=backend, device=device, precision=precision)
        self._chosen_by, settings = chosen.by, chosen.settings
        if threads is not None:
            settings = dataclasses.replace(settings, threads=threads)
        self._backend: PyramidBackend | None = pyramids.load(self._engine, settings, turns)

    def info(self) -> Info:
        """See `Model.info`; `size` is the longer side that was trained."""
        engine, backend = self._engine, self.loaded()
        kernel = "native" if kernels.native_is_built() else "ref"
        files = [*engine.variants[backend.variant].values(), engine.hole_file]
        return Info(
            engine=str(engine.path),
            name=engine.name,
            backend=backend.name,
            chosen_by=self._chosen_by,
            device=backend.device,
            precision=backend.precision,
            threads=backend.threads,
            sampler=kernel,
            composite=kernel,
            size=max(engine.sizes[-1]),
            framing="free",
            primitives=0,
            latent=0,
            micro_batch=backend.micro_batch,
            sha256={name: engine.files[name].sha256 for name in files},
            provenance=engine.provenance,
            picture=engine.picture,
        )

    def encode(self, pixels: Image, hole: Hole) -> PyramidEncoded:
        """See `Model.encode`.

        Raises:
            InputError: It is another picture than the engine's, or the hole leaves the engine's.
        """
        self.loaded()
        self._check(pixels, hole)
        return pyramid_encoded.PyramidEncoded(self.loaded, self._engine, pixels, hole)

    def close(self) -> None:
        """See `Model.close`."""
        self._backend = None

    def loaded(self) -> PyramidBackend:
        """The backend.

        Raises:
            ClosedError: It was closed.
        """
        backend = self._backend
        if backend is None:
            raise ClosedError(CLOSED)
        return backend

    def _check(self, pixels: Image, hole: Hole) -> None:
        engine = self._engine
        wanted = f"the picture that {engine.name} was trained on"
        if hole.shape != engine.picture:
            raise InputError(
                f"img must be {wanted}, {engine.picture[0]} x {engine.picture[1]} pixels, "
                f"got {hole.shape[0]} x {hole.shape[1]}; picme internal trains an engine for it"
            )
        if (got := pyramid.fingerprint(pixels, self._trained)) != engine.fingerprint:
            raise InputError(
                f"img must be {wanted}, of fingerprint {engine.fingerprint[:12]}, got "
                f"{got[:12]}; picme internal trains an engine for it"
            )
        if outside := int((hole & ~self._trained).sum()):
            raise InputError(
                f"mask must lie inside of the hole that {engine.name} was trained with, got "
                f"{outside} pixels outside of its {int(self._trained.sum())}; picme internal "
                "trains an engine for it"
            )

"""Patch mode as a model of a session: no engine, no backend, no training (docs/patch.md)."""

from picme_rt import kernels
from picme_rt.errors import ClosedError, InputError
from picme_rt.images import Hole, Image
from picme_rt.models import CLOSED, Info
from picme_rt.patch_encoded import PatchEncoded


class PatchModel:
    """See `picme_rt.models.Model`.

    Args:
        threads: Results of one call that are made at once.
    """

    def __init__(self, threads: int):
        self._threads, self._open = threads, True

    def info(self) -> Info:
        """See `Model.info`; what only an engine has is 0 or empty."""
        self._alive()
        kernel = "native" if kernels.native_is_built() else "ref"
        return Info(
            engine="patch",
            name="patch",
            backend="patch",
            chosen_by="asked",
            device="cpu",
            precision="fp32",
            threads=self._threads,
            sampler=kernel,
            composite=kernel,
            size=0,
            framing="free",
            primitives=0,
            latent=0,
            micro_batch=1,
            sha256={},
            provenance={},
        )

    def encode(self, pixels: Image, hole: Hole) -> PatchEncoded:
        """See `Model.encode`.

        Raises:
            InputError: No patch near the hole is known.
        """
        self._alive()
        return PatchEncoded(self._alive, pixels, hole, self._threads)

    def close(self) -> None:
        """See `Model.close`."""
        self._open = False

    def _alive(self) -> None:
        if not self._open:
            raise ClosedError(CLOSED)


def check(device: str, backend: str, precision: str, max_wait_ms: float | None) -> None:
    """Refuses what only an engine has.

    Raises:
        InputError: A device but the CPU, or a backend, precision or wait.
    """
    given = {
        "device": (device, ("auto", "cpu")),
        "backend": (backend, ("auto", "patch")),
        "precision": (precision, ("auto", "fp32")),
        "max_wait_ms": (max_wait_ms, (None,)),
    }
    for name, (got, known) in given.items():
        if got not in known:
            raise InputError(f"{name} of patch mode must be one of {known}, got {got!r}")

"""What runs an engine's two graphs. One protocol; each backend is one file.

A backend is asked for by name or chosen by `auto`, which takes the fastest that is installed and
says which in `session.info`.
"""

from typing import Protocol

from picme_rt.engine import Engine
from picme_rt.errors import InputError
from picme_rt.images import Float

BACKENDS = ("onnxruntime",)
DEVICES = ("cpu",)


class Decoding(Protocol):
    """The decoder bound to one encoded picture: `micro_batch` latents a call."""

    def __call__(self, z: Float) -> Float:
        """Latents (micro_batch, D) -> pictures (micro_batch, 3, S, S), kept until the next call."""
        ...

    def close(self) -> None:
        """Gives the buffers back."""
        ...


class Backend(Protocol):
    """One engine, loaded on one device in one precision; safe to share between threads."""

    name: str
    device: str
    precision: str
    micro_batch: int

    def encode(self, image: Float, hole: Float) -> dict[str, Float]:
        """Image (1, 3, S, S), hole (1, 1, S, S) -> the encoder's outputs by name, batch 1."""
        ...

    def decoding(self, encoded: dict[str, Float]) -> Decoding:
        """Binds the decoder to the outputs of `encode` and the hole (under the name `hole`)."""
        ...


def load(engine: Engine, *, backend: str, device: str, precision: str) -> Backend:
    """Loads an engine.

    Args:
        engine: The engine's manifest.
        backend: `auto` or one of `BACKENDS`.
        device: `auto` or one of `DEVICES`.
        precision: `auto` or one of the engine's variants.

    Raises:
        InputError: An unknown name, or a precision that the engine lacks.
        MissingPackageError: The backend's package is not installed.
        EngineError: A graph is damaged or has other inputs and outputs than the manifest says.
    """
    for what, got, known in (
        ("backend", backend, BACKENDS),
        ("device", device, DEVICES),
        ("precision", precision, tuple(engine.variants)),
    ):
        if got not in ("auto", *known):
            raise InputError(f"{what} must be one of {('auto', *known)}, got {got!r}")
    from picme_rt.backends import onnxruntime

    if precision == "auto":
        precision = "fp32" if "fp32" in engine.variants else next(iter(engine.variants))
    return onnxruntime.OnnxRuntime(engine, precision)

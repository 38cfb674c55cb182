"""What runs an engine's two graphs. One protocol; each backend is one file.

A backend is asked for by name or chosen by `auto`: the fastest of those that were measured with
this engine on this machine (`picme bench ENGINE --tune`), else the first of `BACKENDS` that is
installed. `session.info` says which, and why.
"""

import importlib.util
from typing import Literal, NamedTuple, Protocol

from picme_rt import choices
from picme_rt.choices import Settings
from picme_rt.engine import Bundle, Engine
from picme_rt.errors import InputError, MissingPackageError
from picme_rt.framing import Box
from picme_rt.images import Float
from picme_rt.turns import Turns

BACKENDS = ("onnxruntime", "openvino")
"""By the names of their packages; in the order in which `auto` takes them unmeasured."""
DEVICES = ("cpu",)
_EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino"}
_MADE_OF_FP32 = {"onnxruntime": (), "openvino": ("bf16",)}


class Decoding(Protocol):
    """The decoder bound to one encoded picture: `micro_batch` latents a call.

    Attributes:
        box: The pixels that it makes; all others are 0.
    """

    box: Box

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
    variant: str
    threads: int
    micro_batch: int

    def encode(self, image: Float, hole: Float) -> dict[str, Float]:
        """Image (1, 3, S, S), hole (1, 1, S, S) -> the encoder's outputs by name, batch 1."""
        ...

    def decoding(self, encoded: dict[str, Float], box: Box | None = None) -> Decoding:
        """Binds the decoder to the outputs of `encode` and the hole (under the name `hole`).

        It makes the pixels of `box`, or more: the whole picture if None, or if the engine's decoder
        takes no box.
        """
        ...


class Chosen(NamedTuple):
    """Settings, and who chose the backend: `asked`, `measured` or `default`."""

    settings: Settings
    by: Literal["asked", "measured", "default"]


def offered(engine: Bundle, backend: str) -> tuple[str, ...]:
    """The precisions in which a backend runs an engine: its variants, and what it makes of fp32."""
    made = _MADE_OF_FP32[backend] if "fp32" in engine.variants else ()
    return (*engine.variants, *(p for p in made if p not in engine.variants))


def installed() -> tuple[str, ...]:
    """The backends whose packages are here, without importing them."""
    return tuple(name for name in BACKENDS if importlib.util.find_spec(name))


def defaults(backend: str, precision: str) -> Settings:
    """Settings that nobody measured: a thread for each physical core, one latent a call."""
    return Settings(backend, precision, threads=choices.cores())


def plain(engine: Bundle) -> str:
    """The precision that `auto` is where nobody allowed another: fp32, or the first variant."""
    return "fp32" if "fp32" in engine.variants else next(iter(engine.variants))


def choose(engine: Bundle, *, backend: str, device: str, precision: str) -> Chosen:
    """Finds settings; a backend that is named is opened with its defaults.

    Args:
        engine: The engine's manifest.
        backend: `auto` or one of `BACKENDS`.
        device: `auto` or one of `DEVICES`.
        precision: One that is `offered`, or `auto`: `plain`, and where the backend is `auto` too
            and tuning allowed it, the fastest whose quality is `near`.

    Raises:
        InputError: An unknown name, or a precision that the engine or the backend lacks.
        MissingPackageError: No package is installed that would do; the message names the extra.
    """
    every = tuple(dict.fromkeys(p for name in BACKENDS for p in offered(engine, name)))
    for what, got, known in (
        ("backend", backend, BACKENDS),
        ("device", device, DEVICES),
        ("precision", precision, every),
    ):
        if got not in ("auto", *known):
            raise InputError(f"{what} must be one of {('auto', *known)}, got {got!r}")
    any_near = precision == "auto"
    if any_near:
        precision = plain(engine)
    able = [name for name in BACKENDS if precision in offered(engine, name)]
    if backend != "auto":
        if backend not in able:
            raise InputError(
                f"precision of backend {backend} must be one of "
                f"{offered(engine, backend)}, got {precision!r}; backend {able[0]} has it"
            )
        return Chosen(defaults(backend, precision), "asked")
    here = [name for name in installed() if name in able]
    if not here:
        raise MissingPackageError(
            f"this engine in {precision} needs {' or '.join(able)}, which is not installed; "
            f"pip install 'picme_rt[{_EXTRAS[able[0]]}]'"
        )
    known_here = [
        one
        for one in choices.read(engine, BACKENDS)
        if one.settings.backend in here
        and (one.settings.precision == precision or (any_near and _allowed(engine, one)))
    ]
    if known_here:
        return Chosen(choices.fastest(known_here), "measured")
    return Chosen(defaults(here[0], precision), "default")


def _allowed(engine: Bundle, one: choices.Measured) -> bool:
    """Whether `auto` may be a lower precision: tuning allowed it, and nobody sees a difference."""
    found = engine.quality.get(one.settings.precision)
    return one.lower and found is not None and found.near


def load(engine: Engine, settings: Settings, turns: Turns | None = None) -> Backend:
    """Loads an engine: its graphs are read and checked here, before any library sees them.

    Args:
        engine: The engine.
        settings: How it is opened.
        turns: Who may run; None lets as many calls run as there are cores.

    Raises:
        MissingPackageError: The backend's package is not installed.
        UnavailableError: This machine does not compute in the precision.
        EngineError: A graph is damaged or has other inputs and outputs than the manifest says.
    """
    from picme_rt.backends import graphs

    precision = settings.precision
    turns = turns or Turns(choices.cores())
    checked = graphs.read(engine, precision if precision in engine.variants else "fp32")
    if settings.backend == "openvino":
        from picme_rt.backends import openvino

        return openvino.load(checked, settings, turns)
    from picme_rt.backends import onnxruntime

    return onnxruntime.load(checked, settings, turns)

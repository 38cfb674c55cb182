"""What runs an engine's two graphs. One protocol; each backend is one file.

A backend is asked for by name or chosen by `auto`: the fastest of those that were measured with
this engine on this machine (`picme bench ENGINE --tune`), else the first of `UNMEASURED` that is
installed. `session.info` says which, and why. A GPU is taken where somebody asks for it.
"""

import importlib
import importlib.util
from collections.abc import Callable, Generator, Sequence
from typing import Literal, NamedTuple, Protocol

from picme_rt import choices, devices
from picme_rt.choices import Settings
from picme_rt.devices import Device
from picme_rt.engine import Bundle, Engine
from picme_rt.errors import InputError, MissingPackageError, PicmeError, UnavailableError
from picme_rt.framing import Box
from picme_rt.images import Float
from picme_rt.turns import Turns

BACKENDS = ("onnxruntime", "openvino", "torch")
"""By the names of their packages."""
UNMEASURED = {"cpu": ("onnxruntime", "openvino"), "cuda": ("torch", "onnxruntime")}
"""Those that `auto` takes unmeasured on a kind of device, in this order."""
_CURES = {
    ("onnxruntime", "cpu"): "pip install 'picme_rt[cpu]'",
    ("openvino", "cpu"): "pip install 'picme_rt[openvino]'",
    ("torch", "cuda"): "install a torch built for CUDA as pytorch.org says",
    ("onnxruntime", "cuda"): "pip install 'picme_rt[gpu]'",
}
_MADE_OF_FP32 = {
    "cpu": {"onnxruntime": (), "openvino": ("bf16",), "torch": ()},
    "cuda": {"onnxruntime": (), "torch": ("tf32", "fp16", "bf16")},
}
_GPU_LATENTS = 6  # a run: a call's default k


Take = Callable[[int, Float], None]
"""Called with a run's place and its pictures, in whatever thread made them."""


class Decoding(Protocol):
    """The decoder bound to one encoded picture: `micro_batch` latents a call.

    Attributes:
        box: The pixels that it makes; all others are 0.
    """

    box: Box

    def __call__(self, z: Float) -> Float:
        """Latents (micro_batch, D) -> pictures (micro_batch, 3, S, S), kept until the next call."""
        ...

    def each(self, latents: Sequence[Float], take: Take) -> Generator[None, None, None]:
        """Calls `take` with each of `latents`' place and its pictures, which are kept meanwhile.

        Yields after each, in their order. Where that pays several are made at a time, each taken in
        a thread of its own; the bits are the same: where they were not, `take` gets that place once
        more, with those that count. Close the iterator: it ends what is in work.
        """
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


def offered(engine: Bundle, backend: str, kind: Literal["cpu", "cuda"] = "cpu") -> tuple[str, ...]:
    """The precisions in which a backend runs an engine: its variants, and what it makes of fp32.

    None where it does not run on that kind of device.
    """
    if backend not in _MADE_OF_FP32[kind]:
        return ()
    made = _MADE_OF_FP32[kind][backend] if "fp32" in engine.variants else ()
    return (*engine.variants, *(p for p in made if p not in engine.variants))


def installed() -> tuple[str, ...]:
    """The backends whose packages are here, without importing them."""
    return tuple(name for name in BACKENDS if importlib.util.find_spec(name))


def defaults(backend: str, precision: str, device: Device = devices.CPU) -> Settings:
    """Settings that nobody measured: a thread for each physical core, one latent a call.

    On a GPU six latents, a call's default k.
    """
    latents = 1 if device.kind == "cpu" else _GPU_LATENTS
    return Settings(backend, precision, choices.cores(), latents, device.name)


def plain(engine: Bundle) -> str:
    """The precision that `auto` is where nobody allowed another: fp32, or the first variant."""
    return "fp32" if "fp32" in engine.variants else next(iter(engine.variants))


def variant(engine: Bundle, precision: str) -> str:
    """Whose files run in a precision: its own, or those of fp32 from which it is made."""
    return precision if precision in engine.variants else "fp32"


def choose(engine: Bundle, *, backend: str, device: str, precision: str) -> Chosen:
    """Finds settings; a backend that is named is opened with its defaults.

    Args:
        engine: The engine's manifest.
        backend: `auto` or one of `BACKENDS`.
        device: As `devices.parse` takes it.
        precision: One that is `offered`, or `auto`: `plain`, and where the backend is `auto` too
            and tuning allowed it, the fastest whose quality is `near`.

    Raises:
        InputError: An unknown name, or a precision that the engine or the backend lacks.
        MissingPackageError: No package is installed that would do; the message names the extra.
        UnavailableError: There is no GPU, or nothing that drives it.
    """
    place = devices.parse(device)
    every = dict.fromkeys(p for name in BACKENDS for p in offered(engine, name, place.kind))
    for what, got, known in (("backend", backend, BACKENDS), ("precision", precision, (*every,))):
        if got not in ("auto", *known):
            named = f"{what} must be one of {('auto', *known)}"
            cure = ", or tensorrt where there is an NVIDIA GPU" if what == "backend" else ""
            raise InputError(f"{named}{cure}, got {got!r}")
    any_near = precision == "auto"
    if any_near:
        precision = plain(engine)
    able = [name for name in BACKENDS if precision in offered(engine, name, place.kind)]
    if backend != "auto":
        if not (has := offered(engine, backend, place.kind)):
            raise InputError(f"device of backend {backend} must be cpu, got {place.name}")
        if backend not in able:
            raise InputError(
                f"precision of backend {backend} on {place.name} must be one of {has}, "
                f"got {precision!r}; backend {able[0]} has it"
            )
        return Chosen(defaults(backend, precision, place), "asked")
    usual = [name for name in UNMEASURED[place.kind] if name in able]
    here = [name for name in usual if name in installed()]
    measured = choices.read(engine, BACKENDS) if place.kind == "cpu" else []
    known_here = [
        one
        for one in measured
        if one.settings.backend in installed()
        and (one.settings.precision == precision or (any_near and _allowed(engine, one)))
    ]
    if known_here:
        return Chosen(choices.fastest(known_here), "measured")
    if not here:
        raise MissingPackageError(
            f"this engine in {precision} on {place.name} needs {' or '.join(usual)}, which is not "
            f"installed; {_CURES[usual[0], place.kind]}"
        )
    if place.kind == "cuda":
        return Chosen(defaults(_working(here, place, precision), precision, place), "default")
    return Chosen(defaults(here[0], precision), "default")


def _working(names: Sequence[str], device: Device, precision: str) -> str:
    """The first backend that finds its GPU.

    Raises:
        UnavailableError: None does; the message has what each of them lacks.
    """
    lacks = []
    for name in names:
        try:
            importlib.import_module(f"picme_rt.backends.{name}").check(device, precision)
        except PicmeError as exc:
            lacks.append(str(exc))
        else:
            return name
    raise UnavailableError("; or: ".join(lacks))


def _allowed(engine: Bundle, one: choices.Measured) -> bool:
    """Whether `auto` may be a lower precision: tuning allowed it, and nobody sees a difference."""
    found = engine.quality.get(one.settings.precision)
    return one.lower and found is not None and found.near


def load(
    engine: Engine, settings: Settings, turns: Turns | None = None, calls: Turns | None = None
) -> Backend:
    """Loads an engine: its graphs are read and checked here, before any library sees them.

    Args:
        engine: The engine.
        settings: How it is opened.
        turns: Who may run; None lets as many calls run as there are cores.
        calls: Who is in work: where as many are as there are cores, a run on the CPU takes one
            thread (meeting.py; torch excepted). None leaves `settings.threads` to each.

    Raises:
        MissingPackageError: The backend's package is not installed.
        UnavailableError: This machine does not compute in the precision.
        EngineError: A graph is damaged or has other inputs and outputs than the manifest says.
    """
    from picme_rt.backends import graphs

    turns = turns or Turns(choices.cores())
    chosen = variant(engine, settings.precision)
    checked = graphs.read(engine, chosen, settings.micro_batch)
    if settings.backend == "openvino":
        from picme_rt.backends import openvino

        return openvino.load(checked, settings, turns, calls)
    if settings.backend == "torch":
        from picme_rt.backends import torch

        return torch.load(checked, settings, turns)
    from picme_rt.backends import onnxruntime

    return onnxruntime.load(checked, settings, turns, calls)

"""torch: an engine's own graphs with nothing but torch, on a GPU or on the CPU.

The encoder computes in float32 whatever the precision (tf32 on a GPU rounds its products too):
primitives, latents and log probabilities of fp16 and bf16 are those of fp32 to the bit. int8 is
computed as its rounding says, in float32: right, and no faster.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from picme_rt import backends, devices
from picme_rt.backends.graphs import Checked, Graphs
from picme_rt.backends.host import Runner
from picme_rt.backends.host_backend import HostBackend
from picme_rt.backends.meeting import Runners
from picme_rt.choices import Settings
from picme_rt.devices import Device
from picme_rt.engine import Engine
from picme_rt.errors import MissingPackageError, UnavailableError, one_line
from picme_rt.framing import Box
from picme_rt.turns import Turns
from picme_rt.windows import windows

if TYPE_CHECKING:
    from picme_rt.backends.torch_network import Network
    from picme_rt.backends.torch_pipeline import Pipeline


def load(graphs: Graphs, settings: Settings, turns: Turns) -> HostBackend:
    """Loads both graphs.

    Raises:
        MissingPackageError: torch is not installed, or cannot be imported.
        UnavailableError: There is no such GPU, or the CPU does not compute in the precision.
    """
    device = devices.parse(settings.device)
    check(device, settings.precision)
    encoder, decoder = networks(graphs, settings)
    rows = None if device.kind == "cpu" else whole(graphs)
    return HostBackend(
        settings,
        graphs.variant,
        turns if device.kind == "cpu" else Turns(1),  # a GPU computes one call at a time
        encoder=_runners(encoder, graphs.encoder, 1, settings, None),
        decoder=Runners(
            _runners(decoder, graphs.decoder, settings.micro_batch, settings, rows), None
        ),
        windows=graphs.windows if rows is None else None,
    )


def pipeline(engine: Engine, settings: Settings) -> "Pipeline":
    """An engine from bytes to bytes on one GPU; our kernels are built for it.

    Raises:
        PicmeError: As `load`, or the engine is damaged.
    """
    from picme_rt.backends import graphs

    check(devices.parse(settings.device), settings.precision)
    chosen = backends.variant(engine, settings.precision)
    checked = graphs.read(engine, chosen, settings.micro_batch)

    import torch

    from picme_rt.backends import torch_launches, torch_pipeline, torch_recording

    with torch_recording.reported():
        recorder = torch_recording.OnCuda(torch.device(settings.device))
        encoder, decoder = networks(checked, settings)
        return torch_pipeline.Pipeline(
            encoder,
            decoder,
            engine.tables,
            rows=whole(checked),
            pictures=1,
            latents=settings.micro_batch,
            recorder=recorder,
            launches=torch_launches.OnGpu(recorder.stream),
        )


def check(device: Device, precision: str) -> None:
    """Whether torch is here, sees the device and computes in the precision there.

    Raises:
        MissingPackageError: torch is not installed, or cannot be imported.
        UnavailableError: Another thing is missing; the message says what and how to get it.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as exc:
        raise MissingPackageError(
            f"backend torch is not installed or cannot be imported ({one_line(exc)}); "
            "pip install torch"
        ) from exc
    if device.kind == "cpu":
        if precision == "tf32":
            raise UnavailableError(
                "precision tf32 needs device='cuda', got the CPU; use precision='fp32'"
            )
        return
    if torch.version.cuda is None:
        raise UnavailableError(
            f"device {device.name} needs a torch built for CUDA, got torch {torch.__version__}; "
            "install one as pytorch.org says, or use device='cpu'"
        )
    if not torch.cuda.is_available():
        raise UnavailableError(
            f"device {device.name} needs an NVIDIA GPU and its driver, torch {torch.__version__} "
            f"sees none ({_why_not(torch)}); install a driver (nvidia-smi shows it), or use "
            "device='cpu'"
        )
    if device.number >= (count := torch.cuda.device_count()):
        raise UnavailableError(
            f"device must be one of the {count} GPUs here, cuda:0 on, got {device.name}"
        )


def _why_not(torch: ModuleType) -> str:
    """What torch says itself: no driver, or one that is too old for it."""
    try:
        torch.cuda.init()
    except Exception as exc:  # of several kinds
        return one_line(exc)
    return "it does not say why"


def networks(graphs: Graphs, settings: Settings) -> "tuple[Network, Network]":
    """Encoder and decoder on their device; `check` comes first."""
    import torch

    from picme_rt.backends.torch_network import DTYPES, Network

    place = torch.device(settings.device)
    decoded = settings.precision if settings.precision in DTYPES else "fp32"
    encoded = "tf32" if decoded == "tf32" else "fp32"
    return (
        Network(graphs.encoder.content, graphs.encoder.table, place=place, precision=encoded),
        Network(graphs.decoder.content, graphs.decoder.table, place=place, precision=decoded),
    )


def whole(graphs: Graphs) -> NDArray[np.int64] | None:
    """The input `box` for the whole picture: what is recorded has one shape for all holes."""
    if not graphs.crops:
        return None
    size = next(t.shape[-1] for t in graphs.decoder.table.inputs if t.name == "hole")
    return windows(size, graphs.crops, Box(0, 0, size, size)).rows


def _runners(
    network: "Network",
    graph: Checked,
    batch: int,
    settings: Settings,
    rows: NDArray[np.int64] | None,
) -> Callable[[], Runner]:
    import torch

    from picme_rt.backends.torch_recording import OnCpu, OnCuda
    from picme_rt.backends.torch_runner import TorchRunner

    place = torch.device(settings.device)

    def make() -> Runner:
        recorder = OnCpu(settings.threads) if place.type == "cpu" else OnCuda(place)
        return TorchRunner(network, graph.table, batch, recorder, rows)

    return make

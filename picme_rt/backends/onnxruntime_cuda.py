"""ONNX Runtime on an NVIDIA GPU: what must be there, and buffers that lie there.

ONNX Runtime lists its CUDA provider where there is no GPU, and computes on the CPU where it cannot
start it: whatever is missing is looked for before, and which provider took the graph after.
"""

import contextlib
import sys
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from picme_rt import devices
from picme_rt.backends.host import buffers
from picme_rt.devices import Device
from picme_rt.errors import UnavailableError
from picme_rt.framing import Box
from picme_rt.tensors import Graph
from picme_rt.windows import Crop, windows

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "CUDAExecutionProvider"
_CURE = "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'picme_rt[gpu]'"


def check(ort: ModuleType, device: Device) -> None:
    """Whether this ONNX Runtime can compute on a GPU that is here.

    Raises:
        UnavailableError: Something is missing; the message says what and how to get it.
    """
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        raise UnavailableError(
            "onnxruntime and onnxruntime-gpu are both installed and have overwritten each other's "
            f"files; {_CURE}"
        )
    if PROVIDER not in ort.get_available_providers():
        raise UnavailableError(
            f"device {device.name} needs an ONNX Runtime built for CUDA, got onnxruntime "
            f"{ort.__version__} for the CPU alone; {_CURE}"
        )
    devices.check_gpu(device)


def providers(device: Device) -> list[tuple[str, dict[str, str]]]:
    """The CUDA provider alone, with strict float32.

    No CUDA graphs: ONNX Runtime records them thread by thread, keeps each with its thread's context
    until the end, and while it records, no other thread of the process may ask CUDA for memory.
    """
    options = {
        "device_id": str(device.number),
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",  # no algorithm depends on a time that was measured
    }
    return [(PROVIDER, options)]


def preload(ort: ModuleType) -> None:
    """Lets ONNX Runtime find CUDA and cuDNN in the packages that pip installed."""
    if hasattr(ort, "preload_dlls"):  # from 1.21 on; it prints what it does not find
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()


def check_taken(session: "onnxruntime.InferenceSession", device: Device) -> None:
    """Refuses a session that went to the CPU instead.

    Raises:
        UnavailableError: It did.
    """
    taken = session.get_providers()
    if taken[:1] != [PROVIDER]:
        raise UnavailableError(
            f"ONNX Runtime did not start on {device.name} and would compute with {taken[0]}; "
            "its CUDA and cuDNN must be those that onnxruntime-gpu names: "
            "pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )


class CudaRunner:
    """See `Runner`: arrays of the host, and their copies on the GPU in one binding.

    Args:
        ort: ONNX Runtime.
        session: The graph.
        table: Its inputs and outputs.
        batch: Items a call.
        device: The GPU.
        crops: Of a decoder; it always makes the whole picture here.
    """

    def __init__(
        self,
        ort: ModuleType,
        session: "onnxruntime.InferenceSession",
        table: Graph,
        batch: int,
        *,
        device: Device,
        crops: tuple[Crop, ...],
    ):
        self.inputs, self.outputs = buffers(table.inputs, batch), buffers(table.outputs, batch)
        self._session, self._binding = session, session.io_binding()
        if (rows := self.inputs.pop("box", None)) is not None:
            side = self.outputs["picture"].shape[-1]
            rows[:] = windows(side, crops, Box(0, 0, side, side)).rows
            self._rows = ort.OrtValue.ortvalue_from_numpy(rows)
            self._binding.bind_ortvalue_input("box", self._rows)
        place = ("cuda", device.number)
        self._given: dict[str, Any] = {}
        for name, array in self.inputs.items():
            self._given[name] = ort.OrtValue.ortvalue_from_numpy(array, *place)
            self._binding.bind_ortvalue_input(name, self._given[name])
        self._made: dict[str, Any] = {}
        for name, array in self.outputs.items():
            value = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, np.float32, *place)
            self._made[name] = value
            self._binding.bind_ortvalue_output(name, value)

    def narrow(self, height: int, width: int) -> None:
        """See `Runner`; never asked for, for the picture is always whole."""
        raise AssertionError

    def run(self) -> None:
        """See `Runner`."""
        for name, array in self.inputs.items():
            self._given[name].update_inplace(array)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        for name, array in self.outputs.items():
            found: NDArray[Any] = self._made[name].numpy()
            array[:] = found


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True

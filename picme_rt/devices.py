"""Where an engine runs, by its name: `cpu`, `cuda` (the first GPU) or `cuda:N`."""

import re
import sys
from typing import Literal, NamedTuple

from picme_rt.errors import InputError, UnavailableError

NAMES = "auto, cpu, cuda or cuda:N"
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


class Device(NamedTuple):
    """A device.

    Attributes:
        kind: What it is.
        number: Which GPU, from 0 on; 0 for the CPU.
    """

    kind: Literal["cpu", "cuda"]
    number: int

    @property
    def name(self) -> str:
        """As `parse` takes it, the GPU's number always said."""
        return "cpu" if self.kind == "cpu" else f"cuda:{self.number}"


CPU = Device("cpu", 0)


def parse(name: object) -> Device:
    """The device of a name; whether it is there is for its backend to say.

    `auto` is the CPU: a GPU is taken where somebody asks for it.

    Raises:
        InputError: It is no such name.
    """
    if name in ("auto", "cpu"):
        return CPU
    found = re.fullmatch(r"cuda(?::(0|[1-9]\d{0,2}))?", name) if isinstance(name, str) else None
    if found is None:
        raise InputError(f"device must be one of {NAMES}, got {name!r}")
    return Device("cuda", int(found[1] or 0))


def gpus(asked: str) -> int:
    """How many GPUs this process may use, at least 1; the driver is asked itself, no library.

    Args:
        asked: The device that needs one, for the message.

    Raises:
        UnavailableError: There is none; the message says what is missing and how to get it.
    """
    import ctypes

    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as exc:
        raise UnavailableError(
            f"device {asked} needs the NVIDIA driver, {_DRIVER} is not here; "
            "install the driver (nvidia-smi shows it), or use device='cpu'"
        ) from exc
    count = ctypes.c_int()
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        raise UnavailableError(
            f"device {asked} needs an NVIDIA GPU, its driver names none (error {code}); look at "
            "nvidia-smi and CUDA_VISIBLE_DEVICES, or use device='cpu'"
        )
    return count.value


def check_gpu(device: Device) -> None:
    """Whether this GPU is here.

    Raises:
        UnavailableError: It is not, as `gpus` says.
    """
    count = gpus(device.name)
    if device.number >= count:
        raise UnavailableError(
            f"device must be one of the {count} GPUs here, cuda:0 on, got {device.name}"
        )

"""The devices that share the pictures of a folder."""

import ctypes
import sys

from picme_rt.errors import InputError, UnavailableError

ALL = "all"


def read(text: str) -> list[str]:
    """The names in `--device`: one, several with commas between them, or `all` GPUs.

    The names themselves are judged by `picme_rt.Session`.

    Raises:
        InputError: A name is empty or comes twice.
        UnavailableError: `all`, and there is no driver or no GPU.
    """
    if text == ALL:
        return [f"cuda:{i}" for i in range(_gpus())]
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(
            f"device must be one name, different ones with commas between or {ALL}, got {text!r}"
        )
    return names


def _gpus() -> int:
    """How many GPUs this process may use (CUDA_VISIBLE_DEVICES), as the driver counts them."""
    library, count = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1", ctypes.c_int()
    try:
        driver = ctypes.CDLL(library)
    except OSError as exc:
        raise UnavailableError(
            f"device {ALL} needs an NVIDIA driver, {library} is not here; --device cpu needs none"
        ) from exc
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if failed or not count.value:
        raise UnavailableError(
            f"device {ALL} must find a GPU, the driver names none (CUDA error {failed}); look at "
            "nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
    return count.value

"""The torch device that a training runs on, by its name, and what it computes slowly."""

import torch

from picme_rt.errors import InputError


def named(name: str) -> torch.device:
    """The device of a name, on which a number was put and read back.

    Raises:
        InputError: There is no such device, or this build of torch is without it.
    """
    try:
        found = torch.device(name)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError) as exc:  # no such device, or a build without it
        reason = str(exc).splitlines()[0]
        raise InputError(
            f"device must be a torch device that is here, got {name!r}: {reason}"
        ) from exc
    return found


def emulates_bf16(device: torch.device) -> bool:
    """Whether bfloat16 costs more than float32 there: a CPU that has no instructions for it.

    oneDNN, which computes torch's convolutions, says so itself; only CPUs are asked.
    """
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
    if device.type != "cpu" or not built:
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()

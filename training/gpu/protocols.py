"""The ways in which torch's tensors come into our functions."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

Way = Callable[[torch.Tensor], Any]


class Hidden:
    """A torch tensor that speaks DLPack alone."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self.__dlpack__ = tensor.__dlpack__
        self.__dlpack_device__ = tensor.__dlpack_device__


def as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    """By torch's own `__cuda_array_interface__`."""
    return tensor


def ways() -> dict[str, Way]:
    """Each protocol by its name, CuPy's arrays too where CuPy is."""
    found: dict[str, Way] = {"torch": as_it_is, "DLPack": Hidden}
    if importlib.util.find_spec("cupy"):
        found["CuPy"] = importlib.import_module("cupy").from_dlpack
    return found

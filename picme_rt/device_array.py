"""Results that stay on the GPU, for torch, CuPy, pycuda and whoever else reads an array in place.

They speak CUDA's array interface, version 3, and DLPack, old and 1.x. All work on them is done when
they are handed out: nobody has to wait.
"""

import ctypes
import math
import weakref
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from picme_rt import dlpack
from picme_rt.dlpack import DLTensor, Versioned
from picme_rt.errors import InputError


class _Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", DLTensor),
        ("manager_context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_DESTRUCTOR = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _DESTRUCTOR)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_lent: dict[int, tuple[object, ...]] = {}
"""What DLPack's readers hold, by the address of the structure that they got."""


class DeviceArray:
    """(…) uint8 on a GPU, C-contiguous; its memory goes when nobody holds it.

    Args:
        address: Where it begins.
        shape: Its axes.
        device: DLPack's kind of device and its number: (2, 0) is the first GPU.
        free: Gives the memory back; called once.
        fetch: Copies it to the host.
    """

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        *,
        device: tuple[int, int],
        free: Callable[[], None],
        fetch: Callable[[], NDArray[np.uint8]],
    ):
        self.shape, self.dtype, self._device = shape, np.dtype(np.uint8), device
        self._address, self._fetch = address, fetch
        weakref.finalize(self, free).atexit = False  # the end of the process frees all

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return math.prod(self.shape)

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        if self._device[0] != dlpack.CUDA:
            raise AttributeError("this array is not on a GPU")
        return {
            "shape": self.shape,
            "typestr": "|u1",
            "data": (self._address, False),
            "strides": None,
            "stream": None,  # nothing is queued
            "version": 3,
        }

    def numpy(self) -> NDArray[np.uint8]:
        """A copy on the host."""
        return self._fetch()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A capsule of DLPack; nothing is copied.

        Raises:
            InputError: A copy, or another device, is asked for.
        """
        if copy or dl_device not in (None, self._device):
            raise InputError("an array on the GPU is lent as it lies, it is not copied elsewhere")
        axes = (ctypes.c_int64 * len(self.shape))(*self.shape)
        steps = [math.prod(self.shape[i + 1 :]) for i in range(len(self.shape))]
        strides = (ctypes.c_int64 * len(self.shape))(*steps)
        tensor = DLTensor(
            self._address, *self._device, len(self.shape), 1, 8, 1, axes, strides, 0
        )  # 1 is kDLUInt
        held: Versioned | _Managed
        if max_version is not None and max_version[0] >= 1:
            held, name = Versioned(1, 0, None, _give_back, 0, tensor), b"dltensor_versioned"
        else:
            held, name = _Managed(tensor, None, _give_back), b"dltensor"
        address = ctypes.addressof(held)
        _lent[address] = self, held, axes, strides
        return _new(address, name, _destructor)


def _drop(address: int) -> None:
    _lent.pop(address, None)


def _destroy(capsule: int) -> None:
    """A capsule goes: if nobody took it over its structure goes too."""
    for name in (b"dltensor", b"dltensor_versioned"):
        if _valid(capsule, name):
            _lent.pop(_pointer(capsule, name), None)


_deleter, _destructor = _DELETER(_drop), _DESTRUCTOR(_destroy)
_give_back = ctypes.cast(_deleter, ctypes.c_void_p)

"""A DLPack capsule, read: where an array of another library lies, and what it holds.

The structures are those of dlpack.h, https://dmlc.github.io/dlpack/latest/c_api.html. A capsule
that is read here is not taken over: its own destructor gives the array back.
"""

import ctypes
from typing import NamedTuple, Protocol

import numpy as np

CPU, CUDA, CUDA_MANAGED = 1, 2, 13
_KINDS = {0: "i", 1: "u", 2: "f", 4: "V"}  # DLDataTypeCode, as NumPy's letters
BFLOAT16 = np.dtype("V2")  # for want of a type of NumPy's; torch writes it so too
_READ_ONLY = 1  # of DLManagedTensorVersioned's flags


class SpeaksDlpack(Protocol):
    """An array of any library: torch, CuPy, JAX, TensorFlow, Paddle."""

    def __dlpack__(self, *, stream: int | None = None) -> object:
        """A capsule; the producer orders its work before what `stream` does next."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLDeviceType, and the number of the device."""


class Tensor(NamedTuple):
    """What a capsule says, in NumPy's words.

    Attributes:
        pointer: Address of the first element.
        shape: Of the array.
        strides: In bytes; None for a C-contiguous array.
        dtype: As NumPy writes it; `BFLOAT16` for bfloat16, None for others that it lacks.
        read_only: Whether the producer forbids writing; an old one cannot say so.
        capsule: To be kept while the address is used.
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: np.dtype[np.generic] | None
    read_only: bool
    capsule: object


class DLTensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned of dlpack.h."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    )


# Prototypes of our own: the attributes of ctypes.pythonapi belong to everybody.
_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ("PyCapsule_GetName", ctypes.pythonapi)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def read(array: SpeaksDlpack, stream: int) -> Tensor:
    """The array as it lies there, ready for `stream` (1 is CUDA's default stream).

    Raises:
        ValueError: The capsule is none of DLPack 1.x or older.
    """
    try:  # from DLPack 1.0 on, which alone says whether an array may be written
        capsule = array.__dlpack__(stream=stream, max_version=(1, 0))  # type: ignore[call-arg]
    except TypeError:
        capsule = array.__dlpack__(stream=stream)
    name = _name(capsule)
    if name == b"dltensor":
        held = DLTensor.from_address(_pointer(capsule, name))
        return _described(held, False, capsule)
    if name == b"dltensor_versioned":
        versioned = Versioned.from_address(_pointer(capsule, name))
        if versioned.major == 1:
            return _described(versioned.tensor, bool(versioned.flags & _READ_ONLY), capsule)
        raise ValueError(f"DLPack {versioned.major}.{versioned.minor} is not known, 1.x is")
    raise ValueError(f"a capsule of the name {name!r} is none of DLPack's")


def _described(held: DLTensor, read_only: bool, capsule: object) -> Tensor:
    kind, size = _KINDS.get(held.code), held.bits // 8
    dtype = None
    if kind and held.lanes == 1 and size in ((2,) if kind == "V" else (1, 2, 4, 8)):
        dtype = np.dtype(f"<{kind}{size}")
    shape = tuple(held.shape[i] for i in range(held.ndim))
    strides = None
    if held.strides:
        strides = tuple(held.strides[i] * size for i in range(held.ndim))
    pointer = (held.data or 0) + held.byte_offset
    return Tensor(pointer, shape, strides, dtype, read_only, capsule)

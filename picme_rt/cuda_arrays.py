"""Arrays on a GPU, of any library: their address, checked, and the stream to work on.

torch, CuPy, Numba and pycuda.gpuarray say where an array lies by `__cuda_array_interface__`, JAX
and others by DLPack. Nothing is copied, converted or waited for; CUDA is not loaded here.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from picme_rt import dlpack
from picme_rt.errors import InputError

DEFAULT_STREAM = 1  # cudaStreamLegacy, in CUDA, in __cuda_array_interface__ and in DLPack alike


class SpeaksCuda(Protocol):
    """An array with CUDA's array interface, versions 0 to 3."""

    @property
    def __cuda_array_interface__(self) -> Mapping[str, object]: ...


Stream = int | object
"""The address of a CUDA stream, or an object of a library that has one."""
_ADDRESSES = ("cuda_stream", "ptr", "handle")  # torch's name for it, CuPy's, pycuda's
CudaArray = SpeaksCuda | dlpack.SpeaksDlpack


class Placed(NamedTuple):
    """An array whose dtype, shape and layout were checked.

    Attributes:
        pointer: Address of the first element; 0 where there is none.
        shape: Of the array.
        dtype: One of those that were asked for.
        size: In bytes.
        owner: To be kept while the address is used.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    size: int
    owner: object


def stream_of(arrays: Iterable[object], given: Stream | None) -> int:
    """The stream that a launch on these arrays is queued on.

    Args:
        arrays: Arrays of any library.
        given: The caller's, as a number or as torch, CuPy, pycuda or cuda.core have it; it has
            ordered the arrays' makers before it. None takes the one that the arrays name, and
            CUDA's default stream if none names any.

    Raises:
        InputError: `given` is no stream, or the arrays name different ones.
    """
    if given is not None:
        given = _address(given)
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**64:
            raise InputError(
                f"stream must be the address of a CUDA stream as an integer, got {given!r}: "
                "torch says it in stream.cuda_stream, CuPy in stream.ptr"
            )
        return given or DEFAULT_STREAM
    named = {_interface(array).get("stream") for array in arrays} - {None}
    if len(named) > 1:
        raise InputError(
            f"arrays must name one stream, got {sorted(map(str, named))}: "
            "order them yourself and pass stream="
        )
    found = named.pop() if named else DEFAULT_STREAM
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise InputError(f"an array must name its stream as a positive integer, got {found!r}")
    return found


def _address(stream: Stream) -> Stream:
    """The address that a library's stream has; whatever is no stream stays as it is."""
    if (protocol := getattr(stream, "__cuda_stream__", None)) is not None:  # cuda.core's
        _, address = protocol()
        return int(address)
    for name in _ADDRESSES:
        if isinstance(found := getattr(stream, name, None), int):
            return found
    return stream


def place(
    name: str, array: object, dtypes: str, axes: str, *, stream: int, written: bool = False
) -> Placed:
    """Where an array lies, if a kernel can use it as it is.

    Args:
        name: What an error calls it.
        array: An array of any library.
        dtypes: What it may hold, "float32" or "float16 bfloat16"; bits of bfloat16 as uint16 count
            as bfloat16.
        axes: One letter an axis, "BPD".
        stream: The stream on which it is used; a maker that speaks DLPack orders its work before.
        written: Whether a kernel writes it.

    Raises:
        InputError: It is not on a GPU, or is not as said; nothing is converted.
    """
    pointer, shape, strides, found, read_only, owner = described(name, array, stream)
    dtype = _name(found)
    if dtype == "uint16" and "bfloat16" in dtypes.split():
        dtype = "bfloat16"
    if found is None or dtype not in dtypes.split():
        wanted = dtypes.replace(" ", ", ")
        raise InputError(f"{name} must be {wanted}, got {dtype}: convert it on the GPU")
    if len(shape) != len(axes):
        raise InputError(f"{name} must have the axes ({', '.join(axes)}), got shape {shape}")
    empty = 0 in shape
    if not empty and strides is not None and not contiguous(shape, strides, found.itemsize):
        raise InputError(
            f"{name} must be C-contiguous, got shape {shape} with strides {strides} in bytes: "
            "make a contiguous copy on the GPU"
        )
    if not empty and (pointer == 0 or pointer % found.itemsize):
        raise InputError(
            f"{name} must begin at a multiple of {found.itemsize} bytes, got address {pointer:#x}"
        )
    if written and read_only:
        raise InputError(f"{name} is written, got an array that says it is read-only")
    return Placed(pointer, shape, dtype, math.prod(shape) * found.itemsize, owner)


def check_shape(name: str, found: Placed, expected: tuple[int, ...]) -> None:
    """Refuses an array of another shape.

    Raises:
        InputError: It has one.
    """
    if found.shape != expected:
        raise InputError(f"{name} must be {expected}, got {found.shape}")


def _name(dtype: np.dtype[np.generic] | None) -> str:
    """As torch calls it; a foreign byte order shows."""
    if dtype is None or dtype == dlpack.BFLOAT16:
        return "bfloat16" if dtype else "None"
    return dtype.name if dtype.isnative else dtype.str


def _interface(array: object) -> Mapping[str, object]:
    """What `__cuda_array_interface__` says, nothing for an array without it."""
    try:
        found = getattr(array, "__cuda_array_interface__", None)
    except RuntimeError as exc:  # torch, of a tensor that needs a gradient
        raise InputError(f"an array cannot be read on the GPU: {exc}") from exc
    return found if isinstance(found, Mapping) else {}


def is_on_gpu(array: object) -> bool:
    """Whether an array says that it lies on a GPU."""
    return bool(_interface(array)) or dlpack_gpu(array) is not None


def dlpack_gpu(array: object) -> int | None:
    """The GPU that an array names by DLPack; None for one on the host, or without DLPack."""
    where = getattr(array, "__dlpack_device__", None)
    kind, number = where() if where is not None else (dlpack.CPU, 0)
    return int(number) if kind in (dlpack.CUDA, dlpack.CUDA_MANAGED) else None


def says_its_stream(array: object) -> bool:
    """Whether a reader is told what to wait for by the array's interface alone.

    Before version 3 it had no entry for it; torch's is of version 2.
    """
    interface = _interface(array)
    version = interface.get("version")
    named = interface.get("stream") is not None
    return named or (isinstance(version, int) and version >= 3)


def described(name: str, array: object, stream: int) -> dlpack.Tensor:
    """What an array on a GPU says of itself.

    Raises:
        InputError: It is not on a GPU, or does not say all that is needed.
    """
    if interface := _interface(array):
        return _from_interface(name, array, interface)
    return exported(name, array, stream)


def exported(name: str, array: object, stream: int) -> dlpack.Tensor:
    """What an array on a GPU says by DLPack; what makes it comes before what `stream` does next.

    Raises:
        InputError: It is not on a GPU, or cannot be read.
    """
    where = getattr(array, "__dlpack_device__", None)
    device = where() if where is not None else None
    if device is None or device[0] not in (dlpack.CUDA, dlpack.CUDA_MANAGED):
        kind = f"{type(array).__module__}.{type(array).__qualname__}"
        on = "" if device is None else f" on DLPack's device {int(device[0])}"
        raise InputError(
            f"{name} must be an array on a GPU (__cuda_array_interface__, or DLPack on device 2), "
            f"got {kind}{on}: for arrays on the CPU there is picme_rt.kernels"
        )
    try:
        return dlpack.read(array, stream)  # type: ignore[arg-type]  # it has __dlpack_device__
    except (ValueError, BufferError, RuntimeError, AttributeError) as exc:
        raise InputError(f"{name} cannot be read by DLPack: {exc}") from exc


def _from_interface(name: str, array: object, held: Mapping[str, object]) -> dlpack.Tensor:
    """CUDA's array interface in the words of `dlpack.Tensor`."""
    match held:
        case {"data": (int(pointer), read_only), "shape": tuple(shape), "typestr": str(typestr)}:
            pass
        case _:
            raise InputError(
                f"{name} has a __cuda_array_interface__ without data, shape or typestr"
            )
    if held.get("mask") is not None:
        raise InputError(f"{name} must not be masked, got an array with a mask")
    strides = held.get("strides")
    try:
        dtype = np.dtype(typestr)
    except TypeError:
        dtype = None
    return dlpack.Tensor(
        pointer,
        tuple(int(n) for n in shape),
        tuple(int(n) for n in strides) if isinstance(strides, tuple) else None,
        dtype,
        bool(read_only),
        array,
    )


def contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether strides in bytes are those of a C-contiguous array."""
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True

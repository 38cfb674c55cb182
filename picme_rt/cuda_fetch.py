"""Arrays on a GPU as arguments of a session: fetched, for the host fits pictures to the engine.

What torch, CuPy, Numba and pycuda have is read by address, on its own GPU. pycuda must work in the
primary context (`import pycuda.autoprimaryctx`), as everybody else does.
"""

import numpy as np
from numpy.typing import NDArray

from picme_rt import cuda_arrays, cuda_runtime, dlpack
from picme_rt.errors import InputError


def fetch(name: str, array: object) -> NDArray[np.generic]:
    """A copy on the host; what makes the array is done before.

    That is what its stream has queued; where it names none, as torch, what DLPack orders; where it
    has neither, all that its GPU has to do.

    Args:
        name: What an error calls it.
        array: C-contiguous, of any type of NumPy's.

    Raises:
        InputError: It is not as above.
        MissingPackageError: cuda-python is not installed.
        UnavailableError: There is no driver or GPU.
    """
    stream = cuda_arrays.stream_of([array], None)
    cuda = cuda_runtime.load(_gpu_of(name, array, stream))
    with cuda.use():  # streams without an address, and torch's DLPack, are the current GPU's
        found = cuda_arrays.described(name, array, stream)
        copy = _room(name, found)
        if copy.size:
            if not cuda_arrays.says_its_stream(array):
                if cuda_arrays.dlpack_gpu(array) is not None:
                    cuda_arrays.exported(name, array, stream)
                else:  # last: CUDA refuses it while another thread captures a graph there
                    cuda.synchronise_all()
            cuda.copy(copy.ctypes.data, found.pointer, copy.nbytes, stream)
            cuda.synchronise(stream)
    return copy


def _gpu_of(name: str, array: object, stream: int) -> int:
    """The number of an array's GPU."""
    if (number := cuda_arrays.dlpack_gpu(array)) is not None:
        return number
    found = cuda_arrays.described(name, array, stream)
    if 0 in found.shape:
        return 0  # it has no address
    if (number := cuda_runtime.load().holder(found.pointer)) is None:
        raise InputError(
            f"{name} must lie on a GPU, its address {found.pointer:#x} does not: pass an array of "
            "the host as one of NumPy's"
        )
    return number


def _room(name: str, found: dlpack.Tensor) -> NDArray[np.generic]:
    """An array like one on a GPU."""
    if found.dtype is None or found.dtype.kind not in "biuf":
        raise InputError(f"{name} must be bool, integers or floats, got {found.dtype}")
    strides = found.strides
    if strides is not None and not cuda_arrays.contiguous(
        found.shape, strides, found.dtype.itemsize
    ):
        raise InputError(
            f"{name} must be C-contiguous, got shape {found.shape} with strides {strides} in "
            "bytes: make a contiguous copy on the GPU"
        )
    return np.empty(found.shape, found.dtype)

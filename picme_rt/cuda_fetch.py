"""Arrays on a GPU as arguments of a session: fetched, for the host fits pictures to the engine.

What torch, CuPy, Numba and pycuda have is read by address and on the stream that it names; pycuda
must work in the primary context (`import pycuda.autoprimaryctx`), as everybody else does.
"""

import numpy as np
from numpy.typing import NDArray

from picme_rt import cuda_arrays, cuda_runtime
from picme_rt.errors import InputError


def fetch(name: str, array: object) -> NDArray[np.generic]:
    """A copy on the host; whatever its stream has queued is done before.

    Args:
        name: What an error calls it.
        array: C-contiguous, of any type of NumPy's.

    Raises:
        InputError: It is not as above.
        MissingPackageError: cuda-python is not installed.
        UnavailableError: There is no driver or GPU.
    """
    stream = cuda_arrays.stream_of([array], None)
    found = cuda_arrays.described(name, array, stream)
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
    copy = np.empty(found.shape, found.dtype)
    if copy.size:
        cuda = cuda_runtime.load()
        cuda.copy(copy.ctypes.data, found.pointer, copy.nbytes, stream)
        cuda.synchronise(stream)
    return copy

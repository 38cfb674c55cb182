"""Results that stay on the GPU, read by other libraries: here memory of the host's, said to be it.

NumPy and torch read DLPack for real; only the GPU's address is made up.
"""

import gc

import numpy as np
import pytest
import torch

from picme_rt import device_array, dlpack
from picme_rt.cuda_arrays import place
from picme_rt.device_array import DeviceArray
from picme_rt.errors import InputError

SHAPE = (2, 3, 5, 3)


class Memory:
    """Bytes that say when they are given back."""

    def __init__(self):
        self.values = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)
        self.freed = 0

    def free(self):
        self.freed += 1

    def array(self, device):
        return DeviceArray(
            self.values.ctypes.data, SHAPE, device=device, free=self.free, fetch=self.values.copy
        )


@pytest.fixture
def memory():
    return Memory()


HOST, GPU = (dlpack.CPU, 0), (dlpack.CUDA, 1)


@pytest.mark.parametrize("read", [np.from_dlpack, torch.from_dlpack], ids=["numpy", "torch"])
def test_a_reader_copies_nothing_and_may_outlive_us(memory, read):
    array = memory.array(HOST)
    view = read(array)
    del array
    gc.collect()
    assert memory.freed == 0
    memory.values[1, 2, 4, 2] = 77
    assert tuple(view.shape) == SHAPE
    assert (np.asarray(view) == memory.values).all()
    assert int(view[1, 2, 4, 2]) == 77
    del view
    gc.collect()
    assert memory.freed == 1
    assert not device_array._lent


@pytest.mark.parametrize("version", [None, (1, 0), (2, 3)])
def test_a_capsule_that_nobody_takes_gives_all_back(memory, version):
    capsule = memory.array(GPU).__dlpack__(stream=1, max_version=version)
    assert "versioned" in repr(capsule) or version is None
    assert memory.freed == 0
    del capsule
    assert memory.freed == 1
    assert not device_array._lent


def test_our_own_kernels_take_it(memory):
    array = memory.array(GPU)
    for way in (array, SpeaksDlpackAlone(array)):
        found = place("out", way, "uint8", "kHW3", stream=1, written=True)
        assert found[:3] == (memory.values.ctypes.data, SHAPE, "uint8")
    assert (array.numpy() == memory.values).all()
    assert array.nbytes == memory.values.nbytes


class SpeaksDlpackAlone:
    def __init__(self, array):
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


def test_it_is_lent_where_it_lies_or_not_at_all(memory):
    array = memory.array(GPU)
    assert array.__dlpack_device__() == GPU
    for asked in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(InputError, match="is lent as it lies, it is not copied"):
            array.__dlpack__(**asked)
    assert not hasattr(memory.array(HOST), "__cuda_array_interface__")

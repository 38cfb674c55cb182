"""Arrays on a GPU come to the host whole: from their own GPU, after what makes them."""

import fake_cuda
import numpy as np
import pytest

from picme_rt import cuda_fetch, cuda_runtime, dlpack
from picme_rt.device_array import DeviceArray
from picme_rt.errors import InputError

VALUES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
NUMBER = 1  # the GPU of all arrays here


class Gpu(fake_cuda.FakeCuda):
    """A GPU that is not the first, and which others were asked for."""

    def __init__(self):
        super().__init__()
        self.about = self.about._replace(number=NUMBER)
        self.asked = []

    def copy(self, to, source, size, stream):
        assert self.current == NUMBER
        super().copy(to, source, size, stream)


@pytest.fixture
def gpu(monkeypatch):
    found = Gpu()
    monkeypatch.setattr(cuda_runtime, "load", lambda number=0: found.asked.append(number) or found)
    yield found
    assert found.current is None
    assert not any(found.streams.values())


class Late:
    """`VALUES` on the GPU, as soon as work on a stream is done that waits for no other."""

    def __init__(self, gpu, **interface):
        self.gpu, self.address, self.stream = gpu, gpu.allocate(VALUES.nbytes), gpu.new_stream()
        gpu.streams[self.stream].append(self.make)
        self.__cuda_array_interface__ = {
            "shape": VALUES.shape,
            "strides": None,
            "data": (self.address, False),
            "typestr": "|u1",
            **interface,
        }

    def make(self):
        self.gpu.array(self.address, VALUES.shape, np.uint8)[:] = VALUES


class Torch(Late):
    """A tensor of torch's: its interface is of version 2, DLPack orders its work."""

    def __init__(self, gpu):
        super().__init__(gpu, version=2)

    def __dlpack_device__(self):
        return dlpack.CUDA, NUMBER

    def __dlpack__(self, *, stream, max_version=None):
        assert self.gpu.current == NUMBER, "torch lends on the current GPU alone"
        self.gpu.streams[stream].append(lambda: self.gpu.synchronise(self.stream))
        lent = DeviceArray(
            self.address, VALUES.shape, device=self.__dlpack_device__(), free=int, fetch=int
        )
        return lent.__dlpack__(max_version=max_version)


class OnlyDlpack(Torch):
    __cuda_array_interface__ = property(lambda self: {}, lambda self, value: None)


@pytest.mark.parametrize("kind", [Torch, OnlyDlpack])
def test_what_names_no_stream_is_ordered_by_dlpack(gpu, kind):
    assert (cuda_fetch.fetch("img", kind(gpu)) == VALUES).all()
    assert gpu.asked == [NUMBER]


def test_a_stream_that_is_named_is_waited_for(gpu):
    array = Late(gpu, version=3)
    array.__cuda_array_interface__["stream"] = array.stream
    assert (cuda_fetch.fetch("img", array) == VALUES).all()
    assert gpu.asked == [0, NUMBER]  # whose address that is any GPU can say


def test_what_says_nothing_of_streams_waits_for_all(gpu):
    assert (cuda_fetch.fetch("img", Late(gpu, version=2)) == VALUES).all()


def test_what_needs_no_wait_waits_for_nobody_else(gpu):
    other = Late(gpu, stream=None, version=3)
    array = Late(gpu, stream=None, version=3)
    gpu.synchronise(array.stream)
    assert (cuda_fetch.fetch("img", array) == VALUES).all()
    assert gpu.streams[other.stream]
    gpu.synchronise(other.stream)


def test_an_address_of_the_host_is_refused(gpu):
    array = Late(gpu, version=3)
    gpu.synchronise(array.stream)
    array.__cuda_array_interface__["data"] = VALUES.ctypes.data, False
    with pytest.raises(InputError, match=r"img must lie on a GPU, its address 0x\w+ does not"):
        cuda_fetch.fetch("img", array)


def test_an_array_without_elements_needs_no_address(gpu):
    array = Late(gpu, version=2)
    gpu.synchronise(array.stream)
    array.__cuda_array_interface__ |= {"shape": (0, 3), "data": (0, False)}
    assert cuda_fetch.fetch("img", array).shape == (0, 3)

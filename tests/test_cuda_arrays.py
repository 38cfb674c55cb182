"""Arrays that only say that they lie on a GPU: what is read off them, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from picme_rt.cuda_arrays import place, stream_of
from picme_rt.errors import InputError

FLOATS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


class Speaks:
    """What CuPy's arrays say, of memory that NumPy holds."""

    def __init__(self, array=FLOATS, **said):
        strides = None if array.flags.c_contiguous else array.strides
        self.__cuda_array_interface__ = {
            "data": (array.ctypes.data, False),
            "shape": array.shape,
            "strides": strides,
            "typestr": array.dtype.str,
            "version": 3,
            **said,
        }


class SpeaksDlpack:
    """A capsule that torch or NumPy made, said to be of a GPU; it notes what it was asked."""

    def __init__(self, array, device=(2, 0), old=False):
        self.array, self.device, self.old, self.streams = array, device, old, []

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, **options):
        if self.old and options:
            raise TypeError("unexpected keyword argument 'max_version'")
        self.streams.append(stream)
        return self.array.__dlpack__(**options)


class Broken(SpeaksDlpack):
    def __dlpack__(self, *, stream=None):
        return self.array


def placed(array, dtype="float32", axes="BPD", **options):
    return place("mu", array, dtype, axes, stream=7, **options)


def test_the_array_interface_gives_address_and_shape():
    found = placed(Speaks())
    assert (found.pointer, found.shape) == (FLOATS.ctypes.data, (2, 3, 4))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("maker", [np.asarray, torch.from_numpy])
def test_a_capsule_gives_address_and_shape_and_is_made_for_the_stream(maker, old):
    array = SpeaksDlpack(maker(FLOATS[1:]), old=old)
    found = placed(array)
    assert (found.pointer, found.shape) == (FLOATS[1:].ctypes.data, (1, 3, 4))
    assert array.streams == [7]


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int32", "uint64"])
def test_every_dtype_of_the_kernels_is_read_in_both_ways(dtype):
    array = np.ones((2, 2), dtype)
    for said in (Speaks(array), SpeaksDlpack(array)):
        found = placed(said, f"float64 {dtype}", "Bk")
        assert (found.pointer, found.dtype, found.size) == (array.ctypes.data, dtype, array.nbytes)


def test_bfloat16_comes_as_torch_calls_it_or_as_its_bits():
    array = torch.ones(2, 2).bfloat16()
    bits = array.view(torch.uint16).numpy()
    for said in (SpeaksDlpack(array), Speaks(bits, typestr="<V2"), Speaks(bits)):
        found = placed(said, "float32 bfloat16", "Bk")
        assert (found.pointer, found.dtype, found.size) == (array.data_ptr(), "bfloat16", 8)


def test_an_empty_array_may_have_no_address_and_any_strides():
    empty = np.zeros((0, 3, 4), np.float32)
    said = Speaks(empty, data=(0, False), strides=(1, 1, 1))
    assert placed(said).shape == (0, 3, 4)


def test_an_axis_of_one_may_have_any_stride():
    said = Speaks(FLOATS[:, :1].copy(), strides=(16, 99, 4))
    assert placed(said).shape == (2, 1, 4)


STRIDED = FLOATS[:, ::2]


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (FLOATS, {}, r"mu must be an array on a GPU .*got numpy.ndarray on DLPack's device 1"),
        (torch.ones(2), {}, r"got torch.Tensor on DLPack's device 1: .* picme_rt.kernels"),
        ([1.0], {}, "mu must be an array on a GPU .*got builtins.list:"),
        (SpeaksDlpack(FLOATS, device=(10, 0)), {}, "DLPack's device 10"),
        (Speaks(), {"dtype": "int32"}, "mu must be int32, got float32: convert it on the GPU"),
        (SpeaksDlpack(FLOATS), {"dtype": "uint64"}, "mu must be uint64, got float32"),
        (SpeaksDlpack(torch.ones(2).bfloat16()), {}, "mu must be float32, got bfloat16"),
        (Speaks(FLOATS.astype(np.uint16)), {}, "mu must be float32, got uint16"),
        (Speaks(), {"dtype": "float16 bfloat16"}, "mu must be float16, bfloat16, got float32"),
        (Speaks(typestr="<V4"), {}, "mu must be float32, got void32"),
        (Speaks(typestr="nonsense"), {}, "mu must be float32, got None"),
        (Speaks(FLOATS.astype(">f4")), {}, "mu must be float32, got >f4"),
        (Speaks(), {"axes": "BP"}, r"mu must have the axes \(B, P\), got shape \(2, 3, 4\)"),
        (Speaks(STRIDED), {}, r"mu must be C-contiguous, .* strides \(48, 32, 4\) in bytes"),
        (SpeaksDlpack(STRIDED), {}, r"mu must be C-contiguous, .* strides \(48, 32, 4\) in bytes"),
        (SpeaksDlpack(torch.from_numpy(STRIDED)), {}, r"C-contiguous, .* strides \(48, 32, 4\)"),
        (
            Speaks(data=(4098, False)),
            {},
            "mu must begin at a multiple of 4 bytes, got address 0x1002",
        ),
        (Speaks(data=(0, False)), {}, "mu must begin at a multiple of 4 bytes, got address 0x0"),
        (Speaks(data=(16, True)), {"written": True}, "mu is written, got an array .* read-only"),
        (Speaks(mask=Speaks()), {}, "mu must not be masked"),
        (Speaks(data=None), {}, "without data, shape or typestr"),
        (Broken(FLOATS), {}, "mu cannot be read by DLPack: .*"),
    ],
)
def test_what_a_kernel_cannot_use_is_refused(array, options, message):
    with pytest.raises(InputError, match=message):
        placed(array, **options)


def test_a_capsule_that_says_read_only_is_read_but_not_written():
    array = FLOATS.copy()
    array.flags.writeable = False
    assert placed(SpeaksDlpack(array)).pointer == array.ctypes.data
    with pytest.raises(InputError, match="mu is written, got an array that says it is read-only"):
        placed(SpeaksDlpack(array), written=True)


def test_the_error_of_an_array_that_cannot_say_where_it_lies_is_passed_on():
    class NeedsGradient:
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("use var.detach()")

    with pytest.raises(InputError, match=r"cannot be read on the GPU: use var\.detach"):
        placed(NeedsGradient())


# Streams


@pytest.mark.parametrize(
    ("named", "given", "stream"),
    [
        ([], None, 1),
        ([None, None], None, 1),
        ([None, 2, 2], None, 2),
        ([94_000_000, None], None, 94_000_000),
        ([5, 6], 7, 7),
        ([5], 0, 1),  # 0 is what torch calls CUDA's default stream
    ],
)
def test_the_stream_is_the_given_one_else_the_arrays_else_the_default(named, given, stream):
    assert stream_of([Speaks(stream=name) for name in named], given) == stream


def test_an_array_without_the_interface_names_no_stream():
    assert stream_of([SpeaksDlpack(FLOATS), Speaks(stream=9)], None) == 9


@pytest.mark.parametrize("name", ["cuda_stream", "ptr", "handle"])
def test_a_stream_may_be_an_object_of_a_library(name):
    """torch's, CuPy's and pycuda's name for the address; then the protocol of cuda.core."""
    assert stream_of([], SimpleNamespace(**{name: 5})) == 5
    assert stream_of([], SimpleNamespace(**{name: 0})) == 1


def test_a_stream_may_speak_the_protocol_of_cuda_core():
    assert stream_of([], SimpleNamespace(__cuda_stream__=lambda: (0, 9), handle=object())) == 9


@pytest.mark.parametrize(
    ("named", "given", "message"),
    [
        ([5, 6], None, r"one stream, got \['5', '6'\]: order them yourself and pass stream="),
        ([0], None, "must name its stream as a positive integer, got 0"),
        (["5"], None, "must name its stream as a positive integer, got '5'"),
        ([], -1, "stream must be the address of a CUDA stream as an integer, got -1"),
        ([], True, "stream must be .* got True"),
        ([], object(), "stream must be .* torch says it in stream.cuda_stream"),
    ],
)
def test_a_stream_that_is_none_is_refused(named, given, message):
    with pytest.raises(InputError, match=message):
        stream_of([Speaks(stream=name) for name in named], given)

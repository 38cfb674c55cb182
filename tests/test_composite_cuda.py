"""`composite_cuda` up to the launch, which a recorder stands in for."""

import dataclasses

import numpy as np
import pytest

from picme_rt import _kernels, composite, framing, resample
from picme_rt.composite_cuda import composite_cuda
from picme_rt.errors import InputError, UnavailableError
from picme_rt.packed_canvases import pack

B, K, S, H, W = 2, 4, 16, 40, 50


def canvases():
    hole = np.zeros((H, W), bool)
    hole[10:21, 16:26] = True
    (region,) = framing.regions(hole, S, "aligned")
    fitted = composite.fit(np.zeros((H, W, 3), np.uint8), hole, region, S)
    return pack([composite.canvas(fitted, hole, region)] * B)


CANVASES = canvases()
SHAPES = {
    "pictures": (B, K, 3, S, S),
    "originals": (B, H, W, 3),
    "packed": CANVASES.data.shape,
    "out": (B, K, H, W, 3),
    "scratch": CANVASES.scratch_shape(K),
}
FLOATS = ("pictures", "scratch")
PLACES = {name: 0x1000000 * (i + 1) for i, name in enumerate(SHAPES)}


class OnGpu:
    """An array that says it lies on a GPU."""

    def __init__(self, name, shape=None, place=None, **said):
        self.__cuda_array_interface__ = {
            "data": (PLACES[name] if place is None else place, False),
            "shape": SHAPES[name] if shape is None else shape,
            "typestr": "<f4" if name in FLOATS else "|u1",
            "version": 2,
            **said,
        }


@pytest.fixture
def launches(monkeypatch):
    """What reaches the compiled module."""
    seen = []
    monkeypatch.setattr(
        _kernels, "composite_cuda", lambda **given: seen.append(given), raising=False
    )
    return seen


def call(stream=None, **changed):
    arrays = {name: OnGpu(name) for name in SHAPES} | changed
    return composite_cuda(
        arrays["pictures"],
        arrays["originals"],
        CANVASES,
        arrays["packed"],
        out=arrays["out"],
        scratch=arrays["scratch"],
        stream=stream,
    )


def test_the_launcher_gets_addresses_sizes_and_stream(launches):
    assert call(stream=77) is None
    sizes = {"batch": B, "k": K, "size": S, "grid": 16, "height": H, "width": W}
    assert launches == [PLACES | sizes | {"dtype": "float32", "stream": 77}]


@pytest.mark.parametrize(
    ("typestr", "dtype"),
    [("<f4", "float32"), ("<f2", "float16"), ("<V2", "bfloat16"), ("<u2", "bfloat16")],
)
def test_pictures_may_be_of_every_type_of_the_cpu(launches, typestr, dtype):
    call(pictures=OnGpu("pictures", typestr=typestr))
    assert launches[0]["dtype"] == dtype


def test_without_originals_none_are_read(launches):
    call(originals=None)
    assert launches[0]["originals"] == 0


def test_the_stream_of_the_arrays_is_taken_else_the_default(launches):
    call()
    call(out=OnGpu("out", stream=55))
    assert [seen["stream"] for seen in launches] == [1, 55]


def test_room_for_other_canvases_is_no_error(launches):
    call(packed=OnGpu("packed", (CANVASES.data.size + 999,)))
    size = 64
    bigger = pack([wide_canvas(size)])
    shapes = {"scratch": (1, 2, 3, 64, 128), "pictures": (1, 2, 3, size, size)}
    arrays = {name: OnGpu(name, shape) for name, shape in shapes.items()}
    out = OnGpu("out", (1, 2, H, W, 3))
    packed = OnGpu("packed", bigger.data.shape)
    composite_cuda(arrays["pictures"], None, bigger, packed, out=out, scratch=arrays["scratch"])
    assert bigger.grid == 32
    assert launches[1]["grid"] == 64


def wide_canvas(size):
    """A canvas whose grid is half as fine as usual."""
    hole = np.ones((H, W), bool)
    (region,) = framing.regions(hole, size, "aligned")
    fitted = composite.fit(np.zeros((H, W, 3), np.uint8), hole, region, size)
    return dataclasses.replace(
        composite.canvas(fitted, hole, region),
        pull=np.ones((32, 32), np.float32),
        blur=resample.blur(32, 1.0),
        grow=resample.taps(32, size, "triangle"),
    )


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("pictures", (B, K, S, S), r"pictures must have the axes \(B, k, 3, S, S\)"),
        ("pictures", (B, K, 3, S, S + 1), r"pictures must be \(2, 4, 3, 16, 16\), got"),
        ("pictures", (1, K, 3, S, S), r"pictures must be \(2, 4, 3, 16, 16\), got"),
        ("originals", (B, H, W + 1, 3), r"originals must be \(2, 40, 50, 3\), got"),
        ("originals", (1, H, W, 3), r"originals must be \(2, 40, 50, 3\), got"),
        ("out", (B, K + 1, H, W, 3), r"out must be \(2, 4, 40, 50, 3\), got"),
        ("out", (B, K, H, W, 4), r"out must be \(2, 4, 40, 50, 3\), got"),
        ("out", (B, K, 20, W, 3), "out must be at least 21 x 26 for the boxes .* got 20 x 50"),
        ("out", (B, K, H, 25, 3), "out must be at least 21 x 26 for the boxes .* got 40 x 25"),
        ("scratch", (B, K, 3, 15, 31), r"scratch must be \(2, 4, 3, 16, 32\), got"),
        ("scratch", (B, K, 3, 16, 16), r"scratch must be \(2, 4, 3, 16, 32\), got"),
        ("scratch", (B, K, 3, 17, 33), "scratch must have a g of at most 16, got 17"),
        ("packed", (CANVASES.data.size - 1,), "packed must hold the .* bytes of its canvases"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(launches, name, shape, message):
    with pytest.raises(InputError, match=message):
        call(**{name: OnGpu(name, shape)})
    assert not launches


@pytest.mark.parametrize("name", SHAPES)
def test_every_array_must_lie_on_a_gpu_and_hold_its_dtype(launches, name):
    with pytest.raises(InputError, match=f"{name} must be an array on a GPU"):
        call(**{name: np.zeros(SHAPES[name], np.float32 if name in FLOATS else np.uint8)})
    with pytest.raises(InputError, match=f"{name} must be .*, got float64"):
        call(**{name: OnGpu(name, typestr="<f8")})
    assert not launches


@pytest.mark.parametrize("name", ["out", "scratch"])
def test_what_is_written_may_be_written_and_overlaps_with_nothing(launches, name):
    with pytest.raises(InputError, match=f"{name} is written, got .* read-only"):
        call(**{name: OnGpu(name, data=(PLACES[name], True))})
    for other in set(SHAPES) - {name}:
        inside = OnGpu(name, place=PLACES[other] + 8)
        with pytest.raises(InputError, match=r"must not overlap with (pict|orig|pack|out|scr)"):
            call(**{name: inside})
    assert not launches


def test_packed_canvases_begin_where_their_numbers_can_be_read(launches):
    with pytest.raises(InputError, match="at address 0x3000008"):
        call(packed=OnGpu("packed", place=PLACES["packed"] + 8))
    assert not launches


def test_kernels_built_without_cuda_say_so_and_how_to_build_them(monkeypatch):
    monkeypatch.delattr(_kernels, "composite_cuda", raising=False)
    with pytest.raises(UnavailableError, match=r"composite_cuda needs kernels built with nvcc"):
        call()


needs_cuda = pytest.mark.skipif(
    not hasattr(_kernels, "composite_cuda"), reason="this module is built without nvcc"
)


@needs_cuda
def test_an_address_that_is_on_no_gpu_never_reaches_a_kernel():
    with pytest.raises((UnavailableError, InputError), match=r"needs a GPU that works|must lie on"):
        call()


@needs_cuda
def test_no_completions_need_no_gpu():
    none = {"pictures": (B, 0, 3, S, S), "out": (B, 0, H, W, 3)}
    none["scratch"] = CANVASES.scratch_shape(0)
    call(**{name: OnGpu(name, shape, place=0) for name, shape in none.items()})

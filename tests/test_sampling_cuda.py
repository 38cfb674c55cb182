"""`sample_gmm_cuda` up to the launch, which a recorder stands in for."""

import inspect

import numpy as np
import pytest

from picme_rt import _kernels, kernels
from picme_rt.errors import InputError, UnavailableError
from picme_rt.sampling_cuda import sample_gmm_cuda

B, P, D, K = 2, 3, 5, 4
DTYPES = {"seeds": np.uint64, "out_primitive": np.int32}
SHAPES = {
    "log_alpha": (B, P),
    "mu": (B, P, D),
    "log_sigma": (B, P, D),
    "seeds": (B,),
    "out_z": (B, K, D),
    "out_primitive": (B, K),
    "out_log_prob": (B, K),
}


class OnGpu:
    """An array that says it lies on a GPU; each has an address of its own."""

    def __init__(self, address, shape, dtype, **said):
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "version": 2,
            **said,
        }


@pytest.fixture
def arrays():
    """The arguments of a call, all of them right."""
    return {
        name: OnGpu(0x1000 * (i + 1), shape, DTYPES.get(name, np.float32))
        for i, (name, shape) in enumerate(SHAPES.items())
    }


@pytest.fixture
def launches(monkeypatch):
    """What reaches the compiled module."""
    seen = []
    monkeypatch.setattr(
        _kernels, "sample_gmm_cuda", lambda **given: seen.append(given), raising=False
    )
    return seen


def changed(arrays, name, shape=None, **said):
    shape = SHAPES[name] if shape is None else shape
    return arrays | {name: OnGpu(0x9000, shape, DTYPES.get(name, np.float32), **said)}


def call(arrays, **options):
    inputs = [arrays[name] for name in ("log_alpha", "mu", "log_sigma", "seeds")]
    outputs = {name: array for name, array in arrays.items() if name.startswith("out_")}
    return sample_gmm_cuda(*inputs, **outputs, **{"k": K, **options})


def test_the_launcher_gets_addresses_sizes_options_and_stream(arrays, launches):
    given = {"first": 6, "primitive": 2, "temperature": 0.5, "stream": 77}
    assert call(arrays, **given) is None
    addresses = {name: 0x1000 * (i + 1) for i, name in enumerate(SHAPES)}
    sizes = {"batch": B, "primitives": P, "dim": D, "k": K, "mode": "categorical"}
    assert launches == [addresses | sizes | given | {"dtype": "float32"}]


@pytest.mark.parametrize(
    ("typestr", "dtype"),
    [("<f4", "float32"), ("<f2", "float16"), ("<V2", "bfloat16"), ("<u2", "bfloat16")],
)
def test_z_is_rounded_to_what_its_array_holds(arrays, launches, typestr, dtype):
    call(changed(arrays, "out_z", typestr=typestr))
    assert launches[0]["dtype"] == dtype


def test_the_options_have_the_defaults_of_the_cpu(arrays, launches):
    call(arrays)
    (seen,) = launches
    there = inspect.signature(kernels.sample_gmm).parameters
    for name in ("first", "mode", "primitive", "temperature"):
        assert seen[name] == there[name].default


def test_without_room_for_log_prob_none_is_computed(arrays, launches):
    del arrays["out_log_prob"]
    call(arrays)
    assert launches[0]["out_log_prob"] == 0


def test_the_stream_of_the_arrays_is_taken_else_the_default(arrays, launches):
    call(arrays)
    call(changed(arrays, "out_z", stream=55))
    assert [seen["stream"] for seen in launches] == [1, 55]


def test_no_images_are_no_error(launches):
    shapes = {name: (0, *shape[1:]) for name, shape in SHAPES.items()}
    call({name: OnGpu(0, s, DTYPES.get(name, np.float32)) for name, s in shapes.items()})
    assert launches[0]["batch"] == 0


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("log_alpha", (B, 0), "log_alpha must be .* with P at least 1"),
        ("log_alpha", (B, P, 1), r"log_alpha must have the axes \(B, P\)"),
        ("mu", (B, P + 1, D), r"mu must be .* \(2, 3\) as log_alpha, got \(2, 4, 5\)"),
        ("mu", (B, P, 0), "mu must be .* D at least 1"),
        ("log_sigma", (B, P, D + 1), r"log_sigma must be \(2, 3, 5\), got \(2, 3, 6\)"),
        ("seeds", (B + 1,), r"seeds must be \(2,\), got \(3,\)"),
        ("out_z", (B, K, D - 1), r"out_z must be \(2, 4, 5\), got \(2, 4, 4\)"),
        ("out_z", (B, K + 1, D), r"out_z must be \(2, 4, 5\)"),
        ("out_primitive", (B, K + 1), r"out_primitive must be \(2, 4\), got \(2, 5\)"),
        ("out_log_prob", (B + 1, K), r"out_log_prob must be \(2, 4\), got \(3, 4\)"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(arrays, launches, name, shape, message):
    with pytest.raises(InputError, match=message):
        call(changed(arrays, name, shape))
    assert not launches


@pytest.mark.parametrize("name", SHAPES)
def test_every_array_must_lie_on_a_gpu_and_hold_its_dtype(arrays, launches, name):
    with pytest.raises(InputError, match=f"{name} must be an array on a GPU"):
        call(arrays | {name: np.zeros(SHAPES[name], DTYPES.get(name, np.float32))})
    with pytest.raises(InputError, match=f"{name} must be .*, got float64"):
        call(changed(arrays, name, typestr="<f8"))
    assert not launches


@pytest.mark.parametrize("name", ["out_z", "out_primitive", "out_log_prob"])
def test_an_output_must_be_one_that_may_be_written(arrays, launches, name):
    with pytest.raises(InputError, match=f"{name} is written, got .* read-only"):
        call(changed(arrays, name, data=(0x9000, True)))
    assert not launches


def test_inputs_may_be_read_only(arrays, launches):
    call(changed(arrays, "mu", data=(0x9000, True)))
    assert launches[0]["mu"] == 0x9000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be an integer from 1"),
        ({"primitive": P}, "primitive must be an integer from 0 to 2"),
        ({"mode": "best"}, "mode must be one of"),
        ({"temperature": -1}, "temperature must be a finite number"),
        ({"stream": -1}, "stream must be the address"),
    ],
)
def test_the_options_are_checked_as_on_the_cpu(arrays, launches, options, message):
    with pytest.raises(InputError, match=message):
        call(arrays, **options)
    assert not launches


# What the compiled module says


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        (
            RuntimeError("no CUDA-capable device is detected"),
            UnavailableError,
            "CUDA says: no CUDA",
        ),
        (ValueError("mu must lie on a GPU"), InputError, "sample_gmm_cuda: mu must lie on a GPU"),
    ],
)
def test_errors_of_the_launcher_are_told(arrays, monkeypatch, said, error, message):
    def launch(**_):
        raise said

    monkeypatch.setattr(_kernels, "sample_gmm_cuda", launch, raising=False)
    with pytest.raises(error, match=message):
        call(arrays)


def test_kernels_built_without_cuda_say_so_and_how_to_build_them(arrays, monkeypatch):
    monkeypatch.delattr(_kernels, "sample_gmm_cuda", raising=False)
    with pytest.raises(UnavailableError, match=r"these are for CP.*: run `PICME_CUDA=ON pip"):
        call(arrays)


def test_a_module_that_is_not_built_is_told(arrays, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "picme_rt._kernels", None)
    with pytest.raises(UnavailableError, match=r"which is not built: run `PICME_CUDA=ON pip"):
        call(arrays)


needs_cuda = pytest.mark.skipif(
    not hasattr(_kernels, "sample_gmm_cuda"), reason="this module is built without nvcc"
)


@needs_cuda
def test_an_address_that_is_on_no_gpu_never_reaches_a_kernel(arrays):
    with pytest.raises((UnavailableError, InputError), match=r"needs a GPU that works|must lie on"):
        call(arrays)


@needs_cuda
def test_no_images_need_no_gpu():
    shapes = {name: (0, *shape[1:]) for name, shape in SHAPES.items()}
    call({name: OnGpu(0, s, DTYPES.get(name, np.float32)) for name, s in shapes.items()})

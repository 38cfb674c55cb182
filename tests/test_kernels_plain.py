"""The usual call of sample_gmm goes by a way of its own: the same bits, and nothing let through."""

import itertools
import sys
import threading

import numpy as np
import pytest

from picme_rt import _kernels
from picme_rt.errors import InputError
from picme_rt.kernels import sample_gmm

OPTIONS = {
    "k": 5,
    "first": 0,
    "mode": "categorical",
    "primitive": None,
    "temperature": 1.0,
    "dtype": "float32",
    "log_prob": True,
    "impl": "auto",
    "threads": None,
}


def mixture(batch=2, primitives=3, dim=40):
    rng = np.random.default_rng([batch, primitives, dim])
    log_alpha = rng.normal(size=(batch, primitives)).astype(np.float32)
    mu, log_sigma = rng.normal(size=(2, batch, primitives, dim)).astype(np.float32)
    return log_alpha, mu, log_sigma, rng.integers(0, 2**64, batch, np.uint64)


def plain(*arrays, **options):
    """The way itself: None where it leaves a call to the other one."""
    return _kernels.sample_gmm_plain(*arrays, *{**OPTIONS, **options}.values())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_both_ways_give_the_same_arrays(batch, dtype, monkeypatch):
    arrays = mixture(batch)
    modes = ({}, {"primitive": 2}, {"mode": "per_primitive"}, {"mode": "mean"})
    for mode, log_prob, threads in itertools.product(modes, (False, True), (None, 1, 3)):
        options = {**mode, "dtype": dtype, "log_prob": log_prob, "threads": threads}
        for more in ({}, {"first": 2**32 - 5}, {"temperature": 0.25, "k": 1}):
            usual = sample_gmm(*arrays, **{**OPTIONS, **options, **more})
            with monkeypatch.context() as patch:
                patch.setattr(_kernels, "sample_gmm_plain", lambda *_: None)
                other = sample_gmm(*arrays, **{**OPTIONS, **options, **more})
            assert plain(*arrays, **options, **more) is not None
            assert type(usual) is type(other)
            for one, two in zip(usual, other, strict=True):
                if one is None:
                    assert two is None
                    continue
                assert (one.dtype, one.shape) == (two.dtype, two.shape)
                assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"k": np.int64(5)},
        {"first": np.uint32(0)},
        {"temperature": 1},
        {"temperature": np.float32(1)},
        {"log_prob": np.True_},
        {"threads": np.int32(1)},
        {"mode": np.str_("categorical")},
        {"impl": "ref"},
    ],
)
def test_what_is_not_plain_is_taken_by_the_other_way(options):
    arrays = mixture()
    assert plain(*arrays, **options) is None
    expected = sample_gmm(*arrays, **OPTIONS)
    assert sample_gmm(*arrays, **{**OPTIONS, **options}).z.tobytes() == expected.z.tobytes()


@pytest.mark.parametrize("place", range(4))
def test_arrays_that_are_not_plain_are_left_alone(place):
    arrays = mixture()
    array = arrays[place]
    shifted = np.frombuffer(b"." + array.tobytes(), np.uint8)[1:].view(array.dtype)
    others = [
        array.astype(array.dtype.newbyteorder()),
        array.astype(np.float64),
        np.repeat(array, 2, axis=-1)[..., ::2],
        shifted.reshape(array.shape),
        array[:1],
        array[..., :-1].copy(),
        array[None],
        array[..., :0],
        np.float32(1),
        array.tolist(),
        None,
    ]
    for other in others:
        changed = list(arrays)
        changed[place] = other
        assert plain(*changed) is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("k", [0, -1, True, 2.0, "5", None, 2**32 + 1, 2**64, -(2**80)]),
        ("first", [-1, False, 2**32 - 4, 2**64, None]),
        ("mode", ["best", "", "categorical\0", 0, None, ["mean"]]),
        ("primitive", [-1, 3, True, 1.0, 2**70]),
        ("temperature", [-0.5, float("nan"), float("inf"), 1e39, "1", None]),
        ("dtype", ["int8", np.float32, None]),
        ("log_prob", [0, 1, None]),
        ("impl", ["cuda", "AUTO", None, 0]),
        ("threads", [0, 1025, 1.5, True, 2**64]),
    ],
)
def test_no_bad_option_passes(name, values):
    for value in values:
        assert plain(*mixture(), **{name: value}) is None
    assert plain(*mixture(), primitive=1, mode="mean") is None


def test_bad_values_are_refused_with_the_reason():
    log_alpha, mu, log_sigma, seeds = mixture()
    mu[1, 2, 39] = np.nan
    assert plain(log_alpha, mu, log_sigma, seeds) is None
    with pytest.raises(InputError, match="mu must be finite"):
        sample_gmm(log_alpha, mu, log_sigma, seeds, k=2)


def others_run(call):
    """Whether another thread of Python gets to run during a call, which is tried many times."""
    waits, ran = threading.Lock(), []
    other = threading.Thread(target=lambda: (waits.acquire(), ran.append(True)))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # seconds: it runs where this thread lets it, and nowhere else
    try:
        waits.acquire()
        other.start()
        waits.release()
        return any(call() and ran for _ in range(1000))
    finally:
        sys.setswitchinterval(before)
        other.join()


LONG = {  # a density of many primitives, many weights, and a mixture that takes long to check
    "log_prob": (mixture(1, 1000, 8), {"k": 512}),
    "weights": (mixture(1, 8000, 1), {"k": 4000, "log_prob": False}),
    "check": (mixture(1, 1024, 1024), {"k": 1, "log_prob": False}),
}


@pytest.mark.parametrize("name", LONG)
def test_other_threads_run_while_few_numbers_take_long(name):
    arrays, options = LONG[name]
    usual = {**OPTIONS, **options, "threads": 1}
    assert others_run(lambda: _kernels.sample_gmm_plain(*arrays, *usual.values()))
    assert usual.pop("impl")
    assert others_run(lambda: _kernels.sample_gmm(*arrays, **usual))

"""What the sampler refuses, and how it says so."""

import math

import numpy as np
import pytest

from picme_rt.errors import InputError, PicmeError
from picme_rt.kernels import sample_gmm

LAST_SEED = 2**64 - 1


def mixture(batch=2, primitives=5, dim=7, seed=0):
    """Return a random mixture and its seeds, the arrays that sample_gmm takes."""
    rng = np.random.default_rng([seed, batch, primitives, dim])
    log_alpha = np.log(rng.dirichlet(np.ones(primitives), batch)).astype(np.float32)
    mu, log_sigma = rng.normal(size=(2, batch, primitives, dim)).astype(np.float32)
    return log_alpha, mu, log_sigma, rng.integers(0, LAST_SEED, batch, np.uint64, endpoint=True)


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_no_images_give_no_samples(impl):
    done = sample_gmm(*mixture(0, 3, 5), k=4, impl=impl)
    assert [part.shape for part in done] == [(0, 4, 5), (0, 4), (0, 4)]
    assert [part.dtype for part in done] == [np.float32, np.int32, np.float32]


def with_value(array, value):
    array = array.copy()
    array.flat[3] = value
    return array


BAD_ARRAYS = {
    "float64": ("log_alpha", lambda a: a.astype(np.float64), "must be float32, got float64: conv"),
    "float16": ("mu", lambda a: a.astype(np.float16), "mu must be float32, got float16"),
    "big-endian": ("mu", lambda a: a.astype(">f4"), "mu must be float32, got >f4"),
    "int64": ("seeds", lambda a: a.astype(np.int64), "seeds must be uint64, got int64"),
    "list": ("seeds", lambda a: a.tolist(), "seeds must be a NumPy array, got list"),
    "axes": ("log_sigma", lambda a: a[0], r"must have the axes \(B, P, D\), got shape \(5, 7\)"),
    "P": ("mu", lambda a: a[:, 1:], r"\(B, P\) = \(2, 5\) as log_alpha, got \(2, 4, 7\)"),
    "no D": ("mu", lambda a: a[..., :0], r"D at least 1 .*, got \(2, 5, 0\)"),
    "no P": ("log_alpha", lambda a: a[:, :0], r"P at least 1, got \(2, 0\)"),
    "D": ("log_sigma", lambda a: a[..., 1:], r"must be \(2, 5, 7\) as mu, got \(2, 5, 6\)"),
    "B": ("seeds", lambda a: a[:1], r"seeds must be \(2,\).*, got \(1,\)"),
    "NaN weight": ("log_alpha", lambda a: with_value(a, np.nan), "log_alpha must not hold NaN"),
    "NaN mean": ("mu", lambda a: with_value(a, np.nan), "mu must be finite, got NaN or infinity"),
    "NaN sigma": ("log_sigma", lambda a: with_value(a, np.nan), "log_sigma must be finite"),
    "infinite mean": ("mu", lambda a: with_value(a, np.inf), "mu must be finite"),
    "no weight": ("log_alpha", lambda a: a - np.float32(np.inf), r"got -inf: subtract the row's"),
    "heavy": ("log_alpha", lambda a: a + np.float32(500), r"in \[-80, 80\], got 49\d"),
}


@pytest.mark.parametrize("impl", ["ref", "native"])
@pytest.mark.parametrize("bad", BAD_ARRAYS)
def test_a_bad_array_is_refused_with_one_clear_error(bad, impl):
    name, change, message = BAD_ARRAYS[bad]
    arrays = dict(zip(("log_alpha", "mu", "log_sigma", "seeds"), mixture(), strict=True))
    arrays[name] = change(arrays[name])
    with pytest.raises(InputError, match=message):
        sample_gmm(**arrays, k=2, impl=impl)


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_log_weights_are_taken_up_to_80_and_no_further(impl):
    _, mu, log_sigma, seeds = mixture(1, 2, 3)
    for sign in (-1, 1):
        end = np.array([[sign * 80, -100]], np.float32)
        assert sample_gmm(end, mu, log_sigma, seeds, k=2, impl=impl).primitive.tolist() == [[0, 0]]
        beyond = np.nextafter(end, np.float32(sign * 200), dtype=np.float32)
        with pytest.raises(InputError, match=r"in \[-80, 80\], got -?80"):
            sample_gmm(beyond, mu, log_sigma, seeds, k=2, impl=impl)


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_weights_are_taken_as_long_as_their_sum_is_a_float32(impl):
    for primitives in (6141, 6142):
        log_alpha = np.full((1, primitives), 80, np.float32)
        zeros, seeds = np.zeros((1, primitives, 1), np.float32), np.zeros(1, np.uint64)
        if primitives == 6141:
            drawn = sample_gmm(log_alpha, zeros, zeros, seeds, k=8, impl=impl).primitive
            assert len(set(drawn.ravel().tolist())) > 1
        else:
            with pytest.raises(InputError, match="weights whose sum is a float32"):
                sample_gmm(log_alpha, zeros, zeros, seeds, k=8, impl=impl)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be an integer from 1 to 4294967296, got 0"),
        ({"k": 2.0}, r"k must be an integer .*, got 2\.0"),
        ({"k": True}, "k must be an integer .*, got True"),
        ({"first": -1}, "first must be an integer from 0 to 4294967295, got -1"),
        ({"first": 2**32 - 1}, r"first \+ k must be at most 2\*\*32, got 4294967297"),
        ({"mode": "best"}, "mode must be one of categorical, per_primitive, mean, got 'best'"),
        ({"primitive": 5}, "primitive must be an integer from 0 to 4, got 5"),
        ({"primitive": -1}, "primitive must be an integer from 0 to 4, got -1"),
        ({"primitive": 1, "mode": "mean"}, "primitive must be None with mode 'mean', got 1"),
        ({"temperature": -0.5}, r"temperature must be a finite number .*, got -0\.5"),
        ({"temperature": math.nan}, "temperature must be a finite number .*, got nan"),
        ({"temperature": 1e39}, "temperature must be a finite number"),
        ({"temperature": "1"}, "temperature must be a finite number .*, got '1'"),
        ({"dtype": "int8"}, "dtype must be one of float32, float16, bfloat16, got 'int8'"),
        ({"threads": 0}, "threads must be an integer from 1 to 1024, got 0"),
        ({"threads": 1.5}, r"threads must be an integer .*, got 1\.5"),
        ({"impl": "cuda"}, "impl must be one of auto, ref, native, got 'cuda'"),
    ],
)
def test_a_bad_option_is_refused_with_one_clear_error(options, message):
    with pytest.raises(InputError, match=message) as caught:
        sample_gmm(*mixture(), **{"k": 2, **options})
    assert isinstance(caught.value, PicmeError)
    assert isinstance(caught.value, ValueError)


def test_the_binding_itself_refuses_conversion_and_wrong_shapes():
    from picme_rt import _kernels

    log_alpha, mu, log_sigma, seeds = mixture()
    options = {"k": 2, "first": 0, "mode": "categorical", "primitive": None, "temperature": 1.0}
    for wrong in (mu.astype(np.float64), np.asfortranarray(mu), mu.tolist()):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            _kernels.sample_gmm(log_alpha, wrong, log_sigma, seeds, **options)
    for wrong in (mu[:, 1:].copy(), mu[0], mu[..., :0].copy()):
        with pytest.raises(ValueError, match=r"must be \(B, P, D\)|out of range"):
            _kernels.sample_gmm(log_alpha, wrong, log_sigma, seeds, **options)
    for bad in ({"threads": -1}, {"dtype": "int8"}):
        with pytest.raises(ValueError, match="must be"):
            _kernels.sample_gmm(log_alpha, mu, log_sigma, seeds, **options, **bad)
    room = np.zeros(mu.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(mu.shape)
    with pytest.raises(ValueError, match="aligned"):
        _kernels.sample_gmm(log_alpha, room, log_sigma, seeds, **options)
    for bad in ({"k": 0}, {"first": -1}, {"place": 2**32}, {"size": -1}, {"size": 2**34}):
        with pytest.raises(ValueError, match=r"must be|out of range"):
            _kernels.normal(seeds[:0], **{"size": 1, "k": 1, "first": 0, "place": 1, **bad})
    for bad in ({"k": 0}, {"first": 2**32}, {"primitive": 5}, {"mode": "best"}):
        with pytest.raises(ValueError, match=r"must be|out of range"):
            _kernels.sample_gmm(log_alpha, mu, log_sigma, seeds, **{**options, **bad})

"""Nearest patches, PatchMatch and votes: what they say, and the same bits from C++ and NumPy."""

import ctypes
import platform
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from picme_rt import _kernels, patch_search
from picme_rt.patch_search import REACH, Picture, Search

UPWARD = None  # FE_UPWARD of <fenv.h>
if sys.platform == "linux":
    UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())


@st.composite
def scenes(draw):
    """A picture with few colours (equal distances), its queries, keys and a field to begin with."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    height, width = draw(st.integers(9, 20)), draw(st.integers(9, 20))
    pixels = np.zeros((height, width, 4), np.int16)
    pixels[..., :3] = rng.integers(0, draw(st.sampled_from([2, 256])), (height, width, 3))
    weights = rng.integers(0, 9, (height, width, 1)).astype(np.int16).repeat(4, 2)
    inner = np.zeros((height, width), bool)
    inner[REACH : height - REACH, REACH : width - REACH] = True
    kind = rng.random((height, width))
    queries = np.flatnonzero(inner & (kind < 0.5)).astype(np.int32)
    valid = inner & (kind >= 0.4)
    valid[REACH, REACH] = True
    query_at = np.full((height, width), -1, np.int32)
    query_at.ravel()[queries] = np.arange(len(queries))
    keys = np.flatnonzero(valid).astype(np.int32)
    start = rng.choice(keys, len(queries)).astype(np.int32)
    return Picture(pixels, weights, queries), valid, keys, query_at, start, rng


def distances(picture, queries, keys):
    """Sums of weight * (query - key)^2 over the patches around places, which broadcast."""
    side = 2 * REACH + 1

    def around(values, places):
        patches = sliding_window_view(values.astype(np.int32), (side, side), (0, 1))
        y, x = np.divmod(places, picture.pixels.shape[1])
        return patches[y - REACH, x - REACH].reshape(*places.shape, -1)

    apart = around(picture.pixels, queries) - around(picture.pixels, keys)
    return (around(picture.weights, queries) * apart**2).sum(-1)


@given(scenes(), st.sampled_from([1.0, 1000.0, np.inf]))
@settings(max_examples=60)
def test_kernel_and_reference_find_the_same_nearest_keys(scene, alpha):
    picture, _, keys, _, _, rng = scene
    prices = 1 + rng.random(len(keys)) * rng.integers(0, 2)
    both = [patch_search.nearest(picture, keys, prices, alpha, impl=i) for i in ("native", "ref")]
    for one, other in zip(*both, strict=True):
        assert one.dtype == other.dtype == np.int32
        assert (one == other).all()


@given(scenes(), st.integers(0, 4), st.integers(0, 40), st.integers(0, 2**64 - 1))
@settings(max_examples=60)
def test_kernel_and_reference_search_alike(scene, rounds, radius, seed):
    picture, valid, _, query_at, start, _ = scene
    to = Search(valid, query_at, rounds, radius, seed, 2**32 - 1, 2**32 - 2)
    both = [patch_search.search(picture, to, start, impl=impl) for impl in ("native", "ref")]
    for one, other in zip(*both, strict=True):
        assert one.dtype == other.dtype == np.int32
        assert (one == other).all()


@given(scenes(), st.integers(1, 8))
@settings(max_examples=60)
def test_kernel_and_reference_vote_the_same_bits(scene, channels):
    _, valid, _, query_at, start, rng = scene
    shape = (*valid.shape, channels)
    values = rng.normal(size=shape).astype(np.float32)
    weights = rng.random(len(start)).astype(np.float32)
    wanted = rng.random(valid.shape) < 0.7
    both = [np.full(shape, 7, np.float32) for _ in range(2)]
    for out, impl in zip(both, ("native", "ref"), strict=True):
        patch_search.vote(values, wanted, query_at, start, weights, out, impl=impl)
        assert (out[~wanted] == 7).all()
    assert both[0].tobytes() == both[1].tobytes()


@given(scenes())
@settings(max_examples=20)
def test_the_nearest_is_what_its_definition_says(scene):
    picture, _, keys, _, _, rng = scene
    prices = 1 + rng.random(len(keys))
    every = distances(picture, picture.queries[:, None], keys[None])
    for alpha in (50.0, np.inf):
        norm = 1 if alpha == np.inf else alpha + every.min(0, initial=2**31 - 1)
        score = prices * every / norm
        found, best = patch_search.nearest(picture, keys, prices, alpha)
        at = np.searchsorted(keys, found)
        rows = np.arange(len(found))
        assert (best == every[rows, at]).all()
        np.testing.assert_allclose(score[rows, at], score.min(1, initial=np.inf), rtol=1e-12)


@given(scenes())
@settings(max_examples=30)
def test_a_search_never_gets_worse_and_ends_on_keys(scene):
    picture, valid, _, query_at, start, _ = scene
    last = distances(picture, picture.queries, start)
    for rounds in (0, 1, 3):
        to = Search(valid, query_at, rounds, 20, 5, 0, 1)
        found, best = patch_search.search(picture, to, start)
        if rounds:
            assert valid.ravel()[found].all()
        else:
            assert (found == start).all()
        assert (best <= last).all()
        last = best


def test_many_rounds_find_nearly_what_comparing_all_finds():
    rng = np.random.default_rng(0)
    pixels = np.zeros((40, 40, 4), np.int16)
    pixels[..., :3] = np.add.outer(np.arange(40), 2 * np.arange(40))[..., None] % 97
    pixels[..., :3] += rng.integers(0, 30, (40, 40, 3)).astype(np.int16)
    inner = np.zeros((40, 40), bool)
    inner[3:-3, 3:-3] = True
    hole = np.zeros((40, 40), bool)
    hole[14:26, 14:26] = True
    queries = np.flatnonzero(hole).astype(np.int32)
    query_at = np.full((40, 40), -1, np.int32)
    query_at.ravel()[queries] = np.arange(len(queries))
    keys = np.flatnonzero(inner & ~hole).astype(np.int32)
    picture = Picture(pixels, np.ones((40, 40, 4), np.int16), queries)
    _, exact = patch_search.nearest(picture, keys, np.ones(len(keys)), np.inf)
    start = rng.choice(keys, len(queries)).astype(np.int32)
    to = Search(inner & ~hole, query_at, 12, 40, 0, 0, 1)
    _, searched = patch_search.search(picture, to, start)
    assert exact.sum() <= searched.sum() < 1.1 * exact.sum()


def one_patch(value):
    """What `vote` takes for 9 x 9 pixels of a value, with one query in the middle."""
    query_at, places = np.full((9, 9), -1, np.int32), np.array([4 * 9 + 4], np.int32)
    query_at[4, 4] = 0
    return np.full((9, 9, 1), value, np.float32), np.ones((9, 9), bool), query_at, places


def test_what_a_weight_that_is_no_number_says_is_left_out():
    both = [np.full((9, 9, 1), 7, np.float32) for _ in range(2)]
    for out, impl in zip(both, ("native", "ref"), strict=True):
        patch_search.vote(*one_patch(1), np.full(1, np.nan, np.float32), out, impl=impl)
        assert (out == 7).all()


@pytest.mark.skipif(UPWARD is None, reason="no name for this processor's rounding")
def test_a_program_that_rounds_upward_gets_the_same_bits():
    pixels = np.zeros((9, 27, 4), np.int16)
    pixels[4, 13, :2], pixels[4, 22, 0] = (1, 2), 1  # d is 5 and 1
    queries, *keys = np.array([[4 * 27 + 4], [4 * 27 + 13], [4 * 27 + 22]], np.int32)
    picture = Picture(pixels, np.ones_like(pixels), queries)
    prices = np.nextafter([1.0, 5.0], 9)  # rounded to nearest 5 times the one is the other
    weights, found = np.full(1, 0.3, np.float32), []
    for direction in (0, UPWARD):
        out, (values, *places) = np.zeros((9, 9, 1), np.float32), one_patch(0.1)
        ctypes.CDLL(None).fesetround(direction)
        try:
            nearest = _kernels.nearest_patches(*picture, np.concatenate(keys), prices, np.inf)
            _kernels.vote_patches(values, *places, weights, out)
        finally:
            ctypes.CDLL(None).fesetround(0)
        found.append([out.tobytes(), *(one.tolist() for one in nearest)])
    assert found[0] == found[1]
    assert found[0][2] == [5]


def misaligned(array):
    room = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    room[...] = array
    return room


def test_the_binding_refuses_what_would_read_outside():
    pixels = np.zeros((9, 9, 4), np.int16)
    places = np.array([4 * 9 + 4], np.int32)
    good = [pixels, pixels, places, places, np.ones(1), 1.0]
    _kernels.nearest_patches(*good)
    for at, value, message in (
        (0, pixels[:, :0].copy(), "pixels must be at least one"),
        (0, misaligned(pixels), "arrays must be aligned"),
        (3, misaligned(places), "arrays must be aligned"),
        (0, pixels[..., :3].copy(), r"pixels must be \(H, W, 4\)"),
        (0, pixels + np.int16(256), "pixels must be in 0..255"),
        (1, pixels[:8].copy(), r"weights must be \(H, W, 4\)"),
        (1, pixels + np.int16(9), "weights must be in 0..8"),
        (2, np.array([2 * 9 + 4], np.int32), "queries must be patches inside the picture"),
        (3, np.array([-1], np.int32), "keys must be patches inside the picture"),
        (3, np.array([81], np.int32), "keys must be patches inside the picture"),
        (3, places[:0], "keys must be at least one"),
        (4, np.zeros(1), r"prices must be in 1\.\.1e6"),
        (4, np.array([np.nan]), r"prices must be in 1\.\.1e6"),
        (4, np.ones(2), "prices must be one for each key"),
        (5, 0.0, "alpha must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            _kernels.nearest_patches(*good[:at], value, *good[at + 1 :])
    valid, query_at = np.ones((9, 9), bool), np.full((9, 9), -1, np.int32)
    options = {"rounds": 1, "radius": 3, "seed": 0, "index": 0, "place": 0}
    good = [pixels, pixels, places, valid, query_at, places]
    _kernels.search_patches(*good, **options)
    for at, value, message in (
        (4, misaligned(query_at), "arrays must be aligned"),
        (3, valid[:8].copy(), r"valid must be \(H, W\)"),
        (4, query_at + np.int32(2), "query_at must be numbers of queries or -1"),
        (5, np.array([0], np.int32), "start must be patches inside the picture"),
        (5, places[:0], "start must be a key for each query"),
    ):
        with pytest.raises(ValueError, match=message):
            _kernels.search_patches(*good[:at], value, *good[at + 1 :], **options)
    with pytest.raises(ValueError, match="rounds or radius out of range"):
        _kernels.search_patches(*good, **{**options, "radius": 1 << 15})
    values, weights = np.zeros((9, 9, 2), np.float32), np.ones(1, np.float32)
    good = [values, valid, query_at, places, weights, values.copy()]
    _kernels.vote_patches(*good)
    for at, value, message in (
        (0, values[:, :0].copy(), "values must be at least one place"),
        (0, misaligned(values), "arrays must be aligned"),
        (5, misaligned(values), "arrays must be aligned"),
        (1, valid[:, :8].copy(), r"wanted must be \(H, W\)"),
        (2, np.zeros((9, 9), np.int32), "query_at must be -1 near the border"),
        (3, np.array([80], np.int32), "found must be patches inside the picture"),
        (4, np.ones(2, np.float32), "query_weights must be one for each query"),
        (5, values[..., :1].copy(), "out must be as values"),
    ):
        with pytest.raises(ValueError, match=message):
            _kernels.vote_patches(*good[:at], value, *good[at + 1 :])

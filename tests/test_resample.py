"""Resizing against PIL, which computes the same kernels in another way."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image as Pillow

from picme_rt import resample

SIDES = st.integers(1, 300)
KERNELS = st.sampled_from(["triangle", "cubic"])
PIL_FILTER = {"triangle": Pillow.Resampling.BILINEAR, "cubic": Pillow.Resampling.BICUBIC}


@given(SIDES, SIDES, KERNELS)
def test_every_row_sums_to_1(source, target, kernel):
    found = resample.matrix(source, target, kernel)
    assert found.shape == (target, source)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1, dtype=np.float64), 1, atol=1e-5)


@given(SIDES, KERNELS)
def test_equal_sizes_give_the_identity_to_the_bit(side, kernel):
    assert (resample.matrix(side, side, kernel) == np.eye(side)).all()


@given(SIDES, SIDES)
def test_the_triangles_weights_are_never_negative(source, target):
    assert (resample.matrix(source, target, "triangle") >= 0).all()


@given(SIDES, SIDES, KERNELS)
def test_left_and_right_are_treated_alike(source, target, kernel):
    found = resample.matrix(source, target, kernel)
    np.testing.assert_allclose(found, found[::-1, ::-1], atol=2e-6)


@pytest.mark.parametrize("kernel", ["triangle", "cubic"])
@pytest.mark.parametrize(
    ("source", "target"), [(200, 64), (64, 200), (65, 64), (64, 65), (297, 64), (31, 64), (64, 7)]
)
def test_a_picture_is_resized_as_pil_resizes_it(source, target, kernel):
    pixels = np.random.default_rng(source).random((source, source)).astype(np.float32)
    pil = Pillow.fromarray(pixels).resize((target, target), PIL_FILTER[kernel])
    matrix = resample.matrix(source, target, kernel)
    np.testing.assert_allclose(matrix @ pixels @ matrix.T, np.asarray(pil), atol=1e-5)


def test_a_straight_line_stays_straight_away_from_the_borders():
    for kernel in ("triangle", "cubic"):
        for source, target in ((64, 150), (150, 64)):
            line = (np.arange(source) + 0.5) / source
            found = resample.matrix(source, target, kernel) @ line
            inner = slice(target // 10, -target // 10)
            np.testing.assert_allclose(
                found[inner], ((np.arange(target) + 0.5) / target)[inner], atol=5e-4
            )


def dense(taps, source):
    """Taps as the (target, source) matrix of their weights."""
    found = np.zeros((len(taps.first), source), np.float32)
    for t, weight in enumerate(taps.weights):
        found[np.arange(len(found)), taps.first + t] = weight
    return found


@pytest.mark.parametrize(("side", "sigma"), [(65, 3.0), (64, 1.5), (5, 0.5), (7, 2.0), (1, 0.5)])
def test_a_blur_is_a_gaussian_and_keeps_the_sum(side, sigma):
    found = dense(resample.blur(side, sigma), side)
    distance = np.subtract.outer(np.arange(side), np.arange(side))
    expected = np.exp(-0.5 * (distance / sigma) ** 2)
    expected[abs(distance) > max(1, 2 * sigma)] = 0
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-7)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def kernel_of(x, kernel):
    """The kernels as docs/compositing.md has them, of any array."""
    x = np.abs(x)
    if kernel == "triangle":
        return (1 - x).clip(min=0)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


@given(SIDES, SIDES, KERNELS)
@example(2000, 64, "triangle")
@example(64, 2000, "cubic")
def test_taps_are_the_whole_matrix_to_the_bit_and_never_go_back(source, target, kernel):
    scale = source / target
    places = (np.arange(target) + 0.5) * scale - 0.5
    weights = kernel_of((np.arange(source) - places[:, None]) / max(scale, 1.0), kernel)
    expected = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    found = resample.taps(source, target, kernel)
    assert (dense(found, source) == expected).all()
    assert (resample.matrix(source, target, kernel) == expected).all()
    assert (np.diff(found.first) >= 0).all()
    assert found.first[0] >= 0
    assert found.first[-1] + len(found.weights) <= source


def test_taps_take_little_memory_and_keep_only_themselves():
    """A matrix of 20,000 by 128 takes 10 MiB, and as many in float64 on the way to it."""
    resample.taps(128, 20_000, "cubic")  # what NumPy keeps from then on
    tracemalloc.start()
    taps = resample.taps(20_000, 128, "triangle")
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taps.weights.shape == (313, 128)
    assert most < 5 << 20
    assert held < 1 << 18


def test_constants_are_shared_and_cannot_be_written():
    for found in (resample.taps(5, 7, "cubic").weights, resample.blur(5, 1.0).weights):
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 1
    assert resample.taps(5, 7, "cubic") is resample.taps(5, 7, "cubic")


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_pooling_takes_the_mean_of_each_cell(side):
    planes = np.random.default_rng(side).normal(size=(3, 4 * side, 5 * side)).astype(np.float32)
    cells = planes.reshape(3, 4, side, 5, side).mean((2, 4))
    found = resample.pool(planes, side)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, cells, atol=1e-6)


@pytest.mark.parametrize("kernel", ["triangle", "cubic"])
@pytest.mark.parametrize(
    ("source", "target"), [(9, 9), (5, 17), (64, 300), (40, 7), (3, 1), (1, 4)]
)
def test_taps_give_what_the_matrices_give(source, target, kernel):
    planes = np.random.default_rng(0).normal(size=(3, source, source)).astype(np.float32)
    dense, few = resample.matrix(source, target, kernel), resample.taps(source, target, kernel)
    found = resample.apply(planes, few, few.part(0, target // 2 + 1))
    expected = dense @ planes @ dense[: target // 2 + 1].T
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_taps_of_equal_sizes_change_no_bit():
    planes = np.random.default_rng(1).normal(size=(3, 8, 8)).astype(np.float32)
    same = resample.taps(8, 8, "cubic")
    assert (resample.apply(planes, same, same) == planes).all()

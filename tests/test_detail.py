"""From a small result to the picture's own size, with the detail of its patches."""

import numpy as np
import pytest

from picme_rt import detail, pyramid_frame, resample
from picme_rt.images import to_levels, to_network


@pytest.fixture(scope="module")
def case():
    """A picture of stripes 2 pixels wide, half its size, and both holes."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:80, :90]
    img = np.stack([np.where(columns // 2 % 2, 200, 60), rows * 2, columns * 2], -1)
    img = (img + rng.integers(0, 9, img.shape)).astype(np.uint8)
    hole = np.zeros((80, 90), bool)
    hole[30:52, 34:60] = True
    size = (40, 45)
    down = [resample.taps(a, b, "triangle") for a, b in zip(hole.shape, size, strict=True)]
    small = resample.apply(to_network(np.moveaxis(img, 2, 0).astype(np.float32)), *down)
    return img, hole, small, pyramid_frame.brought(hole, size)


def enlarged(img, hole, small, inside, whole):
    given = np.where(inside, np.float32(0), small)
    target = img.copy()
    target[hole] = 0
    detail.enlarge(detail.prepare(img, hole, given, inside), whole, target)
    return target


def test_the_stripes_come_back_that_the_small_picture_lacks(case):
    img, hole, small, inside = case
    done = enlarged(*case, small)
    up = [resample.taps(a, b, "cubic") for a, b in zip(inside.shape, hole.shape, strict=True)]
    smooth = np.moveaxis(to_levels(resample.apply(small, *up)), 0, 2)
    errors = [np.abs(one.astype(float) - img)[hole].mean() for one in (done, smooth)]
    assert errors[0] < 0.5 * errors[1]
    assert (done[~hole] == img[~hole]).all()


def test_bytes_under_the_hole_change_nothing(case):
    img, hole, small, inside = case
    other = img.copy()
    other[hole] = 255
    assert (enlarged(other, hole, small, inside, small) == enlarged(*case, small)).all()


def test_a_picture_without_a_known_patch_stays_smooth(case):
    img, hole, small, inside = case
    part = np.s_[28:54, 32:62]  # two known pixels around the hole
    little = np.s_[:, 14:27, 16:31]
    given = img[part], hole[part], small[little].copy(), inside[little[1:]]
    made = detail.prepare(*given)
    assert len(made.keys) == 0
    done = enlarged(*given, given[2])
    assert (done[~hole[part]] == img[part][~hole[part]]).all()
    error = np.abs(done.astype(float) - img[part])[hole[part]].mean(0)
    assert (error[1:] < 12).all()  # the two colours without stripes


def test_many_pairs_are_searched_by_patchmatch(case, monkeypatch):
    img, hole, small, _ = case
    exact = enlarged(*case, small)
    monkeypatch.setattr(detail, "EXACT", 0)
    near = enlarged(*case, small)
    errors = [np.abs(one.astype(float) - img)[hole].mean() for one in (exact, near)]
    assert errors[1] < 1.5 * errors[0]

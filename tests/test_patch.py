"""Patch mode: a function of the known pixels, seed and index alone, on any picture and hole."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picme_rt import patch, patch_blend, patch_search
from picme_rt.errors import InputError


def stripes(height=48, width=64):
    """A texture that a hole in it can be filled with exactly."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([(rows + columns) % 8 * 30, columns % 4 * 60, rows % 8 * 20], -1).astype(
        np.uint8
    )


def middle(height=48, width=64, side=14):
    hole = np.zeros((height, width), bool)
    hole[(height - side) // 2 :, (width - side) // 2 :] = True
    hole[(height + side) // 2 :] = hole[:, (width + side) // 2 :] = False
    return hole


def finished(img, hole, seed=0, index=0, temperature=1.0):
    """The finest level of one result, and what it holds of the picture."""
    prepared = patch.prepare(img, hole)
    made = patch.complete(prepared, seed, index, temperature)
    height, width = made.shape[:2]
    return made, np.s_[prepared.top : prepared.top + height, prepared.left : prepared.left + width]


def test_a_texture_is_continued():
    img, hole = stripes(), middle()
    made, part = finished(img, hole, temperature=0.0)
    error = np.abs(made - img[part].astype(np.float32))
    assert error[~hole[part]].max() == 0
    filled = error[hole[part]].mean()
    mean = np.abs(img[hole] - img[~hole].mean(0)).mean()
    assert filled < 0.25 * mean


@given(st.integers(0, 2**32), st.floats(0, 0.5))
@settings(max_examples=15)
def test_bytes_under_the_hole_change_no_bit(seed, share):
    rng = np.random.default_rng(seed)
    img = rng.integers(0, 256, (40, 33, 3), np.uint8)
    hole = np.zeros((40, 33), bool)
    hole[12:24, 10:20] = rng.random((12, 10)) >= share
    hole[15, 15] = True
    other = img.copy()
    other[hole] = rng.integers(0, 256, (hole.sum(), 3))
    first, second = (finished(one, hole, seed=seed)[0] for one in (img, other))
    assert first.tobytes() == second.tobytes()


def test_results_are_functions_of_seed_and_index_and_differ():
    rng = np.random.default_rng(0)
    img = (stripes() * 0.7 + rng.integers(0, 70, (48, 64, 3))).astype(np.uint8)
    hole = middle()
    names = [(0, 0), (0, 1), (0, 2), (1, 0), (2**64 - 1, 2**32 - 1)]
    made = [finished(img, hole, *name)[0] for name in names]
    again = [finished(img, hole, *name)[0] for name in reversed(names)]
    assert [one.tobytes() for one in made] == [one.tobytes() for one in reversed(again)]
    inside = [one[hole[finished(img, hole)[1]]] for one in made]
    for i, one in enumerate(inside):
        for other in inside[:i]:
            assert np.abs(one - other).mean() > 1


def test_no_temperature_is_no_noise():
    img, hole = stripes(), middle()
    made = [finished(img, hole, seed, 3, 0.0)[0] for seed in (0, 9)]
    assert np.abs(made[0] - made[1]).mean() < 2  # but for the places where search looks


def test_the_reference_gives_the_same_bits(monkeypatch):
    rng = np.random.default_rng(4)
    img = rng.integers(0, 256, (44, 46, 3), np.uint8)
    hole = middle(44, 46, 10)
    monkeypatch.setattr(patch, "EXACT", 1 << 12)  # so that finer levels are searched
    native = finished(img, hole)[0]
    for name in ("nearest", "search", "vote"):
        slow = functools.partial(getattr(patch_search, name), impl="ref")
        monkeypatch.setattr(patch_search, name, slow)
    assert finished(img, hole)[0].tobytes() == native.tobytes()


@pytest.mark.parametrize("shape", [(7, 30), (30, 7), (9, 9), (15, 200), (64, 64)])
def test_small_and_long_pictures_are_filled(shape):
    img = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    hole = np.zeros(shape, bool)
    hole[0, 0] = True  # in a corner, and 1 pixel
    if min(shape) > 9:
        hole[5:9, 8:11] = True
    made, part = finished(img, hole)
    assert np.isfinite(made).all()
    assert (made[~hole[part]] == img[part][~hole[part]]).all()


def test_a_constant_picture_stays_constant():
    img = np.full((30, 40, 3), 90, np.uint8)
    hole = middle(30, 40, 8)
    made, _ = finished(img, hole)
    assert np.abs(made - 90).max() < 1e-3


def test_a_hole_at_the_border_or_of_many_pieces_is_filled():
    img = stripes()
    rng = np.random.default_rng(2)
    for hole in (
        np.s_[:20, :10],
        np.s_[40:, 50:],
        np.s_[:, 30:36],
        rng.random((48, 64)) < 0.004,
    ):
        mask = np.zeros((48, 64), bool)
        mask[hole] = True
        made, part = finished(img, mask)
        error = np.abs(made - img[part].astype(np.float32))[mask[part]]
        assert np.isfinite(made).all()
        assert error.mean() < 80


@pytest.mark.parametrize(
    ("shape", "hole"),
    [
        ((6, 50), np.s_[2:3, 2:3]),  # lower than a patch
        ((40, 40), np.s_[:, :]),  # nothing is known
        ((20, 20), np.s_[5:15, 5:15]),  # no patch of 7 x 7 beside it
    ],
)
def test_without_a_known_patch_it_says_so(shape, hole):
    mask = np.zeros(shape, bool)
    mask[hole] = True
    message = r"needs a known patch of 7 x 7 pixels near the hole, got none in \d+ x \d+"
    with pytest.raises(InputError, match=message):
        patch.prepare(np.zeros((*shape, 3), np.uint8), mask)


def test_far_from_the_hole_nothing_is_looked_at():
    img = np.random.default_rng(3).integers(0, 256, (500, 600, 3), np.uint8)
    hole = np.zeros((500, 600), bool)
    hole[300:310, 400:412] = True
    prepared = patch.prepare(img, hole)
    assert prepared.levels[0].hole.shape == (10 + 2 * patch.CONTEXT, 12 + 2 * patch.CONTEXT)
    assert (prepared.top, prepared.left) == (300 - patch.CONTEXT, 400 - patch.CONTEXT)


def test_the_ring_beside_known_pixels_is_drawn_on_from_them_and_no_other_pixel():
    current = np.random.default_rng(5).random((12, 40, 3), np.float32) * 255
    hole = np.zeros((12, 40), bool)
    hole[:, 10:30] = True
    before = current.copy()
    patch_blend._draw_on(hole, current)
    ring = np.zeros_like(hole)
    ring[:, [10, 29]] = True
    assert (current[~ring] == before[~ring]).all()

    def jump(picture):
        a, b, c, d = (picture[:, i] for i in range(8, 12))
        return (c - b) - ((b - a) + (d - c)) / 2

    left = 1 - float(patch_blend.DRAWN_ON)
    np.testing.assert_allclose(jump(current), left * jump(before), rtol=0, atol=1e-3)
    mirrored = current[:, ::-1]
    np.testing.assert_allclose(jump(mirrored), left * jump(before[:, ::-1]), rtol=0, atol=1e-3)


def test_a_mesh_that_leaves_no_keys_at_half_the_size_is_filled_without_comparing_all(monkeypatch):
    """Every pair of a patch of the mesh and a known one would be 4 bytes and a comparison."""
    pairs, nearest = [], patch_search.nearest

    def counted(picture, keys, *rest):
        pairs.append(len(picture.queries) * len(keys))
        return nearest(picture, keys, *rest)

    monkeypatch.setattr(patch_search, "nearest", counted)
    img, hole = stripes(160, 160), np.zeros((160, 160), bool)
    hole[::13] = hole[:, ::13] = True
    (level,) = patch.prepare(img, hole).levels
    assert len(level.queries) * len(level.keys) > patch.BEGIN
    first, second = (finished(img, hole, index=index)[0] for index in (0, 1))
    assert all(count <= patch.EXACT for count in pairs)
    assert first.tobytes() == finished(img, hole)[0].tobytes()
    assert (first[hole] != second[hole]).any()
    assert (first[~hole] == img[~hole]).all()
    mean = np.abs(img[hole] - img[~hole].mean(0)).mean()
    assert np.abs(first[hole] - img[hole]).mean() < 0.6 * mean


def test_any_temperature_is_a_price():
    made, _ = finished(stripes(), middle(), temperature=1e12)
    assert np.isfinite(made).all()

import numpy as np
import pytest
import torch

from picme_rt.errors import InputError
from picme_training.internal import pyramid


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_scales_are_those_of_the_paper_at_193_x_256():
    found = pyramid.sizes(193, 256, 256)
    assert len(found) == 10
    assert found[0] == (25, 33)
    assert found[-1] == (193, 256)


def test_a_picture_of_64_x_96_has_six_scales():
    assert [h for h, _ in pyramid.sizes(64, 96, 256)] == [25, 30, 36, 44, 53, 64]


def test_a_larger_picture_is_brought_to_the_size():
    assert pyramid.sizes(600, 400, 256)[-1] == (256, 171)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (40, 10_000)])
def test_a_picture_with_too_few_pixels_is_refused(height, width):
    with pytest.raises(InputError, match=rf"at least 25 pixels .* got {height} x {width}"):
        pyramid.sizes(height, width, 256)


def test_a_picture_of_25_pixels_has_one_scale():
    assert pyramid.sizes(25, 30, 256) == [(25, 30)]


def test_no_byte_under_the_hole_is_read(rng):
    img = rng.integers(0, 256, (64, 90, 3), dtype=np.uint8)
    hole = rng.random((64, 90)) < 0.02
    other = np.where(hole[..., None], 255 - img, img)
    for size in pyramid.sizes(64, 90, 256):
        one, two = (pyramid.level(picture, hole, size) for picture in (img, other))
        assert one.known.tobytes() == two.known.tobytes()


def test_holes_grow_until_a_known_place_holds_known_pixels_alone(rng):
    """Where a place is called known, its value is that of the picture without any hole."""
    img = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    hole = np.zeros((60, 80), bool)
    hole[20:33, 30:41] = True
    for size in pyramid.sizes(60, 80, 256):
        found = pyramid.level(img, hole, size)
        whole = pyramid.level(img, np.zeros_like(hole), size)
        known = ~found.hole
        np.testing.assert_array_equal(found.known[:, known], whole.known[:, known])
        assert (found.known[:, found.hole] == 0).all()
        assert found.hole.mean() >= hole.mean()


def test_the_finest_scale_is_the_picture_itself(rng):
    img = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = pyramid.level(img, np.zeros((40, 50), bool), (40, 50))
    np.testing.assert_allclose((found.known + 1) * 127.5, np.moveaxis(img, 2, 0), atol=1e-4)


def test_what_is_constant_stays_constant_on_its_way_up():
    matrices = pyramid.upscaling((25, 33), (31, 41))
    found = pyramid.resized(torch.full((1, 3, 25, 33), 0.25), matrices)
    assert found.shape == (1, 3, 31, 41)
    torch.testing.assert_close(found, torch.full_like(found, 0.25))

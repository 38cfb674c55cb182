"""To the engine and back: no byte under the hole is read, no known one written, no seam seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picme_rt import composite, framing, images, kernels, resample

SIZE = 16
FRAMINGS = st.sampled_from(["aligned", "free"])


@st.composite
def scenes(draw):
    """A noisy picture of up to 60 pixels a side and a hole that is not empty."""
    shape = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    img = rng.integers(0, 256, (*shape, 3), np.uint8)
    if draw(st.booleans()):
        hole = rng.random(shape) < draw(st.floats(0, 1))
    else:
        hole = np.zeros(shape, bool)
        top, left = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        hole[top : top + draw(st.integers(1, 60)), left : left + draw(st.integers(1, 60))] = True
    hole[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return img, hole, rng


def decoded(rng):
    """What a decoder might give: anything in [-1, 1]."""
    return rng.uniform(-1, 1, (3, SIZE, SIZE)).astype(np.float32)


def paste(canvas, picture, target):
    """Write one result into the hole of a copy of the original."""
    kernels.composite(picture[None, None], None, [canvas], out=target[None, None])


def smooth(height, width):
    """A picture without edges, as float levels (H, W, 3)."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([60 + 120 * rows, 200 - 90 * columns, 100 + 60 * rows * columns], axis=-1)


@given(scenes(), FRAMINGS)
def test_bytes_under_the_hole_change_nothing_to_the_bit(scene, kind):
    img, hole, rng = scene
    other = img.copy()
    other[hole] = rng.integers(0, 256, (hole.sum(), 3))
    picture = decoded(rng)
    for region in framing.regions(hole, SIZE, kind):
        first, second = (composite.fit(one, hole, region, SIZE) for one in (img, other))
        assert (first.image == second.image).all()
        assert (first.hole == second.hole).all()
        done = img.copy(), img.copy()
        paste(composite.canvas(first, hole, region), picture, done[0])
        paste(composite.canvas(second, hole, region), picture, done[1])
        assert (done[0] == done[1]).all()


@given(scenes(), FRAMINGS)
def test_known_pixels_are_never_written_and_the_hole_is_written_once(scene, kind):
    img, hole, rng = scene
    done, count = img.copy(), np.zeros(hole.shape, int)
    for region in framing.regions(hole, SIZE, kind):
        canvas = composite.canvas(composite.fit(img, hole, region, SIZE), hole, region)
        paste(canvas, decoded(rng), done)
        box = region.box
        count[box.top : box.bottom, box.left : box.right] += canvas.inside
    assert (done[~hole] == img[~hole]).all()
    assert (count == hole).all()


@given(scenes(), FRAMINGS)
def test_a_fit_is_in_range_and_0_in_the_hole(scene, kind):
    img, hole, _ = scene
    for region in framing.regions(hole, SIZE, kind):
        fitted = composite.fit(img, hole, region, SIZE)
        assert fitted.image.shape == (3, SIZE, SIZE)
        assert fitted.hole.shape == (1, SIZE, SIZE)
        assert fitted.image.dtype == fitted.hole.dtype == np.float32
        assert set(np.unique(fitted.hole)) <= {0, 1}
        assert np.abs(fitted.image).max() <= 1 + 1e-5
        assert (fitted.image[:, fitted.hole[0] == 1] == 0).all()


@given(scenes(), FRAMINGS)
def test_a_place_is_hole_where_any_part_of_it_is_unknown(scene, kind):
    img, hole, _ = scene
    for region in framing.regions(hole, SIZE, kind):
        fitted = composite.fit(img, hole, region, SIZE)
        reach = region.side  # beyond the border all is unknown
        around = np.pad(hole, reach, constant_values=True)
        top, left = region.top + reach, region.left + reach
        unknown = around[top : top + reach, left : left + reach].astype(np.float64)
        weights = resample.matrix(region.side, SIZE, "triangle").astype(np.float64)
        share = weights @ unknown @ weights.T
        assert (share[fitted.hole[0] == 0] < 2e-5).all()
        assert (share[fitted.hole[0] == 1] > 0).all()


def test_a_region_of_the_engines_size_passes_unchanged():
    img = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    hole = np.zeros((SIZE, SIZE), bool)
    hole[4:8, 6:9] = True
    (region,) = framing.regions(hole, SIZE, "aligned")
    fitted = composite.fit(img, hole, region, SIZE)
    assert (fitted.hole[0] == hole).all()
    expected = images.to_network(img.astype(np.float32)).transpose(2, 0, 1)
    assert (fitted.image[:, ~hole] == expected[:, ~hole]).all()
    done = img.copy()
    paste(composite.canvas(fitted, hole, region), np.where(hole, 0.5, fitted.image), done)
    assert (done[~hole] == img[~hole]).all()
    assert (done[hole] == 191).all()


def test_a_flat_picture_stays_flat_at_any_size():
    for height, width in ((7, 9), (16, 16), (50, 33), (700, 900)):
        img = np.full((height, width, 3), 77, np.uint8)
        hole = np.zeros((height, width), bool)
        hole[height // 3 : height // 2, width // 3 : width // 2] = True
        (region,) = framing.regions(hole, SIZE, "aligned")
        fitted = composite.fit(img, hole, region, SIZE)
        flat = images.to_network(np.float32(77))
        np.testing.assert_allclose(fitted.image[:, fitted.hole[0] == 0], flat, atol=1e-5)
        done = img.copy()
        done[hole] = 0
        picture = np.full((3, SIZE, SIZE), flat, np.float32)
        paste(composite.canvas(fitted, hole, region), picture, done)
        assert (done == img).all()


def test_a_large_picture_knows_what_it_knows():
    """Sums of many small float32 weights must still count as wholly known."""
    img = np.full((2500, 2600, 3), 200, np.uint8)
    hole = np.zeros(img.shape[:2], bool)
    hole[1200:1300, 1250:1350] = True
    (region,) = framing.regions(hole, 64, "aligned")
    fitted = composite.fit(img, hole, region, 64)
    assert 9 <= fitted.hole.sum() <= 36


def test_a_byte_under_a_hole_of_one_pixel_is_not_read_with_the_smallest_weight():
    """A place takes so little of the pixel that it counts as known; still nothing may leak."""
    img = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    hole = np.zeros(img.shape[:2], bool)
    hole[468, 468] = True  # 62.25 from the middle of its neighbours, whose reach is 62.5
    (region,) = framing.regions(hole, SIZE, "aligned")
    found = []
    for value in (0, 255):
        img[hole] = value
        found.append(composite.fit(img, hole, region, SIZE).image)
    assert (found[0] == found[1]).all()


def test_what_a_decoder_makes_of_known_places_does_not_reach_the_hole():
    """g is right in the hole and garbage outside of it: the enlarged hole shows none of that."""
    size, shape = 64, (300, 300)
    img = np.rint(smooth(*shape)).astype(np.uint8)
    hole = np.zeros(shape, bool)
    hole[101:203, 97:199] = True
    (region,) = framing.regions(hole, size, "aligned")
    fitted = composite.fit(img, hole, region, size)
    board = 1 - 2 * (np.indices((size, size)).sum(0) % 2)
    picture = composite.fit(img, np.zeros_like(hole), region, size).image
    picture = (picture + board * (1 - fitted.hole)).astype(np.float32)
    done = img.copy()
    paste(composite.canvas(fitted, hole, region), picture, done)
    assert np.abs(done.astype(int) - img).max() <= 8


@pytest.mark.parametrize("shape", [(64, 64), (100, 130), (150, 90), (40, 40)])
def test_a_decoder_that_is_right_leaves_no_seam(shape):
    """g gives the very picture: what stands in the hole is the picture, within two levels."""
    size, true = 64, smooth(*shape)
    img = np.rint(true).astype(np.uint8)
    hole = np.zeros(shape, bool)
    hole[shape[0] // 4 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = True
    (region,) = framing.regions(hole, size, "aligned")
    nothing = np.zeros_like(hole)
    picture = composite.fit(img, nothing, region, size).image
    done = img.copy()
    done[hole] = 0
    paste(composite.canvas(composite.fit(img, hole, region, size), hole, region), picture, done)
    assert np.abs(done.astype(int) - img)[hole].max() <= 2


@pytest.mark.parametrize("shift", [-0.25, 0.25])
def test_a_decoder_that_is_off_by_a_shade_is_pulled_back_at_the_seam(shift):
    """g gives the picture 32 levels off; at the hole's edge little of that is left."""
    size, shape = 64, (128, 128)
    img = np.rint(smooth(*shape)).astype(np.uint8)
    hole = np.zeros(shape, bool)
    hole[32:96, 32:96] = True
    (region,) = framing.regions(hole, size, "aligned")
    picture = composite.fit(img, np.zeros_like(hole), region, size).image + np.float32(shift)
    done = img.copy()
    paste(composite.canvas(composite.fit(img, hole, region, size), hole, region), picture, done)
    off = np.abs(done.astype(int) - img).mean(axis=-1)
    edge = np.concatenate([off[32, 32:96], off[95, 32:96], off[32:96, 32], off[32:96, 95]])
    assert edge.max() < 8
    np.testing.assert_allclose(off[60:68, 60:68], 32, atol=2)  # the middle is g's own

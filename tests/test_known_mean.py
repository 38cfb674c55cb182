"""The way in: what it says, and the same bits from reference, instruction sets and threads."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picme_rt import _kernels, framing, resample
from picme_rt.framing import Box, Region
from picme_rt.known_mean import known_mean

LANES = _kernels.lanes()


@st.composite
def scenes(draw):
    """A picture, a hole, a region that may reach beyond the border, and the engine's side."""
    shape = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    img = rng.integers(0, 256, (*shape, 3), np.uint8)
    hole = rng.random(shape) < draw(st.sampled_from([0.0, 0.05, 0.6, 1.0]))
    side = draw(st.integers(1, 120))
    region = Region(draw(st.integers(-60, 60)), draw(st.integers(-60, 60)), side, Box(0, 0, 1, 1))
    return img, hole, region, draw(st.sampled_from([1, 7, 16, 33, 64]))


def native(img, hole, region, size, **options):
    """The compiled kernel, which needs no Python to choose its lanes."""
    taps = resample.taps(region.side, size, "triangle")
    return _kernels.known_mean(img, hole, region.top, region.left, region.side, *taps, **options)


@given(scenes())
@settings(max_examples=150)
def test_kernel_and_reference_give_the_same_bits(scene):
    expected = known_mean(*scene, impl="ref")
    for options in ({"threads": 1}, {"threads": 3}, *({"lanes": name} for name in LANES)):
        got = native(*scene, **options)
        for one, other in zip(got, expected, strict=True):
            assert one.dtype == other.dtype == np.float32
            assert one.tobytes() == (other + np.float32(0)).tobytes()


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 2)])
def test_a_thin_picture_takes_what_it_has_not_what_its_region_would(shape):
    rng = np.random.default_rng(4)
    img, hole = rng.integers(0, 256, (*shape, 3), np.uint8), rng.random(shape) < 0.3
    (region,) = framing.regions(hole, 64, "aligned")
    assert region.side > 19_900
    resample.taps(region.side, 64, "triangle")
    begin = time.process_time()
    found = known_mean(img, hole, region, 64, impl="native")
    assert time.process_time() - begin < 0.5
    tracemalloc.start()
    expected = known_mean(img, hole, region, 64, impl="ref")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 32 << 20
    for one, other in zip(found, expected, strict=True):
        assert one.tobytes() == (other + np.float32(0)).tobytes()


def test_a_large_picture_gives_the_same_bits_on_any_number_of_threads():
    rng = np.random.default_rng(3)
    img = rng.integers(0, 256, (900, 1200, 3), np.uint8)
    hole = rng.random((900, 1200)) < 0.2
    region = Region(-20, 150, 1000, Box(0, 0, 1, 1))
    found = [known_mean(img, hole, region, 96, threads=n) for n in (1, 2, 5, None)]
    assert len({(image.tobytes(), unknown.tobytes()) for image, unknown in found}) == 1
    assert found[0][0].tobytes() == known_mean(img, hole, region, 96, impl="ref")[0].tobytes()


@given(scenes())
def test_it_is_the_weighted_mean_of_the_known_pixels(scene):
    """R(img * known) / R(known), with dense matrices in float64."""
    img, hole, region, size = scene
    down = resample.matrix(region.side, size, "triangle").astype(np.float64)
    planes = np.zeros((4, region.side, region.side))
    for y in range(max(region.top, 0), min(region.top + region.side, len(img))):
        for x in range(max(region.left, 0), min(region.left + region.side, img.shape[1])):
            if not hole[y, x]:
                planes[:, y - region.top, x - region.left] = *img[y, x], 1
    total = down @ planes @ down.T
    image, unknown = known_mean(*scene)
    sure = np.abs(total[3] - (1 - 1e-5)) > 1e-6  # else rounding decides
    assert (unknown[0] == (total[3] < 1 - 1e-5))[sure].all()
    seen = (unknown[0] == 0) & sure
    assert (
        np.abs(image - (total[:3] / np.maximum(total[3], 1e-6) / 127.5 - 1))[:, seen].max(initial=0)
        < 2e-6
    )
    assert (image[:, unknown[0] == 1] == 0).all()


def test_a_picture_of_the_engines_own_size_passes_unchanged():
    img = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    hole = np.zeros((64, 64), bool)
    image, unknown = known_mean(img, hole, Region(0, 0, 64, Box(0, 0, 1, 1)), 64)
    assert not unknown.any()
    assert (np.rint((image + 1) * 127.5).astype(np.uint8) == np.moveaxis(img, 2, 0)).all()


@given(scenes(), st.integers(1, 80))
@settings(max_examples=50)
def test_the_references_blocks_of_rows_change_no_bit(scene, rows):
    whole = known_mean(*scene, impl="ref")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("picme_rt.known_mean._ROWS", rows)
        parts = known_mean(*scene, impl="ref")
    assert all(a.tobytes() == b.tobytes() for a, b in zip(whole, parts, strict=True))


def test_every_true_is_a_hole_whatever_its_byte_and_any_memory_order_is_read():
    rng = np.random.default_rng(1)
    img = rng.integers(0, 256, (40, 30, 3), np.uint8)
    hole = rng.random((40, 30)) < 0.3
    (region,) = framing.regions(hole, 16, "aligned")
    expected = known_mean(img, hole, region, 16)
    odd = (hole.astype(np.uint8) * 255).view(bool)
    for pixels, holes in ((img, odd), (np.asfortranarray(img), np.asfortranarray(hole))):
        for impl in ("native", "ref"):
            got = known_mean(pixels, holes, region, 16, impl=impl)
            assert all((a == b).all() for a, b in zip(got, expected, strict=True))


def test_the_binding_refuses_what_does_not_fit():
    img, hole = np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), bool)
    first, weights = resample.taps(8, 4, "triangle")
    good = [img, hole, 0, 0, 8, first, weights]
    _kernels.known_mean(*good)
    for place, value, message in (
        (0, img[..., :2].copy(), r"picture must be \(H, W, 3\)"),
        (1, hole[:7].copy(), r"hole must be \(H, W\)"),
        (2, -(2**63), "top or left out of range"),
        (3, 2**62, "top or left out of range"),
        (4, 7, "taps reach outside, or go back"),
        (4, 0, "sizes out of range"),
        (5, first[::-1].copy(), "taps reach outside, or go back"),
        (6, weights[:, :3].copy(), r"taps must be \(S,\) and \(T, S\)"),
    ):
        with pytest.raises(ValueError, match=message):
            _kernels.known_mean(*good[:place], value, *good[place + 1 :])
    with pytest.raises(ValueError, match="threads must be at least 0"):
        _kernels.known_mean(*good, threads=-1)
    with pytest.raises(TypeError):
        _kernels.known_mean(img.astype(np.int16), *good[1:])

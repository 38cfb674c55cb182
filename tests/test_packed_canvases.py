"""Canvases packed for a GPU: what the bytes say, and what is refused."""

import dataclasses

import numpy as np
import pytest

from picme_rt import composite, framing
from picme_rt.errors import InputError
from picme_rt.packed_canvases import pack


def canvas(size=16, shape=(40, 50)):
    rng = np.random.default_rng(0)
    img, hole = rng.integers(0, 256, (*shape, 3), np.uint8), np.zeros(shape, bool)
    hole[10:21, 16:26] = True
    (region,) = framing.regions(hole, size, "aligned")
    return composite.canvas(composite.fit(img, hole, region, size), hole, region)


def test_a_canvas_is_found_again_in_its_bytes():
    one = canvas()
    packed = pack([one, one])
    headers = packed.data[: 2 * 37 * 8].view(np.int64).reshape(2, 37)
    for header in headers:
        arrays = {0: one.image, 1: one.known, 2: one.pull, 3: one.inside}
        arrays |= {5: one.blur.first, 6: one.blur.weights, 17: one.columns.first}
        for field, array in arrays.items():
            assert header[field] % 16 == 0
            held = packed.data[header[field] :][: array.nbytes]
            assert held.tobytes() == array.tobytes()
        assert header[4] == len(one.pull)
        assert list(header[21:25]) == [10, 16, 11, 10]
    assert headers[0, 0] != headers[1, 0]


def test_the_sizes_are_those_that_a_call_must_hold():
    big, small = canvas(shape=(90, 50)), canvas()
    packed = pack([small, big])
    assert packed[1:] == (2, 16, 16, 21, 26)
    assert packed.scratch_shape(6) == (2, 6, 3, 16, 32)


def test_the_correction_is_computed_where_the_hole_depends_on_it_alone():
    one = canvas(size=256)
    unknown, shifts, cells = pack([one]).data[25 * 8 : 37 * 8].view(np.int64).reshape(3, 4)
    rows, columns = np.nonzero(~one.known)
    assert list(unknown) == [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    grid = len(one.pull)
    for part in (shifts, cells):
        assert (part[:2] >= 0).all()
        assert (part[2:] <= grid).all()
    assert (cells[:2] <= shifts[:2]).all()
    assert (cells[2:] >= shifts[2:]).all()
    assert np.prod(shifts[2:] - shifts[:2]) < grid * grid / 2


@pytest.mark.parametrize("known", [False, True])
def test_without_a_seam_nothing_is_computed(known):
    one = dataclasses.replace(canvas(), known=np.full((16, 16), known))
    assert not pack([one]).data[25 * 8 : 37 * 8].any()


ONE = canvas()
BLUR = ONE.blur
FALLING = np.array([0, 1, 0, *range(3, 16)], np.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": ONE.image.astype(np.float64)}, r"image of a canvas must be .*float32, got"),
        ({"image": ONE.image[:2]}, r"image of a canvas must be \(3, 16, 16\) float32"),
        ({"known": ONE.known.astype(np.uint8)}, "known of a canvas must be .* bool"),
        ({"pull": ONE.pull[:5, :5]}, "pull must be .* g a divisor of 16"),
        ({"pull": ONE.pull[:, :5]}, "pull of a canvas must be"),
        ({"inside": ONE.inside[1:]}, r"inside of a canvas must be \(11, 10\) bool"),
        ({"box": framing.Box(-1, 0, 10, 10)}, "box must lie inside the picture"),
        ({"box": framing.Box(3, 3, 3, 13)}, "box must .* hold a pixel"),
        ({"blur": BLUR._replace(first=BLUR.first + np.int32(1))}, "blur must take values of 0 to"),
        ({"blur": BLUR._replace(first=BLUR.first - np.int32(1))}, "blur must take values of 0 to"),
        ({"rows": ONE.rows.part(0, 3)}, r"rows.first of a canvas must be \(11,\) int32"),
        ({"grow": ONE.grow._replace(first=FALLING)}, "grow.first must never fall"),
    ],
)
def test_a_canvas_that_would_lead_a_kernel_astray_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        pack([dataclasses.replace(ONE, **change)])


def test_canvases_are_some_of_one_size_that_a_gpu_can_hold():
    with pytest.raises(InputError, match="canvases must be at least one, got none"):
        pack([])
    with pytest.raises(InputError, match="canvases must be of one size, got 16 and 32"):
        pack([canvas(), canvas(32)])
    huge = dataclasses.replace(ONE, image=np.zeros((3, 1, 4097), np.float32))
    with pytest.raises(InputError, match="size from 1 to 4096 for a GPU, got 4097: use"):
        pack([huge])

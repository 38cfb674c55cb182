"""The windows of a box hold what the box needs, stay inside of the maps and come in few sizes."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from picme_rt.framing import Box
from picme_rt.windows import STEP, Crop, windows

PRESETS = {
    "cats": (64, (Crop(8, 1, 1, 3), Crop(16, 1, 0, 4))),
    "cats, shuffled": (64, (Crop(8, 1, 1, 3), Crop(16, 0, 0, 4), Crop(16, 1, 1, 0))),
    "picme": (64, (Crop(32, 1, 2, 0),)),
    "whole": (64, ()),
}


@st.composite
def requests(draw):
    size, crops = PRESETS[draw(st.sampled_from(sorted(PRESETS)))]
    ends = [sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size)))) for _ in range(2)]
    assume(all(first < last for first, last in ends))
    (top, bottom), (left, right) = ends
    return size, crops, Box(top, left, bottom, right)


def absolute(crops, rows):
    """Rows and columns of each window in its whole map."""
    begin, side, found = np.zeros(2, int), crops[0].side, []
    for i, crop in enumerate(crops):
        begin = begin * (crop.side // side) + rows[2 * i]
        found.append((begin, begin + rows[2 * i + 1] - rows[2 * i]))
        side = crop.side
    return found


def needed(crop, finer, first, last):
    """Places of a crop's map for first:last of the next one, one by one from what `Crop` says."""
    ratio = finer // crop.side
    places = {at // ratio for at in range(first - crop.before, last + crop.after)}
    reached = {at + step for at in places for step in range(-crop.halo, crop.halo + 1)}
    return {at for at in reached if 0 <= at < crop.side}


@given(requests())
def test_a_window_holds_all_that_the_next_one_needs(request):
    size, crops, box = request
    asked = windows(size, crops, box)
    assert asked.box == box
    assert asked.rows.shape == (2 * len(crops), 2)
    assert asked.rows.dtype == np.int64
    if not crops:
        return
    finer = [*(crop.side for crop in crops[1:]), size]
    ends = absolute(crops, asked.rows)
    asks = [*ends[1:], (np.array(box[:2]), np.array(box[2:]))]
    for crop, (first, last), side, (begin, end) in zip(crops, ends, finer, asks, strict=True):
        for axis in (0, 1):
            wanted = needed(crop, side, begin[axis], end[axis])
            assert wanted <= set(range(first[axis], last[axis]))
            assert 0 <= first[axis] < last[axis] <= crop.side


@given(requests())
def test_what_is_made_holds_the_box_and_each_window_lies_in_the_one_before(request):
    size, crops, box = request
    asked = windows(size, crops, box)
    made = asked.made
    assert 0 <= made.top <= box.top < box.bottom <= made.bottom <= size
    assert 0 <= made.left <= box.left < box.right <= made.right <= size
    extent = np.full(2, crops[0].side if crops else size)
    for i, crop in enumerate(crops):
        first, last = asked.rows[2 * i : 2 * i + 2]
        assert (first >= 0).all()
        assert (first < last).all()
        assert (last <= extent).all()  # a decoder may slice without looking
        finer = crops[i + 1].side if i + 1 < len(crops) else size
        extent = (last - first) * (finer // crop.side)
    assert (extent == (made.bottom - made.top, made.right - made.left)).all()


@given(requests())
def test_sizes_are_whole_steps_or_the_whole_map(request):
    size, crops, box = request
    rows = windows(size, crops, box).rows
    for i, crop in enumerate(crops):
        for length in rows[2 * i + 1] - rows[2 * i]:
            assert length % STEP == 0 or length == crop.side


@pytest.mark.parametrize("preset", PRESETS)
def test_the_whole_picture_takes_whole_maps(preset):
    size, crops = PRESETS[preset]
    asked = windows(size, crops, Box(0, 0, size, size))
    assert asked.made == Box(0, 0, size, size)
    for i, crop in enumerate(crops):
        assert asked.rows[2 * i : 2 * i + 2].tolist() == [[0, 0], [crop.side] * 2]


def test_a_pixel_takes_little_more_than_its_halo():
    size, crops = PRESETS["cats"]
    asked = windows(size, crops, Box(30, 30, 31, 31))
    lengths = asked.rows[1::2] - asked.rows[::2]
    assert lengths.tolist() == [[8, 8], [12, 12]]  # 1 place and 4 on each side, in steps of 4

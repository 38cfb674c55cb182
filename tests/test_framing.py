"""Regions: squares that see the hole, as properties of random pictures and holes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picme_rt import framing

SIZE = 16  # a tiny engine, so that small pictures are large beside it
FRAMINGS = pytest.mark.parametrize("kind", ["aligned", "free"])


@st.composite
def holes(draw):
    """A picture of up to 200 pixels a side with one to four boxes of hole."""
    side = st.integers(1, 200)
    hole = np.zeros((draw(side), draw(side)), bool)
    for _ in range(draw(st.integers(1, 4))):
        top, left = draw(st.integers(0, hole.shape[0] - 1)), draw(st.integers(0, hole.shape[1] - 1))
        height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        hole[top : top + height, left : left + width] = True
    return hole


def covered(hole, found):
    """How often each pixel lies in the box of a region."""
    count = np.zeros(hole.shape, int)
    for region in found:
        box = region.box
        count[box.top : box.bottom, box.left : box.right] += 1
    return count


def boxes(*places, shape=(100, 600)):
    hole = np.zeros(shape, bool)
    for top, left, side in places:
        hole[top : top + side, left : left + side] = True
    return hole


@FRAMINGS
@given(hole=holes())
def test_every_pixel_of_the_hole_lies_in_exactly_one_box(kind, hole):
    count = covered(hole, framing.regions(hole, SIZE, kind))
    assert (count[hole] == 1).all()


@FRAMINGS
@given(hole=holes())
def test_a_box_is_tight_and_lies_inside_its_square(kind, hole):
    for region in framing.regions(hole, SIZE, kind):
        box = region.box
        part = hole[box.top : box.bottom, box.left : box.right]
        assert all(edge.any() for edge in (part[0], part[-1], part[:, 0], part[:, -1]))
        assert region.top <= box.top < box.bottom <= region.top + region.side
        assert region.left <= box.left < box.right <= region.left + region.side


@FRAMINGS
@given(hole=holes())
def test_a_square_lies_inside_the_picture_whenever_it_fits(kind, hole):
    for region in framing.regions(hole, SIZE, kind):
        for low, extent in zip((region.top, region.left), hole.shape, strict=True):
            if region.side <= extent:
                assert 0 <= low <= extent - region.side
            else:  # the picture lies in the middle of the square
                assert abs(2 * low + region.side - extent) <= 1


@given(hole=holes())
def test_aligned_takes_one_square_as_large_as_the_picture_allows(hole):
    (region,) = framing.regions(hole, SIZE, "aligned")
    assert region.side == max(min(hole.shape), region.box.longest)


@given(hole=holes())
def test_free_takes_context_and_enlarges_only_small_pictures(hole):
    found = framing.regions(hole, SIZE, "free")
    for region in found:
        longest = region.box.longest
        assert region.side == max(min(max(SIZE, 2 * longest), min(hole.shape)), longest)
        assert region.side >= min(SIZE, *hole.shape)
    sides = [region.box.longest for region in found]
    assert sides == sorted(sides, reverse=True)


@given(hole=holes())
def test_free_splits_only_what_does_not_fit_one_crop_of_four_sides(hole):
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    joint = max(min(max(SIZE, 2 * longest), min(hole.shape)), longest)
    if joint <= framing.FAR * SIZE:
        assert len(framing.regions(hole, SIZE, "free")) == 1


@FRAMINGS
def test_an_empty_hole_has_no_region(kind):
    assert framing.regions(np.zeros((30, 40), bool), SIZE, kind) == []


@FRAMINGS
def test_a_picture_that_is_all_hole_is_one_region(kind):
    (region,) = framing.regions(np.ones((30, 40), bool), SIZE, kind)
    assert region == framing.Region(-5, 0, 40, framing.Box(0, 0, 30, 40))


def test_far_apart_holes_are_split_where_free_and_kept_where_aligned():
    hole = boxes((40, 10, 8), (44, 300, 12), (50, 580, 4))
    found = framing.regions(hole, SIZE, "free")
    assert [region.box for region in found] == [
        framing.Box(44, 300, 56, 312), framing.Box(40, 10, 48, 18), framing.Box(50, 580, 54, 584),
    ]  # fmt: skip
    assert [region.side for region in found] == [24, 16, 16]
    assert len(framing.regions(hole, SIZE, "aligned")) == 1
    turned = framing.regions(hole.T, SIZE, "free")
    assert [region.box for region in turned] == [
        framing.Box(box.left, box.top, box.right, box.bottom) for box in (r.box for r in found)
    ]


def test_near_holes_share_a_region():
    (region,) = framing.regions(boxes((40, 100, 4), (40, 120, 4)), SIZE, "free")
    assert region.box == framing.Box(40, 100, 44, 124)
    assert region.side == 48


def test_one_empty_row_is_gap_enough():
    hole = np.zeros((100, 600), bool)
    hole[10:80, 100:105] = hole[81:82, 100:105] = True
    found = framing.regions(hole, SIZE, "free")
    assert [region.box for region in found] == [
        framing.Box(10, 100, 80, 105),
        framing.Box(81, 100, 82, 105),
    ]


def test_a_long_hole_without_a_gap_stays_whole():
    hole = np.zeros((100, 600), bool)
    hole[40:50, 10:590] = True
    (region,) = framing.regions(hole, SIZE, "free")
    assert (region.top, region.left, region.side) == (-240, 10, 580)


def test_a_cut_that_makes_no_crop_smaller_is_not_made():
    """Bars as high as the picture: each crop is as large, however many there are."""
    hole = np.zeros((300, 400), bool)
    hole[:, ::5] = True
    found = framing.regions(hole, SIZE, "free")
    assert [(region.side, region.box.longest) for region in found] == [(300, 300)] * 2  # of 396


def test_far_corners_are_cut_though_the_first_cut_makes_no_crop_smaller():
    hole = boxes((0, 0, 4), (0, 296, 4), (296, 0, 4), (296, 296, 4), shape=(300, 300))
    found = framing.regions(hole, SIZE, "free")
    assert [region.side for region in found] == [SIZE] * 4


def test_dots_all_over_a_picture_are_cut_in_the_middle_of_equal_gaps():
    hole = np.zeros((240, 320), bool)
    hole[::4, ::4] = True
    found = framing.regions(hole, SIZE, "free")
    assert len(found) == 64
    assert {region.side for region in found} == {2 * 37}  # twice ten columns of dots


@pytest.mark.parametrize("step", [2, 3])
def test_regions_are_bounded_and_no_hole_is_too_much_for_the_stack(step):
    hole = np.zeros((1, 8000), bool)
    hole[0, ::step] = True
    found = framing.regions(hole, 1, "free")
    assert len(found) == framing.MOST
    assert (covered(hole, found)[hole] == 1).all()
    assert found[0].side < 2 * 8000 / framing.MOST

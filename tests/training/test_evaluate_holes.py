from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from picme_rt.errors import InputError
from picme_training import masks
from picme_training.data import load_pictures
from picme_training.evaluate import holes

NAMES = [f"{i}.jpg" for i in range(5)]


def choose(kind, *, data=Path("a.pack"), names=NAMES, size=64, each=1, seed=0):
    return holes.choose(str(kind), data, names, size, each=each, seed=seed)


@pytest.fixture
def folder(tmp_path):
    """Give names and the row where each mask's hole begins, get a folder of 128x128 masks."""

    def make(rows):
        for name, row in rows.items():
            mask = np.zeros((128, 128), np.uint8)
            mask[row : row + 30, 10:90] = 255
            Image.fromarray(mask).save(tmp_path / name)
        return tmp_path

    return make


def tops(chosen):
    return [int(np.flatnonzero(hole.any(1))[0]) for hole in chosen]


def test_centre_is_the_square_of_half_the_side():
    for hole in choose("centre"):
        assert (hole == masks.centre(64)).all()


def test_random_holes_are_drawn_by_seed_and_place_alone():
    one = choose("random", each=2)
    assert len(one) == 10
    assert all(0 < hole.sum() < hole.size for hole in one)
    assert all((a == b).all() for a, b in zip(one, choose("random", names=NAMES * 2), strict=True))
    assert any((a != b).any() for a, b in zip(one, choose("random", each=2, seed=1), strict=True))


@pytest.fixture
def pair(tmp_path):
    """Give shapes, get folders of a picture, white under its mask's hole, and of the mask."""

    def make(height, width, of_mask=None, orientation=1):
        mask, picture = np.zeros(of_mask or (height, width), np.uint8), np.zeros((height, width, 3))
        top, left = height * 5 // 8, width * 5 // 8
        for array in (mask, picture):
            array[top : top + 20, left : left + 20] = 255
        exif = Image.Exif()
        exif[Base.Orientation] = orientation
        for name in ("pictures", "masks"):
            (tmp_path / name).mkdir()
        Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "pictures" / "a.png", exif=exif)
        return tmp_path / "pictures", tmp_path / "masks"

    return make


@pytest.mark.parametrize("shape", [(64, 160), (160, 64), (64, 64), (65, 160), (160, 65)])
def test_a_mask_named_as_a_picture_lies_where_it_is_painted_on_it(pair, shape):
    data, place = pair(*shape)
    read = load_pictures(data, min(shape), smallest=64, keep_grey=True)
    (hole,) = choose(place, data=data, names=read.names, size=min(shape))
    assert 0 < hole.sum() < hole.size
    assert (hole == (read.pixels[0] == 255).all(0).numpy()).all()


@pytest.mark.parametrize(
    ("of_mask", "orientation"), [((64, 64), 1), ((80, 200), 1), ((64, 160), 6)]
)
def test_a_mask_of_another_size_than_its_picture_is_refused(pair, of_mask, orientation):
    data, place = pair(64, 160, of_mask, orientation)
    with pytest.raises(InputError, match=r"pictures/a\.png, got .* of .*masks/a\.png"):
        choose(place, data=data, names=["a.png"])


def test_masks_named_as_pictures_of_a_pack_are_cropped_as_these_were(pair):
    _, place = pair(64, 160)
    (hole,) = choose(place, names=["a.jpg"])
    expected = np.zeros((64, 64), bool)
    expected[40:60, 52:64] = True
    assert (hole == expected).all()


def test_an_empty_square_of_a_mask_is_refused_by_name(pair):
    data, place = pair(32, 160)  # its hole lies outside of the centred square
    with pytest.raises(InputError, match=r"at 64x64, got 1 empty \(a\.png\) in .*masks"):
        choose(place, data=data, names=["a.png"])


def test_masks_named_as_the_pictures_go_with_them(folder):
    place = folder({"a.png": 0, "b.png": 20, "c.png": 40})
    assert tops(choose(place, names=["c.jpg", "a.webp"])) == [20, 0]


def test_masks_of_other_names_are_taken_whole(tmp_path):
    mask = np.zeros((64, 128), np.uint8)
    mask[:, :64] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    (hole,) = choose(tmp_path, names=["a.png"])
    assert hole[:, :32].all()
    assert not hole[:, 32:].any()


def test_other_masks_are_taken_in_turn_in_an_order_of_the_seed(folder):
    place = folder({f"m{i}.png": 10 * i for i in range(7)})
    with pytest.raises(InputError, match=r"--holes must be at most the 7 masks of .*, got 8"):
        choose(place, each=8)
    one = tops(choose(place, each=3))
    assert sorted(one[:7]) == [0, 5, 10, 15, 20, 25, 30]
    assert one[7:14] == one[:7]
    assert one == tops(choose(place, each=3))
    assert one != tops(choose(place, each=3, seed=1))


def test_a_mask_is_resized_to_the_nearest_pixel(folder):
    place = folder({"m.png": 40})
    expected = np.zeros((64, 64), bool)
    expected[20:35, 5:45] = True
    assert (choose(place)[0] == expected).all()


@pytest.mark.parametrize(("value", "says"), [(0, "empty"), (255, "full")])
def test_a_mask_without_hole_or_known_pixels_is_refused_by_name(folder, value, says):
    place = folder({"m.png": 40})
    Image.fromarray(np.full((128, 128), value, np.uint8)).save(place / "flat.png")
    with pytest.raises(InputError, match=rf"known pixels at 64x64, got 1 {says} \(flat\.png\)"):
        choose(place)


def test_a_hole_that_vanishes_when_it_is_resized_is_refused(folder):
    place = folder({"m.png": 40})
    mask = np.zeros((128, 128), np.uint8)
    mask[::2] = 255  # the nearest pixel is always the other row
    Image.fromarray(mask).save(place / "lines.png")
    with pytest.raises(InputError, match=r"got 1 empty \(lines\.png\)"):
        choose(place)


def test_two_masks_of_one_name_are_refused(folder):
    with pytest.raises(InputError, match=r"one mask named 0, got 0\.png and 0\.webp"):
        choose(folder({"0.png": 0, "0.webp": 20}), names=["0.jpg"])


def test_masks_for_some_of_the_pictures_are_refused(folder):
    with pytest.raises(InputError, match="every picture's name or for none, got none named 1 and"):
        choose(folder({"0.png": 0}))


@pytest.mark.parametrize("kind", ["centre", "names"])
def test_kinds_with_one_hole_a_picture_give_no_more(folder, kind):
    place = folder({f"{i}.png": i for i in range(5)}) if kind == "names" else kind
    with pytest.raises(InputError, match="give one hole a picture, got --holes 2"):
        choose(place, each=2)


def test_what_is_no_kind_and_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="masks must be centre, random or a folder"):
        choose("squares")
    with pytest.raises(InputError, match="masks must be a folder with"):
        choose(tmp_path)

import os

import numpy as np
import pytest
from PIL import Image

from picme_rt.errors import InputError
from picme_training import masks
from picme_training.config import MaskConfig

SIZES = (64, 128, 256)
KINDS = ("centre", "rectangles", "strokes")


def only(kind):
    return MaskConfig(**{**dict.fromkeys((*KINDS, "folder"), 0.0), kind: 1.0})


def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture
def folder(tmp_path):
    """Two masks: the left half at 32x32, the top quarter at 64x64."""
    left, top = np.zeros((32, 32), np.uint8), np.zeros((64, 64), np.uint8)
    left[:, :16], top[:16] = 255, 255
    Image.fromarray(left).save(tmp_path / "a.png")
    Image.fromarray(top).save(tmp_path / "b.png")
    return tmp_path


@pytest.mark.parametrize("size", SIZES)
def test_the_centre_hole_is_the_middle_quarter(size):
    hole = masks.centre(size)
    assert hole.mean() == 0.25
    assert hole[size // 4, size // 4]
    assert not hole[size // 4 - 1].any()
    assert (hole == hole[::-1]).all()
    assert (hole == hole.T).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_hole_is_never_empty_and_never_full(kind, size):
    for seed in range(200 if size == 64 else 20):
        hole = masks.draw(only(kind), size, rng(seed))
        assert hole.shape == (size, size)
        assert hole.dtype == bool
        assert 0 < hole.sum() < hole.size


def test_holes_are_small_and_large():
    strokes = np.array([masks.strokes(64, rng(seed)).mean() for seed in range(300)])
    boxes = np.array([masks.rectangles(64, rng(seed)).mean() for seed in range(300)])
    assert strokes.min() < 0.08 < 0.15 < strokes.mean() < 0.5 < strokes.max()
    assert 1 / 64 <= boxes.min() < 0.05 < 0.1 < boxes.mean() < 0.3 < boxes.max() <= 0.75


def test_rectangles_reach_every_row_and_column():
    reached = np.any([masks.rectangles(64, rng(seed)) for seed in range(500)], axis=0)
    assert reached.any(0).all()
    assert reached.any(1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_hole_is_a_function_of_its_random_numbers(kind):
    one, two = (masks.draw(only(kind), 64, rng(5)) for _ in range(2))
    assert (one == two).all()


@pytest.mark.parametrize("kind", ["rectangles", "strokes"])
def test_other_random_numbers_give_other_holes(kind):
    assert len({masks.draw(only(kind), 64, rng(seed)).tobytes() for seed in range(20)}) > 15


def test_kinds_are_drawn_by_their_weights():
    config = MaskConfig(centre=3, rectangles=1, strokes=0)
    drawn = rng(0)
    centres = [(masks.draw(config, 64, drawn) == masks.centre(64)).all() for _ in range(400)]
    assert np.mean(centres) == pytest.approx(0.75, abs=0.06)


def test_masks_of_a_folder_come_in_the_order_of_names_at_the_size_asked_for(folder):
    left, top = masks.load_folder(folder, 64).values()
    assert left[:, :32].all()
    assert not left[:, 32:].any()
    assert top[:16].all()
    assert not top[16:].any()


def test_values_over_127_are_hole(tmp_path):
    Image.fromarray(np.array([[127, 128], [0, 255]], np.uint8)).save(tmp_path / "grey.png")
    assert masks.load_folder(tmp_path, 2)["grey.png"].tolist() == [[False, True], [False, True]]


def test_other_files_of_a_mask_folder_are_passed_over(folder):
    (folder / "notes.txt").write_text("no mask")
    assert len(masks.load_folder(folder, 64)) == 2


def test_drawing_from_a_folder_gives_its_masks_and_their_mirrors(folder):
    left, top = found = list(masks.load_folder(folder, 64).values())
    drawn = {masks.draw(only("folder"), 64, rng(seed), found).tobytes() for seed in range(40)}
    assert drawn == {left.tobytes(), np.ascontiguousarray(left[:, ::-1]).tobytes(), top.tobytes()}


@pytest.mark.parametrize("folder", [None, []])
def test_weights_for_a_folder_without_one_name_the_flag(folder):
    with pytest.raises(InputError, match="--masks"):
        masks.draw(only("folder"), 64, rng(0), folder)


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_an_empty_or_missing_mask_folder_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=name):
        masks.load_folder(tmp_path / name, 64)


def test_a_mask_that_cannot_be_read_is_named(folder):
    (folder / "c.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"c\.png"):
        masks.load_folder(folder, 64)


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link", "cut short"])
def test_a_mask_that_is_no_whole_file_is_one_error_with_its_name(folder, kind):
    place = folder / "odd.png"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "dangling link":
        place.symlink_to(folder / "nowhere.png")
    else:
        place.write_bytes((folder / "a.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"odd\.png"):
        masks.load_folder(folder, 64)


def test_empty_and_full_masks_of_a_folder_are_refused_by_name(folder):
    Image.new("L", (64, 64)).save(folder / "c.png")
    Image.new("L", (64, 64), 255).save(folder / "d.png")
    with pytest.raises(InputError, match=r"at 64x64, got 1 empty \(c\.png\), 1 full \(d\.png\) in"):
        masks.load_folder(folder, 64)


def test_a_hole_too_thin_for_the_size_is_refused_by_name(folder):
    thin = np.zeros((64, 64), np.uint8)
    thin[4] = 255
    Image.fromarray(thin).save(folder / "thin.png")
    assert masks.load_folder(folder, 64)["thin.png"].sum() == 64
    with pytest.raises(InputError, match=r"at 16x16, got 1 empty \(thin\.png\)"):
        masks.load_folder(folder, 16)


def test_a_mask_of_0_and_1_is_named(folder):
    Image.new("L", (64, 64), 1).save(folder / "c.png")
    with pytest.raises(InputError, match=r"got at most 1 in .*c\.png"):
        masks.load_folder(folder, 64)

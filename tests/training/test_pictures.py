import io
import os
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from picme_rt.errors import InputError
from picme_training import data, pictures
from picme_training.pictures import Skipped


def load(source, side=8, smallest=None, keep_grey=False):
    return data.load_pictures(source, side, smallest=smallest or side, keep_grey=keep_grey)


def colours(width, height, seed=0):
    """A smooth picture in colour."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture, form, **options):
    held = io.BytesIO()
    picture.save(held, form, **options)
    return held.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder with one good picture, good.png."""
    place = tmp_path / "pictures"
    place.mkdir()
    colours(20, 20).save(place / "good.png")
    return place


# What is read


def test_a_folder_is_read_in_the_order_of_names(picture_folder, photographs):
    found = load(picture_folder, 64)
    assert torch.equal(found.pixels, photographs)
    assert found.names == [f"{i}.png" for i in range(8)]
    assert found.skipped == []


def test_a_wide_picture_is_cropped_to_its_centre(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (200, 100, 50)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    found = load(tmp_path, 20).pixels
    assert found.shape == (2, 3, 20, 20)
    assert found.dtype == torch.uint8
    assert (found == torch.tensor([200, 100, 50]).view(1, 3, 1, 1)).all()


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "PA"])
def test_pictures_of_other_modes_become_rgb(tmp_path, mode):
    orange = Image.new("RGB", (8, 8), (255, 102, 0))
    suffix = {"CMYK": "jpg", "PA": "png"}.get(mode, "png")
    if mode == "PA":
        orange.convert("P").save(tmp_path / "other.png", transparency=0)
    else:
        orange.convert(mode).save(tmp_path / f"other.{suffix}")
    found = load(tmp_path).pixels
    assert (found - torch.tensor([255, 102, 0]).view(1, 3, 1, 1)).abs().max() <= 3


def test_a_picture_is_turned_as_its_exif_entry_says(tmp_path):
    upright = colours(8, 8)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert (load(tmp_path).pixels[0].permute(1, 2, 0).numpy() == np.array(upright)).all()


def test_suffixes_are_read_in_any_case_and_other_files_are_passed_over(folder):
    colours(8, 8).save(folder / "A.PNG")
    colours(8, 8).save(folder / "b.jpeg")
    (folder / "notes.txt").write_text("no picture")
    (folder / "._good.png").write_bytes(b"what macOS leaves beside a file")
    (folder / "more").mkdir()
    colours(8, 8).save(folder / "more" / "deeper.png")
    found = load(folder)
    assert found.names == ["A.PNG", "b.jpeg", "good.png"]
    assert found.skipped == []


# What is left out


GOOD = {  # every one of them is read
    "cmyk.jpg": encoded(colours(20, 20, 1).convert("CMYK"), "JPEG"),
    "palette.png": encoded(colours(20, 20, 2).convert("P"), "PNG"),
    "rgba.webp": encoded(colours(20, 20, 3).convert("RGBA"), "WEBP"),
    "rotated.jpg": encoded(colours(20, 30, 4), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01"
                           b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "wide.bmp": encoded(colours(90, 8, 5), "BMP"),
}  # fmt: skip
BAD = {
    "empty.png": (b"", "unreadable"),
    "text.jpg": (b"<html>404</html>", "unreadable"),
    "deep.png": (encoded(Image.new("I;16", (20, 20), 300), "PNG"), "unreadable"),
    "one.png": (encoded(Image.new("RGB", (1, 1), "red"), "PNG"), "tiny"),
    "low.png": (encoded(colours(90, 7), "PNG"), "tiny"),
    "grey.png": (encoded(colours(20, 20).convert("L"), "PNG"), "grey"),
    "grey_rgb.jpg": (encoded(colours(20, 20).convert("L").convert("RGB"), "JPEG"), "grey"),
    "bilevel.png": (encoded(colours(20, 20).convert("1"), "PNG"), "grey"),
}
WHOLE = {
    name: encoded(colours(40, 40, seed), form)
    for seed, (name, form) in enumerate(
        [("cut.jpg", "JPEG"), ("cut.png", "PNG"), ("cut.webp", "WEBP"), ("cut.bmp", "BMP")]
    )
}


@pytest.fixture
def mixed(folder):
    """Every kind of good and of bad file, and the reasons by name that are expected."""
    for name, content in GOOD.items():
        (folder / name).write_bytes(content)
    for name, (content, _) in BAD.items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.jpg")
    odd = dict.fromkeys(("folder.png", "dangling.png", "pipe.jpg"), "unreadable")
    return folder, {name: reason for name, (_, reason) in BAD.items()} | odd


def test_every_kind_of_bad_file_is_left_out_by_name_and_every_good_one_kept(mixed):
    folder, expected = mixed
    found = load(folder)
    assert {entry.name: entry.reason for entry in found.skipped} == expected
    assert found.names == sorted(["good.png", *GOOD])
    alone = folder.parent / "alone"
    alone.mkdir()
    for place, name in enumerate(found.names):
        (folder / name).rename(alone / name)
        assert torch.equal(load(alone).pixels[0], found.pixels[place])
        (alone / name).unlink()


def test_grey_pictures_are_kept_where_they_are_asked_for(mixed):
    folder, expected = mixed
    found = load(folder, keep_grey=True)
    greys = {name for name, reason in expected.items() if reason == "grey"}
    assert greys <= set(found.names)
    assert {s.name for s in found.skipped} == expected.keys() - greys


def test_a_picture_with_one_coloured_pixel_is_not_grey(tmp_path):
    almost = np.full((8, 8, 3), 90, np.uint8)
    almost[3, 5, 2] = 91
    Image.fromarray(almost).save(tmp_path / "almost.png")
    assert load(tmp_path).names == ["almost.png"]


def test_pictures_with_transparent_pixels_are_learnt_from_and_named(tmp_path):
    rgb = np.asarray(colours(12, 8))
    for name, columns in (("a", slice(5, 6)), ("b", slice(0, 2)), ("c", slice(0, 0))):
        alpha = np.full((8, 12, 1), 255, np.uint8)
        alpha[:, columns] = 0
        Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / f"{name}.png")
    Image.fromarray(rgb).save(tmp_path / "d.png")
    found = load(tmp_path)
    assert found.names == ["a.png", "b.png", "c.png", "d.png"]
    assert found.transparent == ["a.png"]  # that of b lies outside of the centred square
    assert torch.equal(found.pixels, found.pixels[3:].expand_as(found.pixels))
    assert pictures.note(found.transparent) == [
        "1 with transparent pixels, whose stored colours are learnt (a.png)"
    ]
    assert pictures.note([]) == []


def test_a_picture_is_tiny_below_the_size_that_is_given(tmp_path):
    colours(30, 12).save(tmp_path / "a.png")
    assert load(tmp_path, side=16, smallest=12).pixels.shape == (1, 3, 16, 16)
    with pytest.raises(InputError, match="1 tiny"):
        load(tmp_path, side=16, smallest=13)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1, exclude_max=True))
@example("cut.bmp", 0.999)
@example("cut.jpg", 0.99)
def test_a_picture_that_was_cut_short_anywhere_never_ends_the_reading(folder, name, share):
    (folder / name).write_bytes(WHOLE[name][: int(share * len(WHOLE[name]))])
    found = load(folder)
    (folder / name).unlink()
    # a file may lack its last bytes and hold every pixel, as a PNG without its end does
    assert sorted([*found.names, *(s.name for s in found.skipped)]) == sorted(["good.png", name])
    assert "good.png" in found.names
    if share < 0.9:
        assert [(s.name, s.reason) for s in found.skipped] == [(name, "unreadable")]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_damaged_bytes_never_end_the_reading(folder, name, drawn):
    content = bytearray(GOOD[name])
    for _ in range(drawn.draw(st.integers(1, 4))):
        content[drawn.draw(st.integers(0, len(content) - 1))] = drawn.draw(st.integers(0, 255))
    (folder / name).write_bytes(content)
    found = load(folder)
    (folder / name).unlink()
    assert sorted([*found.names, *(s.name for s in found.skipped)]) == sorted(["good.png", name])


# What is said


def test_the_summary_counts_by_reason_and_names_the_first():
    skipped = [Skipped(f"{i}.png", "tiny", "1x1") for i in range(7)]
    skipped.insert(3, Skipped("broken.png", "unreadable", "cut"))
    assert pictures.summary(skipped) == [
        "7 tiny (0.png, 1.png, 2.png, 3.png, 4.png, ...)",
        "1 unreadable (broken.png)",
    ]
    assert pictures.as_table(skipped)["unreadable"] == {"broken.png": "cut"}
    assert len(pictures.as_table(skipped)["tiny"]) == 7


@pytest.mark.parametrize("name", ["empty", "missing", "pipe"])
def test_a_folder_without_pictures_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=f"data must be a folder .*{name}"):
        load(tmp_path / name)


def test_a_folder_of_which_nothing_is_left_says_why(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "grey.png")
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 grey \(grey\.png\); 1 unreadable.*--keep-grey"):
        load(tmp_path)


def test_pictures_that_do_not_fit_the_memory_are_refused_before_it_is_taken(
    picture_folder, monkeypatch
):
    needed = 8 * 3 * 64 * 64
    monkeypatch.setattr(pictures, "available_memory", lambda: needed)
    assert len(load(picture_folder, 64).names) == 8
    monkeypatch.setattr(pictures, "available_memory", lambda: needed - 1)
    with pytest.raises(InputError, match=r"8 pictures of 64x64 need .* GB .* smaller size"):
        load(picture_folder, 64)


def test_free_memory_is_shared_by_the_processes_of_one_machine(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = pictures.available_memory()
    assert 1e8 < alone <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert pictures.available_memory() < alone / 2


def test_an_error_in_a_thread_ends_the_rest():
    begun = []

    def work(item):
        begun.append(item)
        if item == 0:
            raise OSError("the disk is gone")
        time.sleep(0.001)  # as decoding does, it leaves the interpreter to others

    with pytest.raises(OSError, match="the disk is gone"):
        pictures.in_threads(work, range(3000), "working")
    assert len(begun) < 3000


def test_an_interrupt_between_two_results_ends_the_rest(monkeypatch):
    def interrupted(results, **_):
        next(results)
        raise KeyboardInterrupt

    begun = []
    monkeypatch.setattr(pictures, "tqdm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pictures.in_threads(lambda item: begun.append(item) or time.sleep(0.001), range(3000), "")
    assert len(begun) < 3000

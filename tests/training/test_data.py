import contextlib
import dataclasses
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from picme_rt.errors import InputError
from picme_training import data, masks
from picme_training.config import (
    AugmentConfig,
    MaskConfig,
    NetworkConfig,
    RunConfig,
    ScheduleConfig,
)


def run(batch=4, seed=0, size=64, **more):
    return RunConfig(
        NetworkConfig("picme", size), ScheduleConfig(steps=1, batch=batch, seed=seed), **more
    )


STILL = AugmentConfig(flip=False, zoom=1.0)


@pytest.fixture
def numbered():
    """Ten pictures, the i-th of one grey value 10 i."""
    return torch.arange(0, 100, 10, dtype=torch.uint8).view(10, 1, 1, 1).expand(-1, 3, 64, 64)


def which(image):
    """The numbers of the pictures in a batch of `numbered`."""
    return ((image.mean((1, 2, 3)) + 1) * 12.75).round().int().tolist()


# Holding out


def test_the_last_pictures_are_held_out_at_the_networks_size(numbered):
    kept, val = data.split(numbered, 32, 3)
    assert torch.equal(kept, numbered[:7])
    assert val.shape == (3, 3, 32, 32)
    assert val.dtype == torch.uint8
    assert val[:, 0, 0, 0].tolist() == [70, 80, 90]


def test_a_folder_no_larger_than_what_is_held_out_is_refused(numbered):
    with pytest.raises(InputError, match="--val"):
        data.split(numbered, 64, 10)


# Batches


def test_a_batch_is_a_function_of_seed_and_step_alone(photographs):
    config = run()
    image, hole = data.Batches(photographs, config).batch(7)
    other = data.Batches(photographs, config)
    other.batch(3)
    again, hole_again = other.batch(7)
    assert torch.equal(image, again)
    assert torch.equal(hole, hole_again)


@pytest.mark.parametrize(("seed", "step"), [(1, 7), (0, 8)])
def test_another_seed_or_step_gives_another_batch(photographs, seed, step):
    image, hole = data.Batches(photographs, run()).batch(7)
    other, other_hole = data.Batches(photographs, run(seed=seed)).batch(step)
    assert not torch.equal(image, other)
    assert not torch.equal(hole, other_hole)


@pytest.mark.parametrize("size", [1, 3, 4, 10, 23])
def test_every_epoch_is_a_permutation_of_the_pictures(numbered, size):
    batches = data.Batches(numbered, run(batch=size, augment=STILL))
    seen = [i for step in range(-(-30 // size)) for i in which(batches.batch(step)[0])]
    epochs = [seen[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_has_the_promised_shapes_types_and_ranges(photographs):
    image, hole = data.Batches(photographs, run(batch=3)).batch(0)
    assert image.shape == (3, 3, 64, 64)
    assert hole.shape == (3, 1, 64, 64)
    assert image.dtype == hole.dtype == torch.float32
    assert hole.unique().tolist() == [0, 1]


@pytest.mark.parametrize("zoom", [0.3, 0.9, 1.0])
def test_crops_stay_in_range(zoom):
    extremes = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(-1, 3, 70, 70)
    checker = extremes.clone()
    checker[:, :, ::2, ::2] = 255 - checker[:, :, ::2, ::2]
    batches = data.Batches(torch.cat([extremes, checker]), run(augment=AugmentConfig(zoom=zoom)))
    for step in range(20):
        assert batches.batch(step)[0].abs().max() <= 1 + 1e-6


def test_without_crop_and_mirror_a_view_is_the_picture(photographs):
    config = run(batch=8, augment=STILL)
    batches = data.Batches(photographs, config)
    image, _ = batches.batch(0)
    expected = photographs[batches._rows(0)].float() / 127.5 - 1
    torch.testing.assert_close(image, expected, atol=1e-4, rtol=0)


def test_with_flip_a_view_is_the_picture_or_its_mirror(photographs):
    batches = data.Batches(photographs, run(batch=8, augment=AugmentConfig(flip=True, zoom=1.0)))
    mirrored = []
    for step in range(8):
        image, _ = batches.batch(step)
        expected = photographs[batches._rows(step)].float() / 127.5 - 1
        for one, original in zip(image, expected, strict=True):
            straight = (one - original).abs().max() < 1e-4
            flipped = (one - original.flip(2)).abs().max() < 1e-4
            assert straight != flipped
            mirrored.append(bool(flipped))
    assert 0.3 < np.mean(mirrored) < 0.7


def test_a_crop_shows_a_square_part_of_the_picture_and_is_never_enlarged():
    ramp = torch.arange(128).float().expand(3, 128, 128)  # value = column
    both = torch.stack([ramp, ramp.transpose(1, 2)]).repeat(8, 1, 1, 1).byte()
    batches = data.Batches(both, run(batch=16, augment=AugmentConfig(flip=False, zoom=0.3)))
    sides, starts = [], []
    for step in range(8):
        for one in (batches.batch(step)[0][:, 0] + 1) * 127.5:
            across, down = one[32, 56] - one[32, 8], one[56, 32] - one[8, 32]
            assert min(across, down) == pytest.approx(0, abs=0.01)
            sides.append(float(max(across, down)) * 64 / 48)
            starts.append(float(one.min()))
    assert 63.9 < min(sides) < 70
    assert 120 < max(sides) < 128.1
    assert min(starts) < 3
    assert max(starts) > 40


def test_holes_of_a_batch_are_drawn_as_configured(photographs):
    centre = run(masks=MaskConfig(rectangles=0, strokes=0))
    _, hole = data.Batches(photographs, centre).batch(0)
    assert (hole[:, 0].bool().numpy() == masks.centre(64)).all()

    top = np.zeros((64, 64), bool)
    top[:9] = True
    folder = dataclasses.replace(centre, masks=MaskConfig(0, 0, 0, folder=1))
    _, hole = data.Batches(photographs, folder, [top]).batch(0)
    assert (hole[:, 0].bool().numpy() == top).all()


# Batches made ahead


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("first", "last"), [(0, 9), (4, 5), (7, 20), (3, 3)])
def test_batches_made_ahead_are_those_made_in_turn_to_the_bit(
    photographs, monkeypatch, workers, first, last
):
    monkeypatch.setattr(data, "WORKERS", workers)
    batches = data.Batches(photographs, run())
    found = list(data.ahead(batches, first, last))
    assert len(found) == last - first
    assert all(same(batch, batches.batch(first + i)) for i, batch in enumerate(found))


class Watched:
    """Batches that remember which were made, in which threads, by how many of torch's own."""

    def __init__(self, broken=None):
        self.broken, self.made, self.threads, self.cores = broken, [], set(), set()

    def batch(self, step):
        self.made.append(step)
        self.threads.add(threading.current_thread())
        self.cores.add(torch.get_num_threads())
        if step == self.broken:
            raise KeyError("no such picture")
        return step, step


def test_a_bounded_number_of_batches_is_made_ahead_and_in_other_threads(monkeypatch):
    monkeypatch.setattr(data, "WORKERS", 2)
    watched = Watched()
    with contextlib.closing(data.ahead(watched, 0, 100)) as ready:
        assert [next(ready)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert set(range(5)) <= set(watched.made) <= set(range(9))
    assert threading.main_thread() not in watched.threads


def test_for_a_gpu_batches_are_the_same_pinned_and_made_in_more_threads(photographs, monkeypatch):
    pinned = []

    def pin(tensor):  # which torch refuses where there is no GPU
        pinned.append(threading.current_thread())
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(data, "WORKERS_FOR_GPU", 3)
    batches = data.Batches(photographs, run())
    for i, batch in enumerate(data.ahead(batches, 2, 14, for_gpu=True)):
        assert same(batch, batches.batch(2 + i))
    assert len(pinned) == 2 * 12
    assert threading.main_thread() not in pinned


def test_an_error_in_making_a_batch_is_raised_at_its_step():
    ready = data.ahead(Watched(broken=3), 0, 10)
    assert [next(ready)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="no such picture"):
        next(ready)


def interrupted(watched):
    with contextlib.closing(data.ahead(watched, 0, 100)) as ready:
        next(ready)
        raise KeyboardInterrupt


def test_threads_end_when_the_loop_does_even_by_an_interrupt():
    watched = Watched()
    with pytest.raises(KeyboardInterrupt):
        interrupted(watched)
    assert watched.threads
    assert not any(thread.is_alive() for thread in watched.threads)


def test_a_worker_keeps_to_one_core_and_leaves_torch_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        watched = Watched()
        with contextlib.closing(data.ahead(watched, 0, 9)) as ready:
            next(ready)
            assert torch.get_num_threads() == 3
        assert watched.cores == {1}
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


# Colours


def test_no_change_of_colours_changes_no_batch(photographs):
    plain, still = run(), run(augment=AugmentConfig(colour=0.0))
    a, b = data.Batches(photographs, plain).batch(3), data.Batches(photographs, still).batch(3)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


def test_colours_change_picture_by_picture_and_stay_in_range(photographs):
    plain = data.Batches(photographs, run(augment=STILL)).batch(0)
    vivid = dataclasses.replace(STILL, colour=0.3)
    again = data.Batches(photographs, run(augment=vivid)).batch(0)
    changed = again[0] - plain[0]
    assert again[0].abs().max() <= 1
    assert len({round(float(one.mean()), 4) for one in changed}) == 4
    assert (changed.abs().mean((1, 2, 3)) > 0.005).all()


def test_a_change_of_colours_is_of_the_size_asked_for(numbered):
    grey = data.Batches(numbered[5:6], run(batch=1, augment=dataclasses.replace(STILL, colour=0.2)))
    levels = torch.stack([(grey.batch(step)[0][0, :, 0, 0] + 1) / 2 for step in range(200)])
    share = levels / (50 / 255)
    assert share.min() >= 0.8 * 0.9 - 1e-5
    assert share.max() <= 1.2 * 1.1 + 1e-5
    assert share.max() > 1.15
    assert (share[:, 0] - share[:, 1]).abs().max() > 0.05


def test_a_colour_moves_from_its_grey_then_each_channel_is_scaled(photographs):
    """Against the three steps one by one, on whole batches of float64."""
    vivid = dataclasses.replace(STILL, colour=0.3)
    batches = data.Batches(photographs, run(augment=vivid))
    rng = np.random.default_rng([0, 2, 0])
    for _ in range(4):  # the crop of each picture
        rng.uniform()
        rng.integers(0, 1, 2)
    light, saturation = (1 + 0.3 * rng.uniform(-1, 1, (4, 1, 1, 1)) for _ in range(2))
    gain = 1 + 0.15 * rng.uniform(-1, 1, (4, 3, 1, 1))
    levels = photographs[batches._rows(0)].double().numpy() / 255
    grey = levels.mean(1, keepdims=True)
    plain = np.clip((grey + saturation * (levels - grey)) * light * gain, 0, 1) * 2 - 1
    np.testing.assert_allclose(batches.batch(0)[0].numpy(), plain, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bytes_are_resampled_within_a_level_of_float32(photographs, layout):
    large = F.interpolate(photographs.float(), 128, mode="bicubic").clamp(0, 255).byte()
    large = large.contiguous(memory_format=layout)
    batches = data.Batches(large, run(batch=8, augment=AugmentConfig(flip=True, zoom=0.6)))
    rng = np.random.default_rng([0, 2, 0])
    for one, row in zip(batches.batch(0)[0], batches._rows(0), strict=True):
        edge = round(128 * rng.uniform(0.6, 1))
        top, left = rng.integers(0, 128 - edge + 1, 2)
        view = large[row : row + 1, :, top : top + edge, left : left + edge].float()
        view = view.flip(3) if rng.random() < 0.5 else view
        plain = F.interpolate(view, 64, mode="bilinear", antialias=True, align_corners=False)
        assert (one - (plain[0] / 127.5 - 1)).abs().max() * 127.5 < 1.01


# Turned views


def test_half_of_the_views_are_turned_by_up_to_the_angle_asked_for():
    down = torch.arange(128).float()[:, None].expand(128, 128)
    both = torch.stack([down, down.T, down]).byte()[None].repeat(8, 1, 1, 1)  # row, column
    augment = AugmentConfig(flip=False, zoom=0.6, turn=20.0)
    batches = data.Batches(both, run(batch=16, augment=augment))
    angles, sides = [], []
    for step in range(12):
        for rows, columns, _ in ((batches.batch(step)[0] + 1) * 127.5).numpy():
            across = np.array([columns[32, 52] - columns[32, 12], rows[32, 52] - rows[32, 12]])
            below = np.array([columns[52, 32] - columns[12, 32], rows[52, 32] - rows[12, 32]])
            long = np.hypot(*across)
            # a square: both sides are as long, and at a right angle
            assert np.hypot(*below) == pytest.approx(long, abs=0.7)
            assert across @ below / long**2 == pytest.approx(0, abs=0.03)
            angles.append(math.degrees(math.atan2(across[1], across[0])))
            sides.append(long * 64 / 40)
    turned = np.array([angle for angle in angles if abs(angle) > 0.7])
    assert 0.35 < len(turned) / len(angles) < 0.6
    assert -20.6 < turned.min() < -15 < 15 < turned.max() < 20.6
    assert min(sides) > 128 * 0.6 - 1
    assert max(sides) < 129


@pytest.mark.parametrize("flip", [True, False])
def test_a_view_that_is_hardly_turned_is_the_picture(flip, photographs):
    large = F.interpolate(photographs.float(), 128, mode="bicubic").clamp(0, 255).byte()
    augment = AugmentConfig(flip=flip, zoom=1.0, turn=1e-9)
    plain = F.interpolate(large[:1].float(), 64, mode="bicubic", align_corners=False)
    plain = plain[0].permute(1, 2, 0)
    mirrored = 0
    for seed in range(8):
        view = data._turned(large[0], 64, augment, np.random.default_rng(seed))
        is_mirror = (view - plain.flip(1)).abs().max() < 0.1
        mirrored += bool(is_mirror)
        assert is_mirror or (view - plain).abs().max() < 0.1
    assert 0 < mirrored < 8 if flip else mirrored == 0


def test_turned_views_stay_in_range_and_in_the_picture():
    extremes = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(-1, 3, 70, 70)
    augment = AugmentConfig(zoom=0.3, turn=45.0)
    batches = data.Batches(extremes, run(batch=8, augment=augment))
    for step in range(10):
        image, _ = batches.batch(step)
        assert image.abs().max() <= 1
        assert image.abs().min() > 0.999  # nothing of the black or of the white from outside

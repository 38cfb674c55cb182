import errno
import os

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from picme_training.board import Board


def read(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def points(folder, name):
    return [(event.step, event.value) for event in read(folder).Scalars(name)]


def test_tensorboard_reads_the_curves_and_the_pictures(tmp_path):
    board = Board(tmp_path, 1)
    for step in (1, 2):
        board.add_scalar("train/loss", step / 4, step)
    board.add_image("val/completions", np.full((4, 6, 3), 200, np.uint8), 2)
    board.close()
    assert points(tmp_path, "train/loss") == [(1, 0.25), (2, 0.5)]
    (picture,) = read(tmp_path).Images("val/completions")
    assert (picture.step, picture.width, picture.height) == (2, 6, 4)


def test_a_point_is_on_disk_when_it_is_added(tmp_path):
    board = Board(tmp_path, 1)
    board.add_scalar("train/loss", 0.25, 1)
    assert points(tmp_path, "train/loss") == [(1, 0.25)]
    board.close()


def test_a_later_file_replaces_the_steps_that_are_computed_again(tmp_path):
    for first, value in ((1, 1.0), (3, 2.0)):
        board = Board(tmp_path, first)
        for step in range(first, 5):
            board.add_scalar("train/loss", value, step)
        board.close()
    assert points(tmp_path, "train/loss") == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def test_a_full_disk_is_an_error_with_the_file_s_name(tmp_path):
    board = Board(tmp_path, 1)
    (path,) = tmp_path.iterdir()
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), board._file.fileno())
    with pytest.raises(OSError, match="No space left") as caught:
        board.add_scalar("train/loss", 0.25, 1)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    with pytest.raises(OSError, match="No space left") as caught:
        board.close()
    assert caught.value.filename == str(path)

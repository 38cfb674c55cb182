"""What is missed beside a hole, spread into it."""

import numpy as np
import pytest

from picme_rt import seam


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    hole = np.zeros((20, 24), bool)
    hole[5:14, 6:18] = True
    hole[14:20, 9:12] = True  # down to the border of the map
    return rng.normal(0, 1, (3, 20, 24)).astype(np.float32), hole


def spread(missed, hole, screen=0.01, steps=200):
    return seam.spread(missed, hole, screen=screen, steps=steps)


def test_it_is_the_minimum_of_the_screened_membrane(case):
    missed, hole = case
    s = spread(missed, hole).astype(np.float64)
    assert (s[:, ~hole] == missed[:, ~hole]).all()
    padded = np.pad(s, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    gradient = 0.01 * s - (around - 4 * s)
    assert np.abs(gradient[:, hole]).max() < 1e-4


def test_what_lies_in_the_hole_does_not_matter(case):
    missed, hole = case
    other = missed.copy()
    other[:, hole] = np.nan
    assert (spread(missed, hole) == spread(other, hole)).all()


def test_the_same_light_everywhere_fills_a_small_hole_and_grain_ends_soon():
    hole = np.zeros((31, 31), bool)
    hole[10:21, 10:21] = True
    light = spread(np.ones((1, 31, 31), np.float32), hole, screen=0.001)
    assert light.min() > 0.95
    rows, columns = np.mgrid[:31, :31]
    grain = spread(((rows + columns) % 2 * 2.0 - 1)[None].astype(np.float32), hole)
    assert np.abs(grain[0, 10:21, 10:21]).max() > 0.1
    assert np.abs(grain[0, 14:17, 14:17]).max() < 0.02


def test_without_a_hole_or_known_pixels_nothing_is_spread(case):
    missed, hole = case
    assert (spread(missed, np.zeros_like(hole)) == missed).all()
    assert (spread(missed, np.ones_like(hole)) == 0).all()

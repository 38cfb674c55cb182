import numpy as np
import pytest
import torch

from picme_rt import patch
from picme_rt.errors import InputError
from picme_training.internal import choices, pyramid

HEIGHT, WIDTH = 40, 44


def picture():
    """Stripes, with a hole."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    stripes = 110 + 70 * np.sin(0.7 * x + 0.2 * y)[..., None] * [1.0, 0.8, 0.5]
    img = (stripes + rng.normal(0, 4, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8)
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[16:26, 18:30] = True
    return img, hole


@pytest.fixture(scope="module")
def level():
    return pyramid.level(*picture(), (HEIGHT, WIDTH))


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(choices, "MADE", 2)
    monkeypatch.setattr(choices, "REPAIRS", 1)


@pytest.fixture
def made(level):
    return choices.choose(level, 3, 7)


def test_choices_differ_in_the_hole_alone_whatever_lies_under_it(level, made):
    assert made.shape == (3, 3, HEIGHT, WIDTH)
    assert made.dtype == torch.float32
    known = torch.from_numpy(level.known)
    outside = ~torch.from_numpy(level.hole)
    assert float((made - known)[:, :, outside].abs().max()) <= 1 / 127.5
    inside = made[:, :, ~outside]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert float((inside[one] - inside[other]).abs().mean()) > 0.01
    img, hole = picture()
    img[hole] = 255 - img[hole]
    again = pyramid.level(img, hole, (HEIGHT, WIDTH))
    assert torch.equal(choices.choose(again, 3, 7), made)


def test_a_smudge_is_where_patches_disagree(level):
    found, hole = choices.mirrored(level)
    part = patch.prepare(found, hole)
    img, inside = picture()
    exact, smudge = choices.doubled(img), found.copy()
    smudge[hole] = exact[hole].mean(0)
    scores = [choices.disagreement(part, one) for one in (exact, smudge)]
    assert scores[0].shape == (HEIGHT, 2 * WIDTH)
    assert not scores[0][~hole].any()
    assert scores[1][hole].mean() > 1.5 * scores[0][hole].mean()
    mended = choices.repaired(smudge, hole, part, 0)
    assert choices.disagreement(part, mended).sum() < scores[1].sum()
    assert np.array_equal(mended[~hole], found[~hole])
    assert inside.sum() * 2 == hole.sum()


def test_a_narrowed_picture_has_half_of_its_keys(level):
    part = patch.prepare(*choices.mirrored(level))
    some = choices.narrowed(part, np.random.default_rng(0))
    count = len(part.levels[0].keys)
    assert 0.45 * count < len(some.levels[0].keys) < 0.55 * count
    for all_of, few in zip(part.levels, some.levels, strict=True):
        assert not (few.valid & ~all_of.valid).any()
        assert np.array_equal(np.flatnonzero(few.valid), few.keys)


def test_the_farthest_are_kept():
    points = np.array([[0.0], [0.1], [5.0], [5.1], [2.4]], np.float32)
    assert choices.farthest(points, 3).tolist() == [0, 3, 4]


def test_sums_over_squares_end_at_the_border():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = choices.smooth(values, 1)
    assert found.shape == (3, 4)
    assert found[0, 0] == 0 + 1 + 4 + 5
    assert found[1, 2] == sum([1, 2, 3, 5, 6, 7, 9, 10, 11])


def test_a_hole_that_leaves_no_patch_is_refused():
    img, hole = picture()
    hole[:] = True
    hole[:6] = False
    with pytest.raises(InputError, match="known patch of 7 x 7 pixels"):
        choices.choose(pyramid.level(img, hole, (HEIGHT, WIDTH)), 2, 0)

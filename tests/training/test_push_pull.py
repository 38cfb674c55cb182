"""The smooth filling that the decoder of `cats` sees with `push_pull`."""

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import resize

from picme_training import masks, push_pull

SIDE = 128


@pytest.fixture(scope="module")
def photograph():
    cat = resize(data.chelsea()[:, 75:375], (SIDE, SIDE), anti_aliasing=True)
    return torch.from_numpy(cat).permute(2, 0, 1)[None].float() * 2 - 1


@pytest.fixture(scope="module")
def holes():
    rng = np.random.default_rng(0)
    drawn = np.stack([masks.strokes(SIDE, rng) for _ in range(8)])
    return torch.from_numpy(drawn)[:, None].float()


def errors(filling, photograph, holes):
    return ((filling - photograph) * holes).square().sum((1, 2, 3)) / holes.sum((1, 2, 3))


def test_known_pixels_stay_and_what_is_under_the_hole_does_not_matter(photograph, holes):
    image = photograph.repeat(len(holes), 1, 1, 1)
    colours, near = push_pull.filled(image, holes)
    assert torch.equal(colours * (1 - holes), image * (1 - holes))
    assert torch.equal(near * (1 - holes), 1 - holes)
    other = torch.where(holes > 0, torch.rand_like(image), image)
    assert torch.equal(push_pull.filled(other, holes)[0], colours)


def test_it_makes_up_no_colour(photograph, holes):
    constant = torch.tensor([0.5, -0.25, 1.0]).view(1, 3, 1, 1).expand(len(holes), 3, SIDE, SIDE)
    torch.testing.assert_close(push_pull.filled(constant, holes)[0], constant)
    image = photograph.repeat(len(holes), 1, 1, 1)
    known = torch.where(holes > 0, torch.nan, image).numpy()
    filled = push_pull.filled(image, holes)[0].numpy()
    assert (filled.max((2, 3)) <= np.nanmax(known, (2, 3)) + 1e-6).all()
    assert (filled.min((2, 3)) >= np.nanmin(known, (2, 3)) - 1e-6).all()


def test_it_comes_nearer_to_a_photograph_than_telea(photograph, holes):
    filled = push_pull.filled(photograph.repeat(len(holes), 1, 1, 1), holes)[0]
    img = ((photograph[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
    masks_ = (255 * holes[:, 0].numpy()).astype(np.uint8)
    telea = [cv2.inpaint(img, mask, 3, cv2.INPAINT_TELEA) for mask in masks_]
    theirs = torch.from_numpy(np.stack(telea)).permute(0, 3, 1, 2) / 127.5 - 1
    ours = errors(filled, photograph, holes).mean()
    assert ours < 0.95 * errors(theirs, photograph, holes).mean()


def test_nearness_falls_with_the_distance():
    image, hole = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
    hole[:, :, :, 32:96] = 1
    nearness = push_pull.filled(image, hole)[1][0, 0, 64]
    assert (nearness[:32] == 1).all()
    falling = nearness[32:62]
    assert (falling.diff() < 0).all()
    assert falling[1] > 2 * falling[8] > 0


def test_nothing_known_is_nothing(photograph):
    for found in push_pull.filled(photograph, torch.ones(1, 1, SIDE, SIDE)):
        assert found.abs().max() == 0

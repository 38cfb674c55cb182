import numpy as np
import pytest
import torch
from torch.nn import functional as F

from picme_rt.errors import InputError
from picme_training.internal import masked, stack


def hole_of(height, width, box):
    hole = np.zeros((height, width), bool)
    top, bottom, left, right = box
    hole[top:bottom, left:right] = True
    return hole


def test_a_place_counts_if_its_receptive_field_touches_no_pixel_of_the_hole():
    hole = hole_of(30, 40, (12, 15, 20, 22))
    found = masked.places(hole, masked=True)
    for y in range(20):
        for x in range(30):
            assert bool(found.valid[0, 0, y, x]) == (not hole[y : y + 11, x : x + 11].any())


def test_shares_are_weights_of_sum_one():
    for share in masked.places(hole_of(30, 40, (12, 15, 20, 22)), masked=True).shares:
        assert float(share.sum()) == pytest.approx(1, abs=1e-5)
        assert len(share.unique()) == 2


def test_masked_norms_equal_batch_norm_over_the_gathered_places():
    """Weighted sums against gather, batch_norm, scatter: to 5e-7 of the largest value."""
    torch.manual_seed(0)
    hole = hole_of(30, 40, (12, 18, 15, 20))
    net = stack.Stack(16, 1)
    net.initialise(torch.Generator().manual_seed(1))
    x = torch.randn(1, 3, 30, 40) * torch.from_numpy(~hole)
    shares = masked.places(hole, masked=True).shares
    _, kept = stack.forward(net, x, shares)
    for place, one in enumerate(kept):
        a = F.conv2d(one.x, net.weights[place]).flatten(2)
        where = shares[place][0, 0] > 0
        gamma, beta = net.gammas[place].flatten(), net.betas[place].flatten()
        gathered = F.batch_norm(a[:, :, where], None, None, gamma, beta, training=True)
        expected = F.leaky_relu(gathered, 0.2)
        error = (one.y.flatten(2)[:, :, where] - expected).abs().max()
        assert float(error) <= 5e-7 * max(1.0, float(expected.abs().max()))


def test_what_lies_in_the_hole_changes_no_score_that_counts_and_no_statistic():
    torch.manual_seed(0)
    hole = hole_of(30, 40, (12, 18, 15, 20))
    net = stack.Stack(8, 1)
    net.initialise(torch.Generator().manual_seed(1))
    found = masked.places(hole, masked=True)
    x = torch.randn(1, 3, 30, 40)
    other = torch.where(torch.from_numpy(hole), 5.0, x)
    one, _ = stack.forward(net, x, found.shares)
    two, _ = stack.forward(net, other, found.shares)
    torch.testing.assert_close(one * found.valid, two * found.valid, rtol=0, atol=1e-6)
    assert not torch.equal(one, two)


def test_a_hole_that_leaves_no_patch_is_refused():
    with pytest.raises(InputError, match=r"patches of 11 x 11 known pixels .* got none in 25 x 30"):
        masked.places(hole_of(25, 30, (8, 20, 3, 27)), masked=True)


def test_scales_are_fine_by_what_of_them_is_seen():
    assert not masked.is_fine(hole_of(25, 33, (8, 16, 10, 22)), first=True)
    assert masked.is_fine(hole_of(25, 33, (0, 1, 0, 1)), first=True)
    assert masked.is_fine(hole_of(64, 96, (20, 44, 32, 64)), first=False)
    assert not masked.is_fine(hole_of(64, 96, (4, 60, 4, 92)), first=False)


def test_distances_are_those_of_every_pair():
    rng = np.random.default_rng(0)
    inside = rng.random((13, 17)) < 0.8
    known = np.argwhere(~inside)
    found = masked.distance(inside)
    for y, x in np.ndindex(inside.shape):
        expected = np.sqrt(np.square(known - (y, x)).sum(1).min())
        assert found[y, x] == pytest.approx(expected, abs=1e-6)
    assert np.isinf(masked.distance(np.ones((3, 4), bool))).all()


def test_the_soft_mask_is_one_far_away_and_nothing_in_the_hole():
    hole = hole_of(80, 90, (30, 50, 30, 50))
    soft = masked.soft_mask(hole, 5)
    assert float(soft[torch.from_numpy(hole)].max()) == 0
    assert float(soft[2, 85]) == pytest.approx(1, abs=1e-6)
    assert 0 < float(soft[26, 40]) < 0.5
    assert (torch.diff(soft[:30, 40]) <= 1e-6).all()  # falls towards the hole


def test_noise_is_new_where_the_hole_is_deeper_than_the_erosion():
    hole = hole_of(30, 40, (8, 22, 10, 30))
    depth = masked.depth(hole)
    inner = depth[0, 0, 5:-5, 5:-5]
    for erosion in (0.0, 1.5, 4.0):
        new = masked.renewed(depth, torch.tensor(erosion))
        assert torch.equal(new[0, 0, 5:-5, 5:-5], (inner > erosion).float())
    everything = masked.renewed(depth, torch.tensor(-3.0))
    assert torch.equal(everything[0, 0, 5:-5, 5:-5].bool(), torch.from_numpy(hole))

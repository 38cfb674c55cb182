import numpy as np
import pytest
import torch
from torch.nn import functional as F

from picme_training.evaluate import distances


def features(seed, count=60, shift=0.0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(shift, 1 + np.arange(8) / 8, (count, 8))).float()


def kernel(real, made, *, each=1, seed=0):
    """KID, mean and deviation, of pictures of which each has `each` rows one after the other."""
    found = distances.kernel(real, made, [str(i // each) for i in range(len(real))], seed)
    assert found.shape == (distances.SUBSETS,)
    return found.mean(), found.std()


def torchmetrics_fid(one, other):
    from torchmetrics.image.fid import FrechetInceptionDistance

    given = torch.nn.Identity()
    given.num_features = one.shape[1]
    metric = FrechetInceptionDistance(feature=given)
    metric.update(one, real=True)
    metric.update(other, real=False)
    return float(metric.compute())


@pytest.mark.parametrize("counts", [(60, 60), (60, 25), (9, 9)])
def test_the_frechet_distance_is_torchmetrics(counts):
    one, other = features(0, counts[0]), features(1, counts[1], shift=0.4)
    assert distances.frechet(one, other) == pytest.approx(torchmetrics_fid(one, other), rel=1e-4)


def test_with_fewer_pictures_than_dimensions_it_is_that_of_the_matrix_root():
    one, other = features(0, 5).double(), features(1, 5, shift=0.4).double()
    a, b = torch.cov(one.T), torch.cov(other.T)
    values, vectors = torch.linalg.eigh(a)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    joint = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + a.trace() + b.trace() - 2 * joint
    assert distances.frechet(one, other) == pytest.approx(float(expected), rel=1e-6)


def test_a_set_is_at_no_frechet_distance_from_itself_and_farther_from_farther_ones():
    one = features(0)
    assert distances.frechet(one, one) == pytest.approx(0, abs=1e-9)
    far = [distances.frechet(one, one + shift) for shift in (0.1, 0.5, 1.0)]
    assert far == pytest.approx([8 * 0.01, 8 * 0.25, 8.0], rel=1e-4)


def test_kid_of_one_distribution_is_zero_within_its_spread_and_of_another_above_it():
    real = features(0, 200)
    same, spread = kernel(real, features(1, 200)[:, None])
    other, _ = kernel(real, features(1, 200, shift=1.0)[:, None])
    assert abs(same) < spread
    assert other > 5 * spread


def test_kid_of_the_very_pictures_is_zero_for_no_subset_holds_one_on_both_sides():
    real = features(0, 200)
    found, spread = kernel(real, real[:, None])
    assert abs(found) < 0.2 * spread


def test_kid_of_pictures_with_several_holes_is_that_of_pictures_with_one():
    real, made = features(0, 200), features(1, 200, shift=0.3)[:, None]
    one, spread = kernel(real, made)
    many, _ = kernel(real.repeat_interleave(3, 0), made.repeat_interleave(3, 0), each=3)
    assert many == pytest.approx(one, abs=0.3 * spread)


def test_kid_takes_k_results_as_one_and_repeats():
    real, made = features(0), torch.stack([features(i, shift=0.5) for i in (1, 2, 3)], 1)
    one = kernel(real, made, seed=3)
    assert one == kernel(real, made, seed=3) != kernel(real, made, seed=4)
    alone = [kernel(real, made[:, i : i + 1], seed=3)[0] for i in range(3)]
    assert min(alone) < one[0] < max(alone)


def test_the_gap_of_kid_is_the_mean_over_pairs_of_different_pictures():
    """Against the sum as it is written, of pictures with one, two and three holes."""
    owners = list("abbccc")
    real, made, other = features(0, 6), features(1, 12).view(6, 2, 8), features(2, 6)[:, None]

    def k(x, y):
        return (float(x.double() @ y.double()) / 8 + 1) ** 3

    def pair(one, two):
        """Of KID without the originals' own term: of `other` less that of `made`."""
        found = []
        for rows in (made, other):
            both = np.mean([k(x, y) for x in rows[one] for y in rows[two]])
            cross = [k(real[a], y) for a, b in ((one, two), (two, one)) for y in rows[b]]
            found.append(both - 2 * np.mean(cross))
        return found[1] - found[0]

    rows = {name: [i for i, owner in enumerate(owners) if owner == name] for name in "abc"}
    pairs = {
        one + two: np.mean([pair(i, j) for i in rows[one] for j in rows[two]])
        for one, two in ("ab", "ac", "bc")
    }
    gap, error = distances.kernel_gap(real, made, other, owners)
    assert gap == pytest.approx(np.mean(list(pairs.values())))
    left = [pairs["bc"], pairs["ac"], pairs["ab"]]  # without a, b, c
    assert error == pytest.approx(np.std(left) * 2**0.5)


def test_the_gap_of_kid_has_the_sign_of_the_difference_and_none_to_itself():
    owners = [str(i) for i in range(60)]
    real, near, far = features(0), features(1)[:, None], features(2, shift=0.7)[:, None]
    gap, error = distances.kernel_gap(real, near, far, owners)
    assert gap > 3 * error > 0
    assert distances.kernel_gap(real, far, near, owners) == pytest.approx((-gap, error))
    assert distances.kernel_gap(real, near, near, owners) == (0, 0)


def test_the_error_of_the_gap_is_how_far_it_goes_with_other_pictures():
    owners = [str(i) for i in range(40)]
    found = []
    for seed in range(0, 600, 3):
        real, made, other = (features(seed + i, 40, 0.2 * i) for i in range(3))
        found.append(distances.kernel_gap(real, made[:, None], other[:, None], owners))
    gaps, errors = np.transpose(found)
    assert np.mean(errors) == pytest.approx(gaps.std(), rel=0.2)


def test_the_gap_of_kid_of_many_rows_is_computed_in_parts(monkeypatch):
    made, other = features(1, 120).view(40, 3, 8), features(2, 40)[:, None]
    given = features(0, 40), made, other, [str(i // 2) for i in range(40)]
    whole = distances.kernel_gap(*given)
    monkeypatch.setattr(distances, "ROWS", 7)
    assert distances.kernel_gap(*given) == pytest.approx(whole, rel=1e-9)


def test_the_stand_in_space_has_a_length_and_a_name(stand_in, photographs):
    space = distances.SqueezeNetFeatures(stand_in)
    found = space(photographs[:3])
    assert found.shape == (3, 512)
    torch.testing.assert_close(found.norm(dim=1), torch.full((3,), 512**0.5))
    assert space.name == "SqueezeNet"
    as_fid_has_it = F.interpolate(
        photographs[:3] / 127.5 - 1, 224, mode="bilinear", antialias=True, align_corners=False
    )
    expected = F.normalize(stand_in.pooled(as_fid_has_it), dim=1) * 512**0.5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    alone = space(photographs[1:2])
    torch.testing.assert_close(alone, found[1:2], rtol=1e-3, atol=1e-3)

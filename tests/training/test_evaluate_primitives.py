import numpy as np
import pytest
import torch
from torch.nn import functional as F

from picme_rt.encoded import Mixture
from picme_training import masks
from picme_training.evaluate import models, primitives

P, R = 3, 4


def mixture(alpha, mu, sigma):
    log_alpha = np.log(np.array([alpha], np.float32))
    mu, sigma = (np.array([one], np.float32) for one in (mu, sigma))
    return Mixture(log_alpha, mu, np.log(sigma))


def test_the_variance_of_z_is_that_of_its_draws():
    rng = np.random.default_rng(0)
    alpha = np.array([0.2, 0.5, 0.3])
    mu, sigma = rng.normal(0, 2, (P, 5)), rng.uniform(0.3, 1.5, (P, 5))
    found = primitives.latent_variance(mixture(alpha, mu, sigma))
    owner = rng.choice(P, 200_000, p=alpha)
    z = mu[owner] + sigma[owner] * rng.normal(size=(200_000, 5))
    assert found.between + found.within == pytest.approx(z.var(0).sum(), rel=0.02)
    assert found.between == pytest.approx(mu[owner].var(0).sum(), rel=0.02)


def test_one_gaussian_has_no_variance_between_primitives():
    found = primitives.latent_variance(mixture([1.0], np.ones((1, 4)), np.full((1, 4), 2.0)))
    assert found == pytest.approx((0, 16))
    far = primitives.latent_variance(mixture([0.5, 0.5], [[0.0], [2.0]], [[1e-6], [1e-6]]))
    assert far == pytest.approx((1, 0), abs=1e-9)


def test_the_variance_of_pictures_is_estimated_without_bias():
    rng = np.random.default_rng(1)
    alpha = np.array([0.2, 0.5, 0.3])
    mu, sigma = np.array([0.0, 1.0, 2.5]), np.array([1.0, 0.5, 2.0])
    shift = mu - (alpha * mu).sum()
    drawn = mu[:, None, None] + sigma[:, None, None] * rng.normal(size=(P, 2, 40_000))
    found = primitives.picture_variance(torch.from_numpy(drawn), torch.from_numpy(alpha))
    assert found.between / 40_000 == pytest.approx((alpha * shift**2).sum(), rel=0.03)
    assert found.within / 40_000 == pytest.approx((alpha * sigma**2).sum(), rel=0.03)


def test_contrast_is_the_mean_over_pairs_of_one_and_of_two_primitives():
    values = torch.from_numpy(np.random.default_rng(2).normal(size=(P, R, 6)))
    same, different = [], []
    for i in range(P):
        for j in range(P):
            for a in range(R):
                for b in range(R):
                    distance = (values[i, a] - values[j, b]).norm().item()
                    if i == j and a < b:
                        same.append(distance)
                    elif i < j:
                        different.append(distance)
    found = primitives.contrast(F.pdist(values.flatten(0, 1)), P)
    assert found == pytest.approx((np.mean(same), np.mean(different)))


def test_results_of_each_primitive_have_noise_of_their_own(engine, photographs):
    model = models.open_model(engine)
    image = photographs[0].permute(1, 2, 0).contiguous().numpy()
    encoded = model.encode(image, masks.centre(64))
    made = primitives.rows(encoded, 6, 2, seed=1)
    assert made.shape == (6, 2, 64, 64, 3)
    for i in range(6):
        expected = encoded.complete(k=2, seed=1, first=2 * i, primitive=i)
        assert (made[i] == expected.images).all()
        assert (expected.primitives == i).all()


class Told:
    """A picture whose mixture and results of each primitive are given."""

    def __init__(self, mixture, results):
        self.mixture, self._results = mixture, results

    def complete(self, *, k, seed, first, primitive):
        made = self._results[primitive][:k]
        return type("Done", (), {"images": np.asarray(made)})


def studied(spread, best=None, drawn=(0, 1, 2), **more):
    """A study of four pictures; primitive i gives 60 i, its results differ by up to `spread`."""
    rng = np.random.default_rng(0)
    hole = torch.from_numpy(masks.centre(16))
    study = primitives.Study(P, 2, None, **more)
    given = mixture([0.5, 0.25, 0.25], np.eye(P), np.ones((P, P)))
    for _ in range(4):
        results = [
            [np.full((16, 16, 3), 60 * i + rng.integers(0, spread + 1), np.uint8) for _ in range(2)]
            for i in range(P)
        ]
        study.add(Told(given, results), hole, np.array(drawn), best, seed=0)
    return study


def test_primitives_that_say_different_things_have_a_large_ratio_and_share():
    apart = studied(spread=2).scalars()
    assert apart["pixels_ratio"] > 20
    assert apart["between_share_pictures"] > 0.99
    alike = studied(spread=200).scalars()
    assert alike["pixels_ratio"] < apart["pixels_ratio"]
    assert 0 <= alike["between_share_pictures"] < apart["between_share_pictures"]


def test_primitives_without_variance_have_no_ratio():
    found = studied(spread=0).scalars()
    assert found["pixels_same"] == 0
    assert "pixels_ratio" not in found
    assert found["between_share_pictures"] == 1


def test_shares_and_entropies_are_those_of_what_was_drawn():
    study = studied(2, best=2, drawn=(0, 0, 0, 1))
    assert study.shares()["drawn"] == [0.75, 0.25, 0]
    assert study.shares()["alpha"] == pytest.approx([0.5, 0.25, 0.25])
    assert study.shares()["best"] == [0, 0, 1]
    found = study.scalars()
    assert found["entropy_alpha"] == pytest.approx(1.5 * np.log(2))
    assert found["entropy_best"] == pytest.approx(0, abs=1e-9)
    assert found["entropy_most"] == pytest.approx(np.log(3))
    assert found["between_share_z"] == pytest.approx(0.625 / (0.625 + 3))


def test_where_the_best_is_not_known_nothing_is_said_of_it():
    assert "best" not in studied(2).shares()
    assert "entropy_best" not in studied(2).scalars()

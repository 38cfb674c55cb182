import math

import pytest
import torch
from torch import distributions

from picme_training.gaussians import (
    LOG_SIGMA_RANGE,
    Gaussian,
    Mixture,
    gaussian_from,
    kl,
    kl_to_standard,
)

LOW, HIGH = LOG_SIGMA_RANGE


def random_gaussian(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    mu = torch.randn(shape, generator=generator, dtype=torch.float64)
    spread = torch.rand(shape, generator=generator, dtype=torch.float64)
    return Gaussian(mu, LOW + (HIGH - LOW) * spread)


def random_mixture(seed, batch, primitives, dim):
    wide = random_gaussian(seed, batch, primitives, dim)
    scores = torch.randn(batch, primitives, generator=torch.Generator().manual_seed(seed))
    return Mixture(torch.log_softmax(scores.double(), 1), wide.mu, wide.log_sigma)


def as_normal(one):
    return distributions.Normal(one.mu, one.log_sigma.exp())


@pytest.mark.parametrize("seed", range(5))
def test_kl_equals_torch_in_both_directions(seed):
    q, p = random_gaussian(seed, 4, 16), random_gaussian(seed + 100, 4, 16)
    for a, b in ((q, p), (p, q)):
        expected = distributions.kl_divergence(as_normal(a), as_normal(b)).mean(-1)
        torch.testing.assert_close(kl(a, b), expected)


def test_kl_is_not_symmetric():
    narrow = Gaussian(torch.zeros(1, 3), torch.full((1, 3), -1.0))
    wide = Gaussian(torch.zeros(1, 3), torch.ones(1, 3))
    assert kl(wide, narrow) > 2 * kl(narrow, wide)


def test_kl_of_a_gaussian_with_itself_is_exactly_zero():
    q = random_gaussian(3, 4, 16)
    assert torch.equal(kl(q, q), torch.zeros(4, dtype=torch.float64))


def test_kl_is_positive_for_different_gaussians():
    for seed in range(50):
        assert (kl(random_gaussian(seed, 8, 4), random_gaussian(seed + 1, 8, 4)) > 0).all()


def test_kl_is_the_mean_over_dimensions_so_that_a_repeated_dimension_changes_nothing():
    q, p = random_gaussian(0, 2, 5), random_gaussian(1, 2, 5)
    twice = [Gaussian(g.mu.repeat(1, 2), g.log_sigma.repeat(1, 2)) for g in (q, p)]
    torch.testing.assert_close(kl(*twice), kl(q, p))


def test_kl_broadcasts_one_target_over_the_primitives():
    q, p = random_gaussian(0, 2, 3, 5), random_gaussian(1, 2, 5)
    each = kl(q, Gaussian(p.mu[:, None], p.log_sigma[:, None]))
    for i in range(3):
        torch.testing.assert_close(each[:, i], kl(Gaussian(q.mu[:, i], q.log_sigma[:, i]), p))


def test_kl_is_finite_in_float32_at_the_ends_of_the_clamp():
    ends = [Gaussian(torch.full((1, 4), 3.0), torch.full((1, 4), end)) for end in (LOW, HIGH)]
    assert all(kl(a, b).isfinite().all() for a in ends for b in ends)


def test_kl_to_standard_equals_torch():
    q = random_gaussian(7, 4, 16)
    standard = distributions.Normal(torch.zeros_like(q.mu), torch.ones_like(q.mu))
    expected = distributions.kl_divergence(as_normal(q), standard).mean(-1)
    torch.testing.assert_close(kl_to_standard(q), expected)


@pytest.mark.parametrize("primitives", [1, 2, 6])
def test_log_prob_equals_torchs_mixture(primitives):
    mixture = random_mixture(primitives, 4, primitives, 5)
    z = random_gaussian(9, 4, 5).mu
    reference = distributions.MixtureSameFamily(
        distributions.Categorical(logits=mixture.log_alpha),
        distributions.Independent(
            distributions.Normal(mixture.mu, mixture.log_sigma.exp()), reinterpreted_batch_ndims=1
        ),
    )
    torch.testing.assert_close(mixture.log_prob(z), reference.log_prob(z))


def test_log_prob_is_a_density_that_integrates_to_one():
    mixture = Mixture(
        torch.tensor([[0.3, 0.7]]).log(), torch.tensor([[[-2.0], [1.0]]]), torch.zeros(1, 2, 1)
    )
    z = torch.linspace(-12, 12, 2001)
    wide = Mixture(*(part.expand(len(z), *part.shape[1:]) for part in mixture))
    area = torch.trapezoid(wide.log_prob(z[:, None]).exp(), z)
    assert area.item() == pytest.approx(1, abs=1e-5)


def test_a_far_point_has_a_finite_log_prob_where_the_density_underflows():
    mixture = Mixture(torch.zeros(1, 1), torch.zeros(1, 1, 256), torch.zeros(1, 1, 256))
    found = mixture.log_prob(torch.full((1, 256), 10.0))
    assert found.item() == pytest.approx(-128 * (100 + math.log(2 * math.pi)))


def test_primitive_takes_one_row_of_each_mixture():
    mixture = random_mixture(0, 3, 4, 2)
    found = mixture.primitive(torch.tensor([2, 0, 3]))
    for b, i in enumerate((2, 0, 3)):
        assert torch.equal(found.mu[b], mixture.mu[b, i])
        assert torch.equal(found.log_sigma[b], mixture.log_sigma[b, i])


def test_a_head_gives_mu_first_and_log_sigma_inside_the_clamp():
    statistics = torch.tensor([[-9.0, 50.0, -50.0, 0.5, 50.0, -6.0]])
    found = gaussian_from(statistics)
    assert found.mu.tolist() == [[-9, 50, -50]]
    assert found.log_sigma.tolist() == [[0.5, HIGH, LOW]]


def test_the_clamp_passes_the_gradient_inside_alone():
    statistics = torch.tensor([[1.0, 1.0, 1.0, 0.5, HIGH + 1, LOW - 1]], requires_grad=True)
    found = gaussian_from(statistics)
    (found.mu.sum() + found.log_sigma.sum()).backward()
    assert statistics.grad.tolist() == [[1, 1, 1, 1, 0, 0]]


def test_a_spatial_head_is_halved_along_its_channels():
    found = gaussian_from(torch.arange(8.0).view(1, 4, 1, 2) / 4, dim=1)
    assert found.mu.flatten().tolist() == [0, 0.25, 0.5, 0.75]
    assert found.log_sigma.flatten().tolist() == [1, 1.25, 1.5, 1.75]


def test_a_half_precision_head_gives_float32():
    found = gaussian_from(torch.ones(1, 4, dtype=torch.bfloat16))
    assert found.mu.dtype == found.log_sigma.dtype == torch.float32


def test_a_sample_without_noise_is_the_mean():
    q = random_gaussian(0, 2, 3)
    assert torch.equal(q.sample(torch.zeros(2, 3)), q.mu)


def test_samples_have_the_mean_and_the_spread_of_the_gaussian():
    q = Gaussian(torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0]))
    drawn = q.sample(torch.randn(20000, 2, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(drawn.mean(0), q.mu, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0), q.log_sigma.exp(), atol=0, rtol=0.03)


def test_a_sample_carries_the_gradient_to_mu_and_log_sigma():
    mu = torch.zeros(1, 2, requires_grad=True)
    log_sigma = torch.tensor([[0.0, 1.0]], requires_grad=True)
    noise = torch.tensor([[0.5, -2.0]])
    Gaussian(mu, log_sigma).sample(noise).sum().backward()
    assert mu.grad.tolist() == [[1, 1]]
    torch.testing.assert_close(log_sigma.grad, log_sigma.detach().exp() * noise)


def test_a_detached_gaussian_has_the_same_numbers_and_no_gradient():
    q = Gaussian(torch.ones(1, 2, requires_grad=True), torch.zeros(1, 2, requires_grad=True))
    still = q.detach()
    assert torch.equal(still.mu, q.mu)
    assert torch.equal(still.log_sigma, q.log_sigma)
    assert not still.mu.requires_grad
    assert not still.log_sigma.requires_grad

"""The sampler on one core: k = 6 latents of a mixture of 6 Gaussians, one image.

D = 256 is PICME's latent, D = 8192 a spatial one. `sample_gmm` as users call it, checks included,
against torch's ways to the same work, and against a loop of the same arithmetic (Philox, Box and
Muller, exp) that reads and writes no memory. Each case runs once as a test; `make bench` times it.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from picme_rt import _kernels
from picme_rt.kernels import sample_gmm

K, P = 6, 6
DIMS = (256, 8192)
MIXTURE = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def mixture(dim: int) -> MIXTURE:
    """log_alpha (P), mu and log_sigma (P, D) of one image."""
    generator = torch.Generator().manual_seed(dim)
    mu, log_sigma = torch.randn(2, P, dim, generator=generator)
    return torch.full((P,), 1 / P).log(), mu, log_sigma


# torch's ways to draw; each a function of the mixture that returns the function to time


def gather(log_alpha: Tensor, mu: Tensor, log_sigma: Tensor) -> Callable[[], Tensor]:
    def draw() -> Tensor:
        p = torch.multinomial(log_alpha.exp(), K, replacement=True)
        return torch.addcmul(mu[p], log_sigma[p].exp_(), torch.randn(K, mu.shape[1]))

    return draw


def exp_first(log_alpha: Tensor, mu: Tensor, log_sigma: Tensor) -> Callable[[], Tensor]:
    def draw() -> Tensor:
        p = torch.multinomial(log_alpha.exp(), K, replacement=True)
        return torch.addcmul(mu[p], log_sigma.exp()[p], torch.randn(K, mu.shape[1]))

    return draw


def torch_normal(log_alpha: Tensor, mu: Tensor, log_sigma: Tensor) -> Callable[[], Tensor]:
    def draw() -> Tensor:
        p = torch.multinomial(log_alpha.exp(), K, replacement=True)
        return torch.normal(mu[p], log_sigma[p].exp())

    return draw


def own_buffers(log_alpha: Tensor, mu: Tensor, log_sigma: Tensor) -> Callable[[], Tensor]:
    mean, sigma, noise = torch.empty(3, K, mu.shape[1])

    def draw() -> Tensor:
        p = torch.multinomial(log_alpha.exp(), K, replacement=True)
        torch.index_select(mu, 0, p, out=mean)
        torch.index_select(log_sigma, 0, p, out=sigma)
        return mean.addcmul_(sigma.exp_(), noise.normal_())

    return draw


# torch's ways to log_prob (Eq. 3)


def broadcast(z: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    return ((z[:, None] - mu) * torch.exp(-log_sigma)).square_().sum(-1)


def by_primitive(z: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    squares = torch.empty(K, P)
    for p, inverse in enumerate(torch.exp(-log_sigma)):
        distance = (z - mu[p]).mul_(inverse)
        squares[:, p] = torch.linalg.vecdot(distance, distance)
    return squares


def by_matrix_products(z: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    weight = torch.exp(-2 * log_sigma)  # expands the square: fast, and loses digits
    scaled = mu * weight
    return (z * z) @ weight.T - 2 * (z @ scaled.T) + (scaled * mu).sum(1)


DRAWS = (gather, exp_first, torch_normal, own_buffers)
SQUARES = (broadcast, by_primitive, by_matrix_products)


def log_prob(
    z: Tensor, squares: Callable[[Tensor, Tensor, Tensor], Tensor], parts: MIXTURE
) -> Tensor:
    log_alpha, mu, log_sigma = parts
    constant = -0.5 * mu.shape[1] * math.log(2 * math.pi) - log_sigma.sum(1)
    terms = log_alpha.log_softmax(0) + constant - 0.5 * squares(z, mu, log_sigma)
    return torch.logsumexp(terms, 1)


def arrays(dim: int) -> list[np.ndarray]:
    return [part[None].numpy() for part in mixture(dim)]


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("with_log_prob", [False, True], ids=["", "log_prob"])
def test_ours(benchmark: BenchmarkFixture, dim: int, with_log_prob: bool) -> None:
    benchmark.group = f"sampler, D = {dim}{', with log_prob' * with_log_prob}"
    benchmark.extra_info["lanes"] = _kernels.lanes()[0]
    parts, seeds = arrays(dim), np.zeros(1, np.uint64)
    options = {"k": K, "log_prob": with_log_prob}
    done = benchmark(sample_gmm, *parts, seeds, threads=1, **options)
    truth = sample_gmm(*parts, seeds, impl="ref", **options)
    assert done.z.tobytes() == truth.z.tobytes()


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("draw", DRAWS)
def test_torch_draws(
    benchmark: BenchmarkFixture, draw: Callable[..., Callable[[], Tensor]], dim: int
) -> None:
    benchmark.group = f"sampler, D = {dim}"
    z = benchmark(draw(*mixture(dim)))
    assert z.shape == (K, dim)
    assert abs(float(z.mean())) < 1


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("squares", SQUARES)
def test_torch_draws_with_log_prob(
    benchmark: BenchmarkFixture, squares: Callable[[Tensor, Tensor, Tensor], Tensor], dim: int
) -> None:
    benchmark.group = f"sampler, D = {dim}, with log_prob"
    parts = mixture(dim)
    draw = own_buffers(*parts)
    found = benchmark(lambda: log_prob(draw(), squares, parts))
    assert found.shape == (K,)
    ours = sample_gmm(*arrays(dim), np.zeros(1, np.uint64), k=K)
    density = log_prob(torch.from_numpy(ours.z[0]), squares, parts)
    np.testing.assert_allclose(density, ours.log_prob[0], rtol=1e-3)


def test_ours_for_64_images(benchmark: BenchmarkFixture) -> None:
    """Where the call's own cost, the same for any batch, no longer counts."""
    benchmark.group = "sampler, 64 images, D = 256"
    parts = [np.repeat(part, 64, axis=0) for part in arrays(256)]
    seeds = np.arange(64, dtype=np.uint64)
    done = benchmark(sample_gmm, *parts, seeds, k=K, log_prob=False, threads=1)
    assert done.z.tobytes() == sample_gmm(*parts, seeds, k=K, impl="ref").z.tobytes()


@pytest.mark.parametrize(("images", "dim"), [(1, 256), (64, 256), (1, 8192)])
def test_a_loop_that_touches_no_memory(benchmark: BenchmarkFixture, images: int, dim: int) -> None:
    benchmark.group = f"sampler, {'64 images, ' * (images > 1)}D = {dim}"
    benchmark.extra_info["lanes"] = _kernels.lanes()[0]
    assert math.isfinite(benchmark(_kernels.memory_free, images * K * dim))

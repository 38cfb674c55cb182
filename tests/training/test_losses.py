"""Every equation against loops over pictures, primitives and pixels, from the paper's text."""

import cv2
import numpy as np
import pytest
import torch

from picme_training import losses
from picme_training.gaussians import Gaussian, Mixture

B, P, D = 3, 4, 5


def random(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def mixture():
    return Mixture(
        torch.log_softmax(random(0, B, P), 1), random(1, B, P, D), 0.5 * random(2, B, P, D)
    )


@pytest.fixture
def target():
    return Gaussian(random(3, B, D), 0.5 * random(4, B, D))


def matrix_kl(q, p, sign=1):
    """Eq. 5 with matrices; `sign` -1 is the published one."""
    s_q, s_p = torch.diag((2 * q.log_sigma).exp()), torch.diag((2 * p.log_sigma).exp())
    shift = q.mu - p.mu
    ratio = -0.5 * torch.log(torch.det(s_q) / torch.det(s_p))
    trace = 0.5 * torch.trace(torch.inverse(s_p) @ s_q)
    quadratic = sign * 0.5 * shift @ torch.inverse(s_p) @ shift
    return ratio + trace + quadratic - (len(shift) / 2 if sign > 0 else 0)


def pixels(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1


def shrunk(picture, side):
    """Means over blocks, by loops; (C, S, S) -> (C, side, side)."""
    block = picture.shape[-1] // side
    out = torch.zeros(picture.shape[0], side, side, dtype=picture.dtype)
    for y in range(side):
        for x in range(side):
            cell = picture[:, y * block : (y + 1) * block, x * block : (x + 1) * block]
            out[:, y, x] = cell.mean((1, 2))
    return out


# Eq. 4, the divergences and the best primitive


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_divergences_equal_the_matrix_formula_a_dimension(mixture, target, direction):
    each = losses.divergences(mixture, target, direction)
    for b in range(B):
        there = Gaussian(target.mu[b], target.log_sigma[b])
        for i in range(P):
            one = Gaussian(mixture.mu[b, i], mixture.log_sigma[b, i])
            pair = (one, there) if direction == "reverse" else (there, one)
            assert each[b, i].item() == pytest.approx(matrix_kl(*pair).item() / D)


def test_the_best_primitive_is_the_first_of_the_smallest_divergences():
    each = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.5, 0.1], [1.0, 1.0, 1.0]])
    j = losses.best_primitive(each)
    assert j.tolist() == [1, 2, 0]
    assert j.dtype == torch.int64


def test_the_best_primitive_carries_no_gradient():
    assert not losses.best_primitive(torch.rand(2, 3, requires_grad=True)).requires_grad


# Eq. 4, the frequency loss


def test_frequency_equals_the_loop_over_primitives(mixture):
    j = [2, 0, 3]
    expected = 0.0
    for b in range(B):
        for i in range(P):
            v = 1.0 if i == j[b] else 0.0
            expected += (v - mixture.log_alpha[b, i].exp().item()) ** 2 / B
    found = losses.frequency(mixture.log_alpha, torch.tensor(j))
    assert found.item() == pytest.approx(expected)


def test_the_gradient_of_frequency_to_alpha_is_alpha_minus_the_share_of_wins():
    # Eq. 13-15, with the factor 2 of the square: 2 (alpha_i - p_i)
    wins = torch.tensor([0, 0, 0, 1, 2, 2, 0, 1, 0, 0])
    p = torch.bincount(wins, minlength=3) / len(wins)
    alpha = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    losses.frequency(alpha.log().expand(len(wins), -1), wins).backward()
    torch.testing.assert_close(alpha.grad, 2 * (alpha.detach() - p))


def test_the_gradient_of_frequency_vanishes_where_alpha_is_the_share_of_wins():
    wins = torch.tensor([0, 0, 0, 1, 2, 2, 0, 1, 0, 0])
    p = torch.bincount(wins, minlength=3) / len(wins)
    scores = p.log().requires_grad_()
    losses.frequency(torch.log_softmax(scores, 0).expand(len(wins), -1), wins).backward()
    torch.testing.assert_close(scores.grad, torch.zeros(3), atol=1e-7, rtol=0)


def test_descending_frequency_brings_alpha_to_the_share_of_wins():
    wins = torch.tensor([0, 1, 1, 1, 2])
    scores = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([scores], lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        losses.frequency(torch.log_softmax(scores, 0).expand(5, -1), wins).backward()
        optimizer.step()
    torch.testing.assert_close(
        torch.softmax(scores, 0).detach(), torch.tensor([0.2, 0.6, 0.2]), atol=1e-3, rtol=0
    )


def test_frequency_is_zero_with_one_primitive():
    assert losses.frequency(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)).item() == 0


# Eq. 5, the back-propagate-max operation


def test_without_losers_only_the_best_primitive_counts():
    each = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.7, 0.1]], requires_grad=True)
    loss = losses.back_propagate_max(each, losses.best_primitive(each), losers=0)
    loss.backward()
    assert loss.item() == pytest.approx((1.0 + 0.1) / 2)
    assert each.grad.tolist() == [[0, 0.5, 0], [0, 0, 0.5]]


def test_a_share_of_eq_5_goes_to_the_mean_of_the_losers():
    each = random(5, B, P).abs()
    j = each.argmin(1)
    expected = 0.0
    for b in range(B):
        for i in range(P):
            weight = 0.95 if i == j[b] else 0.05 / (P - 1)
            expected += weight * each[b, i].item() / B
    found = losses.back_propagate_max(each, j, losers=0.05)
    assert found.item() == pytest.approx(expected)


def test_the_losers_share_reaches_every_primitive():
    each = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    losses.back_propagate_max(each, torch.tensor([1]), losers=0.1).backward()
    torch.testing.assert_close(each.grad, torch.tensor([[0.05, 0.9, 0.05]]))


def test_one_primitive_has_no_losers_to_share_with():
    each = torch.tensor([[3.0], [1.0]])
    found = losses.back_propagate_max(each, torch.zeros(2, dtype=torch.int64), losers=0.05)
    assert found.item() == 2


def test_back_propagate_max_is_eq_5_with_the_sign_of_the_divergence(mixture, target):
    each = losses.divergences(mixture, target, "reverse")
    j = losses.best_primitive(each)
    expected = 0.0
    for b in range(B):
        best = Gaussian(mixture.mu[b, j[b]], mixture.log_sigma[b, j[b]])
        expected += matrix_kl(best, Gaussian(target.mu[b], target.log_sigma[b])).item() / D / B
    assert losses.back_propagate_max(each, j, 0).item() == pytest.approx(expected)


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_eq_5_is_bounded_below_by_zero_where_the_published_one_falls_without_end(direction):
    still = Gaussian(torch.zeros(1, D, dtype=torch.float64), torch.zeros(1, D, dtype=torch.float64))
    ours, published = [], []
    for far in (0.0, 1.0, 10.0, 1000.0):
        mu = torch.full((1, 1, D), far, dtype=torch.float64)
        mixture = Mixture(torch.zeros(1, 1), mu, torch.zeros_like(mu))
        each = losses.divergences(mixture, still, direction)
        ours.append(losses.back_propagate_max(each, losses.best_primitive(each), 0).item())
        one = Gaussian(mu[0, 0], torch.zeros(D, dtype=torch.float64))
        there = Gaussian(still.mu[0], still.log_sigma[0])
        published.append(matrix_kl(one, there, sign=-1).item())
    assert ours[0] == 0
    assert ours == sorted(ours)
    assert published == sorted(published, reverse=True)
    assert published[-1] < -1e6


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_descending_eq_5_brings_the_best_primitive_to_its_target(mixture, target, direction):
    mu, log_sigma = (part.clone().requires_grad_() for part in mixture[1:])
    optimizer = torch.optim.Adam([mu, log_sigma], lr=0.05)
    for _ in range(400):
        each = losses.divergences(Mixture(mixture.log_alpha, mu, log_sigma), target, direction)
        j = losses.best_primitive(each)
        optimizer.zero_grad()
        losses.back_propagate_max(each, j, 0).backward()
        optimizer.step()
    rows = torch.arange(B)
    torch.testing.assert_close(mu[rows, j].detach(), target.mu, atol=0.02, rtol=0)
    torch.testing.assert_close(log_sigma[rows, j].detach(), target.log_sigma, atol=0.02, rtol=0)


# Eq. 6, the two terms of the reconstruction


def test_reconstruction_is_the_mean_absolute_error_at_every_scale():
    original = pixels(0, 2, 3, 8, 8)
    pictures = [pixels(side, 2, 3, side, side) for side in (2, 4, 8)]
    expected = 0.0
    for picture in pictures:
        side = picture.shape[-1]
        total = sum((picture[b] - shrunk(original[b], side)).abs().sum().item() for b in range(2))
        expected += total / (2 * 3 * side * side) / len(pictures)
    assert losses.reconstruction(pictures, original).item() == pytest.approx(expected)


def test_reconstruction_of_the_picture_itself_is_zero_at_every_scale():
    original = pixels(0, 1, 3, 8, 8)
    assert losses.reconstruction([shrunk(original[0], 4)[None], original], original).item() < 1e-15


def test_known_reconstruction_is_the_mean_over_known_pixels_at_every_scale():
    original, known = pixels(0, 2, 3, 8, 8), torch.ones(2, 1, 8, 8, dtype=torch.float64)
    known[0, :, 2:5, 3:7] = 0
    known[1, :, :, :3] = 0
    pictures = [pixels(side, 2, 3, side, side) for side in (4, 8)]
    expected = 0.0
    for picture in pictures:
        side, total, count = picture.shape[-1], 0.0, 0
        for b in range(2):
            there, small = shrunk(known[b], side), shrunk(original[b], side)
            for y in range(side):
                for x in range(side):
                    if there[0, y, x] == 1:
                        total += (picture[b, :, y, x] - small[:, y, x]).abs().sum().item()
                        count += 3
        expected += total / count / len(pictures)
    found = losses.known_reconstruction(pictures, original, known)
    assert found.item() == pytest.approx(expected)


def test_known_reconstruction_ignores_every_hole_pixel_of_both_pictures():
    known = torch.ones(1, 1, 16, 16)
    known[:, :, 5:11, 3:9] = 0
    original = pixels(0, 1, 3, 16, 16).float()
    pictures = [pixels(side, 1, 3, side, side).float().requires_grad_() for side in (8, 16)]
    before = losses.known_reconstruction(pictures, original, known)
    before.backward()
    assert (pictures[1].grad[(known == 0).expand(1, 3, -1, -1)] == 0).all()
    assert (pictures[1].grad[(known == 1).expand(1, 3, -1, -1)] != 0).all()

    other = torch.where(known == 0, torch.ones(()), original)
    changed = [p.detach().clone() for p in pictures]
    changed[1][(known == 0).expand(1, 3, -1, -1)] = -1
    assert torch.equal(losses.known_reconstruction(changed, other, known), before)


@pytest.fixture
def holes():
    """One at the border of the picture, one square, and nothing but hole."""
    hole = torch.zeros(3, 1, 64, 64, dtype=torch.float64)
    hole[0, :, 10:30, :7] = 1
    hole[1, :, 16:48, 16:48] = 1
    hole[2] = 1
    return hole


def test_rim_reconstruction_weighs_a_hole_pixel_by_its_distance_to_the_nearest_known_one(holes):
    original, pictures = pixels(0, 3, 3, 64, 64), pixels(1, 3, 3, 64, 64)
    total = weights = 0.0
    for b in range(3):
        inside = holes[b, 0].numpy() == 1
        steps = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_C, 3)
        for y, x in np.argwhere(inside):
            if not (steps[y, x] <= 8 and b < 2):
                continue  # 4 RIM of the side; of the third picture nothing is known
            weight = np.exp(-steps[y, x] / 2)
            total += weight * (pictures[b, :, y, x] - original[b, :, y, x]).abs().sum().item()
            weights += 3 * weight
    found = losses.rim_reconstruction(pictures, original, holes)
    assert found.item() == pytest.approx(total / weights, rel=1e-6)


def test_rim_reconstruction_ignores_known_pixels_and_the_middle_of_a_hole(holes):
    original = pixels(0, 3, 3, 64, 64)
    pictures = pixels(1, 3, 3, 64, 64).requires_grad_()
    losses.rim_reconstruction(pictures, original, holes).backward()
    reached = (pictures.grad != 0).any(1)
    assert not (reached & (holes[:, 0] == 0)).any()
    assert not reached[1, 24:40, 24:40].any()
    assert reached[1, 16:48, 16:24].all()


def test_rim_reconstruction_of_holes_without_a_rim_is_zero():
    everything = torch.ones(1, 1, 64, 64)
    found = losses.rim_reconstruction(
        torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64), everything
    )
    assert found.item() == 0


def test_a_coarse_pixel_is_known_only_where_all_pixels_under_it_are():
    known = torch.ones(1, 1, 256, 256)
    known[:, :, 0, 0] = 0
    coarse = torch.zeros(1, 3, 32, 32)
    coarse[:, :, 0, 0] = 1
    found = losses.known_reconstruction([coarse], torch.zeros(1, 3, 256, 256), known)
    assert found.item() == 0


def test_known_reconstruction_of_a_picture_that_is_all_hole_is_zero():
    picture = torch.ones(1, 3, 8, 8)
    found = losses.known_reconstruction([picture], -picture, torch.zeros(1, 1, 8, 8))
    assert found.item() == 0


# Eq. 7 and the discriminator's LSGAN


def test_adversarial_equals_the_loop_over_scores():
    made, inferred, real = random(0, 2, 1, 3, 3), random(1, 2, 1, 3, 3), random(2, 2, 1, 3, 3)
    expected = 0.0
    for b in range(2):
        for y in range(3):
            for x in range(3):
                at = (b, 0, y, x)
                expected += (made[at].item() - 1) ** 2 / 18
                expected += (inferred[at].item() - real[at].item()) ** 2 / 18
    assert losses.adversarial(made, inferred, real).item() == pytest.approx(expected)


def test_best_and_drawn_are_both_compared_with_the_originals_of_their_own_row():
    made, real = random(0, 2, 1, 3, 3), random(1, 2, 1, 3, 3)
    best, drawn = random(2, 2, 1, 3, 3), random(3, 2, 1, 3, 3)
    both = losses.adversarial(made, torch.cat([best, drawn]), real)
    apart = [losses.adversarial(made, one, real) for one in (best, drawn)]
    torch.testing.assert_close(both, (apart[0] + apart[1]) / 2)


def test_the_scores_of_the_originals_carry_no_gradient():
    made, inferred, real = (random(i, 2, 1, 3, 3).requires_grad_() for i in range(3))
    losses.adversarial(made, inferred, real).backward()
    assert real.grad is None
    assert made.grad.abs().min() > 0
    assert inferred.grad.abs().min() > 0


def test_adversarial_is_zero_where_d_is_fooled():
    real = random(0, 2, 1, 3, 3)
    assert losses.adversarial(torch.ones(2, 1, 3, 3), real.clone(), real).item() == 0


def test_the_discriminator_learns_one_for_originals_and_zero_for_generated():
    real, made = random(0, 2, 1, 3, 3), random(1, 4, 1, 3, 3)
    expected = sum((s.item() - 1) ** 2 for s in real.flatten()) / real.numel() / 2
    expected += sum(s.item() ** 2 for s in made.flatten()) / made.numel() / 2
    assert losses.discriminator(real, made).item() == pytest.approx(expected)
    assert losses.discriminator(torch.ones(2, 1, 3, 3), torch.zeros(4, 1, 3, 3)).item() == 0


def test_scores_count_by_their_share_of_the_hole_picture_by_picture():
    made, inferred, real = random(0, 2, 1, 3, 3), random(1, 4, 1, 3, 3), random(2, 2, 1, 3, 3)
    share = torch.zeros(2, 1, 3, 3)
    share[0, 0, 1, 1], share[1, 0, 0, :2] = 0.25, torch.tensor([0.5, 1.0])

    def loop(errors):
        """Row b of the pictures has row b % 2 of the shares."""
        means = [(e * share[b % 2]).sum() / share[b % 2].sum() for b, e in enumerate(errors)]
        return torch.stack(means).mean()

    rebuilt, drawn = loop((made - 1) ** 2), loop((inferred - real.repeat(2, 1, 1, 1)) ** 2)
    torch.testing.assert_close(losses.adversarial(made, inferred, real, share), rebuilt + drawn)
    both = 0.5 * (loop((real - 1) ** 2) + loop(inferred**2))
    torch.testing.assert_close(losses.discriminator(real, inferred, share), both)


def test_equal_shares_weigh_as_none_at_all():
    made, inferred, real = random(0, 2, 1, 3, 3), random(1, 4, 1, 3, 3), random(2, 2, 1, 3, 3)
    share = torch.full((2, 1, 3, 3), 0.3)
    for loss in (losses.adversarial, lambda *given: losses.discriminator(*given[1:])):
        torch.testing.assert_close(loss(made, inferred, real, share), loss(made, inferred, real))

import math

import numpy as np
import pytest
import torch

from picme_training.evaluate import measures
from picme_training.evaluate.patches import patch_distance

S = 32


@pytest.fixture(scope="module")
def case():
    """Three results, the original and the hole; results are composites."""
    rng = np.random.default_rng(0)
    original = torch.from_numpy(rng.integers(0, 256, (3, S, S), np.uint8))
    hole = torch.zeros(S, S, dtype=torch.bool)
    hole[8:24, 4:20] = True
    results = original.repeat(3, 1, 1, 1)
    results[..., hole] = torch.from_numpy(rng.integers(0, 256, (3, 3, 256), np.uint8))
    return results, original, hole


def test_psnr_and_mae_are_those_of_the_formulas_over_the_hole_and_over_all(case):
    results, original, hole = case
    found = measures.fidelity(*case)
    error = (results.double() - original.double()) / 255
    share = hole.float().mean().item()
    each = (error[..., hole] ** 2).mean((1, 2))
    assert found["MAE_hole"] == pytest.approx(error[..., hole].abs().mean().item(), rel=1e-5)
    assert found["MAE"] == pytest.approx(share * found["MAE_hole"], rel=1e-5)
    assert found["PSNR_hole"] == pytest.approx((-10 * each.log10()).mean().item(), rel=1e-5)
    assert found["PSNR"] == pytest.approx(found["PSNR_hole"] - 10 * math.log10(share), rel=1e-5)


def test_the_mean_of_results_is_measured_as_one_result_is(case):
    results, original, hole = case
    mean = (results.double().sum(0) / 3).round()
    error = ((mean - original)[:, hole] / 255).square().mean()
    found = measures.averaged(*case)
    assert found["PSNR_averaged"] == pytest.approx(-10 * math.log10(error), rel=1e-5)
    assert found["PSNR_averaged"] > measures.fidelity(*case)["PSNR_hole"] + 1
    one = measures.fidelity(mean[None].to(torch.uint8), original, hole)
    assert found["SSIM_averaged"] == one["SSIM"]


def test_ssim_is_scikit_image_s_away_from_the_picture_s_border(case):
    """There windows reach over it: torchmetrics mirrors, scikit-image leaves them out."""
    from skimage.metrics import structural_similarity

    results, original, _ = case
    options = {"channel_axis": 0, "gaussian_weights": True, "sigma": 1.5, "data_range": 255}
    expected = [
        structural_similarity(one.numpy(), original.numpy(), use_sample_covariance=False, **options)
        for one in results
    ]
    inner = torch.zeros(S, S, dtype=torch.bool)
    inner[5:-5, 5:-5] = True
    found = measures.fidelity(results, original, inner)
    assert found["SSIM_hole"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert found["SSIM"] != found["SSIM_hole"]


def test_the_original_itself_is_the_best_there_is(case):
    _, original, hole = case
    found = measures.fidelity(original[None], original, hole)
    assert found["PSNR"] == found["PSNR_hole"] == measures.MOST_PSNR
    assert found["MAE"] == found["MAE_hole"] == 0
    assert found["SSIM"] == found["SSIM_hole"] == pytest.approx(1)


# The seam


def test_the_seam_s_jump_is_that_of_the_loop_over_the_border(case):
    results, _, hole = case
    jumps = []
    padded = np.pad(results.numpy().astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    for down, right in ((1, 0), (0, 1)):
        for y in range(S - down):
            for x in range(S - right):
                if hole[y, x] != hole[y + down, x + right]:
                    a, b, c, d = (
                        padded[:, :, y + 1 + i * down, x + 1 + i * right] for i in (-1, 0, 1, 2)
                    )
                    jumps.append(np.abs(c - b - (b - a + d - c) / 2))
    assert measures.seam_jump(results, hole) == pytest.approx(np.mean(jumps), rel=1e-5)


def test_a_ramp_has_no_seam_and_a_step_at_the_border_has_its_height():
    hole = torch.zeros(S, S, dtype=torch.bool)
    hole[:, 16:] = True
    ramp = torch.arange(S, dtype=torch.uint8).expand(1, 3, S, S).contiguous()
    assert measures.seam_jump(ramp, hole) == 0
    step = ramp + 40 * hole.byte()
    assert measures.seam_jump(step, hole) == 40


def test_a_hole_of_one_pixel_in_a_corner_has_a_seam():
    hole = torch.zeros(S, S, dtype=torch.bool)
    hole[0, 0] = True
    picture = torch.zeros(1, 3, S, S, dtype=torch.uint8)
    picture[..., 0, 0] = 90
    assert measures.seam_jump(picture, hole) == 90


# Entropy, and what needs a network


@pytest.mark.parametrize(("shares", "nats"), [([0.25] * 4, math.log(4)), ([1, 0, 0, 0], 0)])
def test_entropy_goes_from_zero_to_the_logarithm(shares, nats):
    assert float(measures.entropy(torch.tensor(shares))) == pytest.approx(nats, abs=1e-6)


def taps(lpips, pictures):
    return lpips.taps(measures.in_network(pictures))


def test_lpips_is_the_mean_over_results_and_over_pairs(case, stand_in):
    results, original, hole = case
    found = measures.perceptual(
        taps(stand_in, results), taps(stand_in, original[None]), hole, stand_in
    )
    made, target = measures.in_network(results), measures.in_network(original[None])
    to_original = stand_in(made, target.expand_as(made)).mean().item()
    pairs = torch.cat([stand_in(made[:1], made[1:2]), stand_in(made[:1], made[2:])])
    pairs = torch.cat([pairs, stand_in(made[1:2], made[2:])]).mean().item()
    assert found["LPIPS"] == pytest.approx(to_original, rel=1e-4)
    assert found["LPIPS_pairs"] == pytest.approx(pairs, rel=1e-4)


def test_lpips_in_the_hole_is_the_mean_of_its_map_there(case, stand_in):
    results, original, hole = case
    made, target = taps(stand_in, results), taps(stand_in, original[None])
    found = measures.perceptual(made, target, hole, stand_in)["LPIPS_hole"]
    maps = stand_in.maps(made, target, hole.shape)
    assert found == pytest.approx(float(maps.mul(hole).sum() / hole.sum() / len(maps)), rel=1e-5)


def test_lpips_in_the_hole_is_more_than_that_of_a_picture_whose_error_lies_in_it(case, stand_in):
    results, original, hole = case
    target = taps(stand_in, original[None])
    inside = measures.perceptual(taps(stand_in, results), target, hole, stand_in)
    outside = measures.perceptual(taps(stand_in, results), target, ~hole, stand_in)
    assert inside["LPIPS_hole"] > outside["LPIPS_hole"] > 0
    none = measures.perceptual(target, target, hole, stand_in)
    assert none == {"LPIPS": 0, "LPIPS_hole": 0}


def test_the_deviation_in_the_hole_is_that_over_the_results(case):
    results, _, hole = case
    expected = results.numpy().std(0)[:, hole.numpy()].mean()
    assert measures.spread_in_hole(results, hole) == pytest.approx(expected, rel=1e-5)
    assert measures.spread_in_hole(results[[0, 0]], hole) == 0


def test_changed_known_pixels_are_counted_in_the_worst_result(case):
    results, original, hole = case
    assert measures.changed(results, original, hole) == 0
    other = results.clone()
    other[1, 0, 0, :3] ^= 1
    other[2, :, 0, 0] ^= 1
    assert measures.changed(other, original, hole) == 3


def test_the_patch_distance_is_the_mean_over_results(case):
    results, _, hole = case
    each = [patch_distance(y.permute(1, 2, 0).numpy(), hole.numpy()).both for y in results]
    assert measures.patches(results, hole) == pytest.approx(np.mean(each))


def test_of_one_result_there_are_no_pairs(case):
    results, original, hole = case
    assert not {"pairwise", "std"} & measures.of_pixels(results[:1], original, hole).keys()
    two = measures.of_pixels(results[[0, 1]], original, hole)
    error = (results[0].float() - results[1].float()).abs()[:, hole].mean().item()
    assert two["pairwise"] == pytest.approx(error, rel=1e-5)

import math

import numpy as np
import pytest
import torch

from picme_training import masks
from picme_training.config import NetworkConfig
from picme_training.evaluation import evaluate, pairwise_difference
from picme_training.networks import Picme
from picme_training.perceptual import Lpips

S, P, K = 64, 3, 4
INSIDE = masks.centre(S)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Picme(NetworkConfig("cats", S, P)).eval()


@pytest.fixture
def measure(model, photographs):
    """Evaluates five photographs, three at a time."""

    def run(**more):
        return evaluate(
            model, photographs[:5], **{"direction": "reverse", "k": K, "batch": 3, **more}
        )

    return run


def set_alpha(model, *alpha):
    last = model.latent.alpha[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor(alpha).log())


def tiles(report):
    """(rows, 2 + K, S, S, 3) of the grid."""
    rows = report.grid.shape[0] // S
    return report.grid.reshape(rows, S, 2 + K, S, 3).swapaxes(1, 2).astype(int)


# Pairwise difference


def test_pairwise_difference_equals_the_loop_over_pairs_and_pixels():
    generator = torch.Generator().manual_seed(0)
    done = 2 * torch.rand(2, 3, 3, 4, 4, generator=generator) - 1
    hole = (torch.rand(2, 1, 4, 4, generator=generator) < 0.5).float()
    total, count = 0.0, 0
    for b in range(2):
        for i in range(3):
            for j in range(i + 1, 3):
                for y in range(4):
                    for x in range(4):
                        if hole[b, 0, y, x] == 1:
                            error = (done[b, i, :, y, x] - done[b, j, :, y, x]).abs()
                            total += 127.5 * error.sum().item()
                            count += 3
    assert pairwise_difference(done, hole) == pytest.approx(total / count)


def test_equal_completions_have_no_difference_and_extremes_255_levels():
    one = torch.ones(1, 1, 3, 4, 4)
    hole = torch.ones(1, 1, 4, 4)
    assert pairwise_difference(one.repeat(1, 4, 1, 1, 1), hole) == 0
    assert pairwise_difference(torch.cat([one, -one], 1), hole) == 255


# Primitives


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_usage_and_alpha_are_shares(measure, direction):
    report = measure(direction=direction)
    assert len(report.usage) == len(report.alpha) == P
    assert sum(report.usage) == pytest.approx(1)
    assert sum(report.alpha) == pytest.approx(1)
    assert all(round(5 * used, 5) in range(6) for used in report.usage)


def test_alpha_is_what_the_network_says(measure, model):
    set_alpha(model, 0.2, 0.5, 0.3)
    report = measure()
    assert report.alpha == pytest.approx([0.2, 0.5, 0.3])
    expected = -sum(a * math.log(a) for a in (0.2, 0.5, 0.3))
    assert report.scalars["entropy_alpha"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("alpha", "entropy"), [((1.0, 1.0, 1.0), math.log(3)), ((1.0, 1e-30, 1e-30), 0.0)]
)
def test_the_entropy_of_alpha_goes_from_zero_to_the_most(measure, model, alpha, entropy):
    set_alpha(model, *alpha)
    report = measure()
    assert report.scalars["entropy_alpha"] == pytest.approx(entropy, abs=1e-5)
    assert report.scalars["entropy_most"] == math.log(3)


def test_a_primitive_far_from_every_z_c_is_never_the_best(measure, model):
    with torch.no_grad():
        model.latent.mu[-1].bias.view(P, -1)[1:] += 100
    report = measure()
    assert report.usage == [1, 0, 0]
    assert report.scalars["entropy_used"] == pytest.approx(0, abs=1e-9)


def test_the_entropy_of_use_is_that_of_the_shares(measure):
    report = measure()
    expected = -sum(used * math.log(used) for used in report.usage if used > 0)
    assert report.scalars["entropy_used"] == pytest.approx(expected, abs=1e-6)


# The grid


def test_the_grid_has_a_row_a_picture_and_a_column_a_completion(measure):
    assert measure().grid.shape == (5 * S, (2 + K) * S, 3)
    assert measure(rows=2).grid.shape == (2 * S, (2 + K) * S, 3)
    assert measure(rows=2, k=2).grid.shape == (2 * S, 4 * S, 3)
    assert measure().grid.dtype == np.uint8


def test_a_row_is_the_masked_picture_the_original_and_completions(measure, photographs):
    for row, picture in zip(tiles(measure()), photographs[:5], strict=True):
        original = picture.permute(1, 2, 0).numpy()
        masked = row[0]
        assert (masked[~INSIDE] == original[~INSIDE]).all()
        assert (masked[INSIDE] == 128).all()
        assert (row[1] == original).all()
        for one in row[2:]:
            assert (one[~INSIDE] == original[~INSIDE]).all()
            assert (one[INSIDE] != original[INSIDE]).any()


def test_the_measures_are_those_of_the_pictures_in_the_grid(measure):
    report = measure()
    rows = tiles(report)
    original, done = rows[:, 1][:, INSIDE], rows[:, 2:][:, :, INSIDE]
    to_original = np.abs(done - original[:, None]).mean()
    between = np.mean(
        [np.abs(done[:, i] - done[:, j]).mean() for i in range(K) for j in range(i + 1, K)]
    )
    assert report.scalars["L1_hole"] == pytest.approx(to_original, abs=0.1)
    assert report.scalars["pairwise"] == pytest.approx(between, abs=0.1)


# Repeating


def test_an_evaluation_repeats_and_another_seed_samples_otherwise(measure):
    one, two, other = measure(), measure(), measure(seed=1)
    assert one.scalars == two.scalars
    assert (one.grid == two.grid).all()
    assert (one.grid != other.grid).any()
    assert one.usage == other.usage


def test_the_pictures_at_a_time_change_no_use_of_primitives(measure):
    one, two = measure(batch=5), measure(batch=2)
    assert one.usage == two.usage
    assert one.alpha == pytest.approx(two.alpha, rel=1e-4)


def test_an_evaluation_leaves_no_gradient_and_no_changed_weight(measure, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_lpips_adds_its_measures(measure):
    torch.manual_seed(0)
    lpips = Lpips()
    for lin in lpips.lins:
        torch.nn.init.uniform_(lin)
    found = set(measure(lpips=lpips).scalars) - set(measure().scalars)
    assert found == {"LPIPS", "LPIPS_reconstruction", "LPIPS_pairs"}
    assert all(math.isfinite(value) for value in measure(lpips=lpips).scalars.values())


def test_pic_is_measured_too(photographs):
    torch.manual_seed(0)
    report = evaluate(Picme(NetworkConfig("pic", S, 1)), photographs[:2], direction="reverse", k=2)
    assert report.usage == report.alpha == [1]
    assert report.scalars["entropy_most"] == 0
    assert report.scalars["pairwise"] > 0

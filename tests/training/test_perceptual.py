import copy

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from picme_rt.errors import InputError
from picme_training import perceptual


def random_weights():
    """What a file of LPIPS-squeeze holds, with random numbers."""
    torch.manual_seed(0)
    model = perceptual.Lpips()
    stored = {k: v for k, v in model.state_dict().items() if k.startswith("features.")}
    widths = (64, 128, 256, 384, 384, 512, 512)
    return stored | {
        f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate(widths)
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    place = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(random_weights(), place)
    return place


@pytest.fixture(scope="module")
def lpips(weights):
    return perceptual.load(weights)


@pytest.fixture(scope="module")
def pictures(photographs):
    return photographs[:4].float() / 127.5 - 1


def test_the_distance_is_one_number_a_pair(lpips, pictures):
    found = lpips(pictures[:3], pictures[1:])
    assert found.shape == (3,)
    assert (found > 0).all()


def test_a_picture_is_at_no_distance_from_itself(lpips, pictures):
    assert torch.equal(lpips(pictures, pictures), torch.zeros(4))


def test_the_distance_is_symmetric(lpips, pictures):
    there, back = lpips(pictures[:2], pictures[2:]), lpips(pictures[2:], pictures[:2])
    torch.testing.assert_close(there, back)


def test_each_pair_is_measured_alone(lpips, pictures):
    together = lpips(pictures[:2], pictures[2:])
    alone = [lpips(pictures[i : i + 1], pictures[i + 2 : i + 3]) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_more_noise_is_farther_away(lpips, pictures):
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    far = [lpips(pictures, pictures + s * noise).mean().item() for s in (0.02, 0.1, 0.5)]
    assert far == sorted(far)


def test_the_distance_is_the_weighted_squared_difference_of_unit_features(lpips, pictures):
    a, b = pictures[:1], pictures[1:2]
    expected = 0.0
    for tap_a, tap_b, lin in zip(lpips.taps(a), lpips.taps(b), lpips.lins, strict=True):
        torch.testing.assert_close(tap_a.norm(dim=1), torch.ones_like(tap_a[:, 0]))
        weighted = F.conv2d((tap_a - tap_b) ** 2, lin)
        expected += weighted.mean().item()
    assert lpips(a, b).item() == pytest.approx(expected, rel=1e-4)


def test_in_bfloat16_lengths_and_distances_are_those_of_float32(lpips, pictures):
    low = copy.deepcopy(lpips).bfloat16()
    taps = [tap.float() for tap in low.taps(pictures[:2].bfloat16())]
    found = low(pictures[:2].bfloat16(), pictures[2:].bfloat16())
    for tap in taps:
        torch.testing.assert_close(tap.norm(dim=1), torch.ones_like(tap[:, 0]), atol=0.02, rtol=0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, lpips(pictures[:2], pictures[2:]), rtol=0.05, atol=0)


def test_the_taps_have_squeezenet_s_widths_and_sides(lpips, pictures):
    shapes = [(tap.shape[1], tap.shape[2]) for tap in lpips.taps(pictures[:1])]
    assert shapes == [(64, 31), (128, 15), (256, 7), (384, 3), (384, 3), (512, 3), (512, 3)]


def test_colours_are_scaled_by_imagenet_s_means_and_deviations(lpips):
    seen = []
    hook = lpips.features[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    lpips.taps(torch.full((1, 3, 64, 64), 0.5))
    hook.remove()
    expected = [(0.75 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert seen[0].mean((0, 2, 3)).tolist() == pytest.approx(expected, abs=1e-5)


def test_the_weights_are_frozen_and_the_picture_receives_a_gradient(lpips, pictures):
    picture = pictures[:1].clone().requires_grad_()
    lpips(picture, pictures[1:2]).sum().backward()
    assert picture.grad.abs().max() > 0
    assert picture.grad.isfinite().all()
    assert not any(parameter.requires_grad for parameter in lpips.parameters())
    assert not lpips.training


def test_a_gradient_at_distance_zero_is_finite(lpips, pictures):
    picture = pictures[:1].clone().requires_grad_()
    lpips(picture, pictures[:1]).sum().backward()
    assert picture.grad.isfinite().all()


def test_distances_of_embeddings_are_the_distance(lpips, pictures):
    embedded = lpips.embedding(lpips.taps(pictures))
    found = ((embedded[:2] - embedded[2:]) ** 2).sum(1)
    torch.testing.assert_close(found, lpips(pictures[:2], pictures[2:]), rtol=1e-4, atol=1e-6)


def test_the_map_lies_where_the_pictures_differ_and_its_mean_is_about_the_distance(lpips, pictures):
    other = pictures.clone()
    other[:, :, :20, :20] = 0
    taps, changed = lpips.taps(pictures), lpips.taps(other)
    maps = lpips.maps(taps, changed, (64, 64))
    assert maps.shape == (4, 64, 64)
    assert (maps[:, :20, :20].mean((1, 2)) > 3 * maps[:, 40:, 40:].mean((1, 2))).all()
    torch.testing.assert_close(maps.mean((1, 2)), lpips(pictures, other), rtol=0.2, atol=0)
    assert not lpips.maps(taps, taps, (64, 64)).any()
    one = lpips.maps(taps, [tap[:1] for tap in changed], (64, 64))
    torch.testing.assert_close(one[0], maps[0])


def test_pooled_features_are_means_of_squeezenet_s_last(lpips, pictures):
    found = lpips.pooled(pictures)
    assert found.shape == (4, 512)
    last = lpips.taps(pictures)[-1].mean((2, 3))
    assert torch.corrcoef(torch.stack([found[0], last[0]]))[0, 1] > 0.9


def without_a_layer(stored):
    del stored["lin3.model.1.weight"]


def with_a_layer_more(stored):
    stored["features.13.weight"] = torch.zeros(1)


def with_another_shape(stored):
    stored["features.0.weight"] = torch.zeros(64, 3, 7, 7)


def with_a_negative_layer(stored):
    stored["lin3.model.1.weight"][0, 5] = -1


@pytest.mark.parametrize(
    "change", [without_a_layer, with_a_layer_more, with_another_shape, with_a_negative_layer]
)
def test_weights_of_another_network_are_refused(tmp_path, change):
    stored = random_weights()
    change(stored)
    save_file(stored, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors is not LPIPS-squeeze"):
        perceptual.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", None])
def test_a_file_that_is_missing_or_no_safetensors_is_refused(tmp_path, content):
    place = tmp_path / "weights.safetensors"
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        perceptual.load(place)


def test_its_gradient_is_that_of_the_equation():
    torch.manual_seed(0)
    measure = perceptual.Lpips().double()
    for lin in measure.lins:
        torch.nn.init.uniform_(lin)
    a, b = 2 * torch.rand(2, 2, 3, 64, 64, dtype=torch.float64) - 1
    a.requires_grad_()
    total = torch.zeros(2, dtype=torch.float64)
    x, y, taps = measure._normalised(a), measure._normalised(b), iter(measure.lins)
    for index, layer in enumerate(measure.features):
        x, y = layer(x), layer(y)
        if index in (1, 4, 7, 9, 10, 11, 12):
            apart = F.normalize(x, eps=1e-10) - F.normalize(y, eps=1e-10)
            total = total + (next(taps) * apart**2).sum(1).mean((1, 2))
    found = measure(a, b)
    torch.testing.assert_close(found, total)
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    (expected,) = torch.autograd.grad(total @ weights, a)
    (gradient,) = torch.autograd.grad(found @ weights, a)
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 1e-6

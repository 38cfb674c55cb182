import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from picme_training import compact, discriminator
from picme_training.blocks import Attention, known_at
from picme_training.config import NetworkConfig
from picme_training.gaussians import LOG_SIGMA_RANGE
from picme_training.networks import Picme, fold

PRESETS = ("picme", "pic", "cats")
SIZES = (64, 128, 256)
SCALES = {64: [16, 32, 64], 128: [32, 64, 128], 256: [32, 64, 128, 256]}


def config(preset, size=64, **more):
    primitives = 1 if preset == "pic" else 5
    return NetworkConfig(preset, size, **{"primitives": primitives, **more})


@pytest.fixture(scope="module")
def network():
    """Networks by preset, in evaluation, with biases and gates that are not zero."""
    made = {}

    def make(preset):
        if preset not in made:
            torch.manual_seed(1)
            model = Picme(config(preset)).eval()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name.endswith(("gamma", "alpha")) and parameter.ndim == 0:
                        parameter.fill_(0.3)
            made[preset] = model.requires_grad_(False)
        return made[preset]

    return make


def picture(batch, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(batch, 3, size, size, generator=generator) - 1


def centre_hole(batch, size=64):
    hole = torch.zeros(batch, 1, size, size)
    hole[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    return hole


def latents(model, batch, seed=0):
    shape = (batch, model.latent_dim)
    z_c, z_m = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))
    return z_c, None if model.config.preset == "pic" else z_m


def complete(model, image, hole, seed=0):
    encoding, mixture = model.encode(image, hole)
    z_c, z_m = latents(model, len(image), seed)
    return encoding, mixture, model.decode(z_c, z_m, encoding.features, hole)


# Shapes and sizes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_its_shapes_at_every_size(preset, size):
    model = Picme(config(preset, size)).eval()
    with torch.no_grad():
        encoding, mixture, pictures = complete(model, picture(1, size), centre_hole(1, size))
    p, d = model.config.primitives, model.latent_dim
    assert d == {"picme": 256, "pic": 8192, "cats": 128}[preset]
    assert mixture.log_alpha.shape == (1, p)
    assert mixture.mu.shape == mixture.log_sigma.shape == (1, p, d)
    assert encoding.features[-1].shape == (1, 128, 8, 8)
    assert tuple(f.shape[1:] for f in encoding.features) == tuple(model.encoder.shapes)
    assert (encoding.z_m is None) == (preset == "pic")
    assert [q.shape[-1] for q in pictures] == ([size] if preset == "cats" else SCALES[size])
    assert all(q.shape[:2] == (1, 3) and q.abs().max() <= 1 for q in pictures)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_discriminator_scores_patches_at_every_size(preset, size):
    judge = discriminator.make(config(preset, size)).eval()
    with torch.no_grad():
        (scores,) = judge(picture(1, size), centre_hole(1, size))
    side = 8 if preset == "cats" else 6
    assert scores.shape == (1, 1, side, side)


def test_the_papers_layout_costs_what_the_method_says():
    model = Picme(NetworkConfig("picme", 256)).eval()
    image, hole = picture(1, 256), centre_hole(1, 256)
    with torch.no_grad():
        with FlopCounterMode(display=False) as encoding_cost:
            encoding, _ = model.encode(image, hole)
        with FlopCounterMode(display=False) as decoding_cost:
            model.decode(*latents(model, 1), encoding.features, hole)
    assert encoding_cost.get_total_flops() / 2e9 == pytest.approx(2.0, abs=0.05)  # GMAC
    assert decoding_cost.get_total_flops() / 2e9 == pytest.approx(3.1, abs=0.05)
    weights = sum(parameter.numel() for parameter in model.decoder.parameters())
    assert weights == pytest.approx(2.5e6, rel=0.02)


@pytest.mark.parametrize(("channel", "inputs"), [(True, 4), (False, 3)])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_hole_is_a_fourth_channel_or_the_paper_s_three(preset, channel, inputs):
    model = Picme(config(preset, mask_channel=channel))
    first = next(layer for layer in model.encoder.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == inputs * (4 if preset == "cats" else 1)
    with torch.no_grad():
        model.eval().encode(picture(1), centre_hole(1))


# What a completion may depend on


@pytest.mark.parametrize("channel", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_pixels_under_the_hole_change_no_output_to_the_bit(preset, channel):
    torch.manual_seed(0)
    model, hole = Picme(config(preset, mask_channel=channel)).eval(), centre_hole(1)
    with torch.no_grad():
        one = complete(model, picture(1), hole)
        other = complete(model, torch.where(hole > 0, picture(1, seed=1), picture(1)), hole)
    parts = ((*encoding.features, *mixture, *done) for encoding, mixture, done in (one, other))
    for a, b in zip(*parts, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("preset", PRESETS)
def test_known_pixels_change_the_picture(network, preset):
    image, other = picture(1), picture(1)
    other[..., 3, 3] *= -1
    _, _, one = complete(network(preset), image, centre_hole(1))
    _, _, two = complete(network(preset), other, centre_hole(1))
    assert not torch.equal(one[-1], two[-1])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_gives_what_each_picture_gives_alone(network, preset):
    model, image = network(preset), picture(3)
    hole = centre_hole(3)
    hole[1] = 1 - hole[1]
    encoding, mixture = model.encode(image, hole)
    z_c, z_m = latents(model, 3)
    together = model.decode(z_c, z_m, encoding.features, hole)
    for b in range(3):
        one = slice(b, b + 1)
        alone, own = model.encode(image[one], hole[one])
        pictures = model.decode(
            z_c[one], None if z_m is None else z_m[one], alone.features, hole[one]
        )
        for a, whole in zip((*own, *pictures), (*mixture, *together), strict=True):
            torch.testing.assert_close(a, whole[one], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_z_c_changes_the_picture_inside_the_hole(network, preset):
    hole = centre_hole(1)
    _, _, one = complete(network(preset), picture(1), hole, seed=0)
    _, _, two = complete(network(preset), picture(1), hole, seed=1)
    assert ((one[-1] - two[-1]).abs() * hole).max() > 1e-3


@pytest.mark.parametrize("preset", ["picme", "cats"])
def test_z_m_changes_the_picture(network, preset):
    model = network(preset)
    encoding, _ = model.encode(picture(1), centre_hole(1))
    z_c, z_m = latents(model, 1)
    one = model.decode(z_c, z_m, encoding.features, centre_hole(1))[-1]
    two = model.decode(z_c, -z_m, encoding.features, centre_hole(1))[-1]
    assert (one - two).abs().max() > 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_evaluation_repeats_to_the_bit_and_leaves_the_weights_alone(network, preset):
    model = network(preset)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    one, two = (complete(model, picture(2), centre_hole(2)) for _ in range(2))
    for a, b in zip((*one[1], *one[2]), (*two[1], *two[2]), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", ["all hole", "nothing missing"])
def test_a_picture_that_is_all_hole_or_all_known_stays_finite(network, preset, kind):
    hole = torch.full((1, 1, 64, 64), float(kind == "all hole"))
    encoding, mixture, pictures = complete(network(preset), picture(1), hole)
    assert all(part.isfinite().all() for part in (*encoding.features, *mixture, *pictures))


def test_cats_hears_of_the_hole_from_the_coarsest_map_alone(network):
    model, hole = network("cats"), centre_hole(1)
    features = model.features(picture(1), hole)
    changed = [f + 5 * (known_at(hole, f.shape[-1]) == 0) for f in features]

    def made(*features):
        kept = model.encoding(features, hole).features
        return model.decode(*latents(model, 1), kept, hole)[-1]

    before = made(*features)
    assert torch.equal(made(*changed[:2], features[2]), before)
    assert not torch.equal(made(*features[:2], changed[2]), before)


# The latents


@pytest.mark.parametrize("preset", PRESETS)
def test_the_mixture_is_a_mixture(network, preset):
    # far features drive the heads out of their clamp
    f_m = 100 * torch.randn(4, 128, 8, 8, generator=torch.Generator().manual_seed(0))
    latent = network(preset).latent
    z_m = None if preset == "pic" else latent.gaussian(f_m)
    mixture = latent.mixture(latent.condition(f_m, z_m))
    torch.testing.assert_close(mixture.log_alpha.exp().sum(1), torch.ones(4))
    low, high = LOG_SIGMA_RANGE
    for log_sigma in (mixture.log_sigma, latent.gaussian(f_m).log_sigma):
        assert low <= log_sigma.min() < log_sigma.max() <= high
        assert (log_sigma == low).any() or (log_sigma == high).any()


@pytest.mark.parametrize("preset", ["picme", "cats"])
def test_the_primitives_start_apart(network, preset):
    _, mixture = network(preset).encode(picture(1), centre_hole(1))
    apart = torch.cdist(mixture.mu[0], mixture.mu[0]) / math.sqrt(mixture.mu.shape[-1])
    assert (apart + torch.eye(len(apart))).min() > 0.3


def test_picme_s_mixture_is_a_function_of_the_mean_of_z_m(network):
    encoding, _ = network("picme").encode(picture(1), centre_hole(1))
    assert torch.equal(encoding.condition, encoding.z_m.mu)


# Attention


def test_attention_equals_the_loop_over_places():
    torch.manual_seed(0)
    n, channels, skip = 4, 8, 6
    layer = Attention(channels, skip).eval()
    with torch.no_grad():
        layer.gamma.fill_(0.7)
        layer.alpha.fill_(-0.4)
        x, f_e = torch.randn(1, channels, n, n), torch.randn(1, skip, n, n)
        hole = torch.zeros(1, 1, 2 * n, 2 * n)
        hole[..., 3:7, 2:6] = 1
        seen = {}
        layer.merge.register_forward_pre_hook(lambda _, given: seen.update(merged=given[0]))
        layer(x, f_e, hole)

        q, known = layer.query(x)[0], 1 - F.avg_pool2d(hole, 2)[0, 0]
        places = [(y, x_) for y in range(n) for x_ in range(n)]
        for y, x_ in places:
            scores = torch.stack([(q[:, y, x_] * q[:, v, u]).sum() for v, u in places])
            weights = scores.exp() / scores.exp().sum()
            short = sum(w * x[0, :, v, u] for w, (v, u) in zip(weights, places, strict=True))
            long = sum(w * f_e[0, :, v, u] for w, (v, u) in zip(weights, places, strict=True))
            m = known[y, x_]
            o = 0.7 * short + x[0, :, y, x_]
            c = -0.4 * (1 - m) * long + m * f_e[0, :, y, x_]
            torch.testing.assert_close(seen["merged"][0, :, y, x_], torch.cat([o, c]))


def test_attention_stays_finite_under_half_precision_where_its_scores_overflow():
    torch.manual_seed(0)
    layer = Attention(8, 8).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        out = layer(1e3 * torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4), torch.zeros(1, 1, 8, 8))
    assert out.isfinite().all()


def test_known_at_is_the_share_of_known_pixels():
    hole = torch.zeros(1, 1, 4, 4)
    hole[0, 0, 0, :3] = 1
    assert known_at(hole, 2).flatten().tolist() == [0.5, 0.75, 1, 1]


@pytest.mark.parametrize("ratio", [2, 4])
def test_no_pattern_of_two_pixels_leaves_a_pixel_shuffle(ratio):
    torch.manual_seed(0)
    phases = torch.randn(1, 3 * ratio**2, 1, 1).expand(-1, -1, 6, 6)
    out = compact._shuffled(phases, ratio)
    assert out.shape == (1, 3, 6 * ratio, 6 * ratio)
    inside = out[:, :, ratio:-ratio, ratio:-ratio]
    sign = torch.tensor([1.0, -1.0]).repeat(inside.shape[-1] // 2)
    for pattern in (sign[:, None] * sign, sign[:, None].expand_as(inside[0, 0]), sign):
        assert abs((inside * pattern).mean().item()) < 1e-6
    assert torch.equal(compact._shuffled(torch.ones(1, 12, 4, 4), 2), torch.ones(1, 3, 8, 8))


# Spectral norm


@pytest.mark.parametrize("preset", ["picme", "pic"])
def test_every_convolution_of_pic_s_layout_is_under_spectral_norm(preset):
    model, judge = Picme(config(preset, 256)), discriminator.make(config(preset, 256))
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    layers = [layer for m in (model, judge) for layer in m.modules() if isinstance(layer, kinds)]
    assert len(layers) > 50
    assert all(parametrize.is_parametrized(layer, "weight") for layer in layers)


def test_every_convolution_of_the_compact_discriminator_but_its_score_is_under_spectral_norm():
    judge = discriminator.make(config("cats"))
    layers = [layer for layer in judge.layers.modules() if isinstance(layer, nn.Conv2d)]
    assert layers
    assert all(parametrize.is_parametrized(layer, "weight") for layer in layers)
    assert not parametrize.is_parametrized(judge.score, "weight")


def test_training_brings_every_kernel_of_a_discriminator_to_a_spectral_norm_of_one():
    torch.manual_seed(0)
    judge = discriminator.make(config("picme")).train()
    for _ in range(30):
        judge(picture(1), centre_hole(1))
    for layer in judge.eval().modules():
        if isinstance(layer, nn.Conv2d):
            largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
            assert largest.item() == pytest.approx(1, abs=0.05)


# The posterior of z_c


def spread_features(batch):
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(batch, 128, 8, 8, generator=generator) + 1,)


@pytest.mark.parametrize("preset", PRESETS)
def test_in_training_the_means_of_z_c_have_no_common_offset_and_unit_spread(preset):
    torch.manual_seed(0)
    model = Picme(config(preset, whiten=True)).train()
    mu = model.posterior(spread_features(16)).mu
    torch.testing.assert_close(mu.mean(0), torch.zeros(model.latent_dim), atol=1e-4, rtol=0)
    unit = torch.ones(model.latent_dim)
    torch.testing.assert_close(mu.std(0, correction=0), unit, atol=1e-2, rtol=0)


def test_cats_is_whitened_without_being_asked():
    assert config("cats").whitened
    states = [Picme(config("cats", whiten=asked)).state_dict() for asked in (False, True)]
    assert states[0].keys() == states[1].keys()


def test_whitening_leaves_the_spread_of_each_z_c_alone():
    torch.manual_seed(0)
    model = Picme(config("cats")).train()
    plain = model.latent.gaussian(spread_features(16)[-1])
    assert torch.equal(model.posterior(spread_features(16)).log_sigma, plain.log_sigma)


@pytest.mark.parametrize("preset", PRESETS)
def test_in_evaluation_each_z_c_is_a_function_of_its_own_picture(network, preset):
    together = network(preset).posterior(spread_features(3))
    alone = network(preset).posterior((spread_features(3)[0][1:2],))
    torch.testing.assert_close(together.mu[1:2], alone.mu, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("preset", ["picme", "pic"])
def test_the_paper_s_layouts_take_z_c_as_the_encoder_gives_it_by_default(preset):
    torch.manual_seed(0)
    model = Picme(config(preset)).eval()
    plain = model.latent.gaussian(spread_features(2)[-1])
    assert torch.equal(model.posterior(spread_features(2)).mu, plain.mu)


def test_the_whitening_has_no_part_in_a_completion():
    torch.manual_seed(0)
    model = Picme(config("cats")).eval()
    model.whiten = None
    with torch.no_grad():
        complete(model, picture(1), centre_hole(1))


def test_what_is_flat_in_a_map_is_flat_in_the_pixels_of_an_even_shuffle():
    torch.manual_seed(0)
    layer = compact.EvenShuffle(5, 4)
    flat = torch.randn(2, 5, 1, 1).expand(-1, -1, 4, 4)
    pixels = F.pixel_shuffle(layer(flat), 4)[:, :, 4:-4, 4:-4]
    assert (pixels - pixels.mean((2, 3), keepdim=True)).abs().max() < 1e-5
    assert pixels.std(1).min() > 1e-2  # colours stay apart
    slope = flat * torch.linspace(-1, 1, 4)
    assert F.pixel_shuffle(layer(slope), 4)[:, :, 4:-4, 4:-4].std((2, 3)).min() > 1e-2


def test_cats_at_256_weaves_no_cells_and_folds_to_a_plain_convolution():
    torch.manual_seed(0)
    model = Picme(config("cats", 256, detail=True, push_pull=True)).eval()
    assert isinstance(model.decoder.colours, compact.EvenShuffle)
    assert not isinstance(Picme(config("cats", 128)).decoder.colours, compact.EvenShuffle)
    nn.init.normal_(model.decoder.colours.bias)
    hole = torch.zeros(1, 1, 256, 256)
    hole[..., 64:192, 64:192] = 1
    with torch.no_grad():
        encoding, mixture = model.encode(torch.rand(1, 3, 256, 256), hole)
        given = (mixture.mu[:, 0], encoding.z_m.mu, encoding.features, hole)
        before = model.decode(*given)[-1]
        after = fold(model).decode(*given)[-1]
    assert type(model.decoder.colours) is nn.Conv2d
    assert (before - after).abs().max() < 1e-5
    assert fold(model) is model  # folding twice changes nothing

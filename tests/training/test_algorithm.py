"""Algorithm 1: which loss reaches which weights, and what the sum is made of."""

import dataclasses

import pytest
import torch

from picme_training import discriminator, losses
from picme_training.algorithm import Noise, discriminator_loss, generator_pass, shifted
from picme_training.config import LossConfig, NetworkConfig
from picme_training.gaussians import kl, kl_to_standard
from picme_training.networks import Picme
from picme_training.perceptual import Lpips

B, P = 2, 3
QUIET = LossConfig(gmm=0, frequency=0, elbo=0, posterior=0, adversarial=0, decoded="best")


class Setting:
    """One network with its discriminator, a batch and its noise; `run` makes one pass."""

    def __init__(self, preset):
        torch.manual_seed(0)
        config = NetworkConfig(preset, 64, 1 if preset == "pic" else P)
        # in evaluation spectral norm iterates nothing, so that passes can be compared to the bit
        self.model = Picme(config).eval()
        self.judge = discriminator.make(config).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(1)
        self.image = 2 * torch.rand(B, 3, 64, 64, generator=generator) - 1
        self.hole = torch.zeros(B, 1, 64, 64)
        self.hole[0, :, 16:48, 16:48] = 1
        self.hole[1, :, :24, 8:40] = 1
        self.noise = Noise.draw(B, self.model.latent_dim, generator)

    def run(self, config=QUIET, **replaced):
        config = dataclasses.replace(config, **replaced)
        return generator_pass(
            self.model, self.judge, self.image, self.hole, self.noise, config, self.lpips(config)
        )

    def lpips(self, config):
        if config.perceptual == config.drawn == 0:
            return None
        torch.manual_seed(2)
        measure = Lpips()
        for lin in measure.lins:
            torch.nn.init.uniform_(lin)
        return measure.eval().requires_grad_(False)

    def gradients(self, config=QUIET, **replaced):
        """Gradients by name; None where nothing arrived."""
        self.model.zero_grad(set_to_none=True)
        self.run(config, **replaced).loss.backward()
        return {name: p.grad for name, p in self.model.named_parameters()}


@pytest.fixture(params=["cats", "picme"])
def setting(request):
    return Setting(request.param)


@pytest.fixture
def cats():
    return Setting("cats")


MIXTURE = ("latent.alpha.", "latent.mu.", "latent.log_sigma.")


def moved(one, other):
    """Names of the weights whose gradient differs at all."""
    return {
        name
        for name, grad in one.items()
        if not torch.equal(
            torch.zeros(()) if grad is None else grad,
            torch.zeros(()) if other[name] is None else other[name],
        )
    }


# Which loss reaches which weights


def test_l_bm_reaches_the_means_and_spreads_of_the_mixture_alone(setting):
    found = moved(setting.gradients(gmm=1), setting.gradients())
    heads = {".".join(name.split(".")[:2]) for name in found}
    assert heads == {"latent.mu", "latent.log_sigma"}


def test_l_f_reaches_the_mixing_coefficients_alone(setting):
    found = moved(setting.gradients(frequency=1), setting.gradients())
    assert found
    assert all(name.startswith("latent.alpha.") for name in found)


def test_no_other_loss_reaches_the_mixing_coefficients(setting):
    everything = setting.gradients(
        LossConfig(frequency=0, adversarial=1, perceptual=1, decoded="both")
    )
    for name, grad in everything.items():
        if name.startswith("latent.alpha."):
            assert grad is None or (grad == 0).all()


def test_l_c_reaches_the_mean_and_spread_of_the_best_primitive_alone(setting):
    made = setting.run(losers=0)
    d = setting.model.latent_dim
    grads = setting.gradients(losers=0)
    for head in ("mu", "log_sigma"):
        rows = grads[f"latent.{head}.2.bias"].view(P, d).abs().amax(1)
        for i in range(P):
            assert (rows[i] > 0) == (i in made.j.tolist())


@pytest.mark.parametrize("term", ["elbo", "posterior", "match"])
def test_the_kls_of_the_latents_reach_the_encoder_and_not_the_mixture(setting, term):
    found = moved(setting.gradients(**{term: 1}), setting.gradients())
    assert any(name.startswith("encoder.") for name in found)
    assert not any(name.startswith((*MIXTURE, "decoder.")) for name in found)


def test_l_c_reaches_the_encoder_the_latent_and_the_decoder(setting):
    grads = setting.gradients()
    for part in ("encoder.", "latent.trunk.", "latent.head.", "decoder."):
        assert any(g is not None and g.any() for n, g in grads.items() if n.startswith(part))


def test_the_mixture_that_is_sampled_passes_a_gradient_on_to_z_m_and_the_fitted_one_does_not():
    # Algorithm 1, line 8 against line 4
    setting, seen = Setting("picme"), []
    real = setting.model.latent.mixture
    setting.model.latent.mixture = lambda z: seen.append(z.requires_grad) or real(z)
    setting.run()
    assert seen == [False, True]


def test_the_adversarial_term_reaches_the_generator_and_leaves_d_without_gradient(setting):
    found = moved(setting.gradients(adversarial=1), setting.gradients())
    assert any(name.startswith("decoder.") for name in found)
    assert all(parameter.grad is None for parameter in setting.judge.parameters())


def test_the_discriminator_s_loss_reaches_d_and_not_the_generator(setting):
    made = setting.run()
    setting.model.zero_grad(set_to_none=True)
    setting.judge.requires_grad_(True)
    loss = discriminator_loss(setting.judge, setting.image, setting.hole, made.generated, QUIET)
    loss.backward()
    assert all(p.grad is not None for p in setting.judge.parameters())
    assert all(p.grad is None for p in setting.model.parameters())


def test_the_scores_of_the_originals_are_a_target_that_carries_no_gradient(cats):
    cats.image.requires_grad_()
    made = cats.run(adversarial=1)
    with_d = torch.autograd.grad(made.loss, cats.image)[0]

    class Cut:  # the same scores, those of the originals cut off by hand
        seen = cats.judge.seen

        def __call__(self, pictures, holes, seen):
            found = pictures if len(pictures) > B else pictures.detach()
            return cats.judge(found, holes, seen)

    cut = generator_pass(
        cats.model, Cut(), cats.image, cats.hole, cats.noise,
        dataclasses.replace(QUIET, adversarial=1),
    )  # fmt: skip
    torch.testing.assert_close(torch.autograd.grad(cut.loss, cats.image)[0], with_d)


# What is decoded


@pytest.mark.parametrize(("decoded", "ways"), [("best", 2), ("draw", 2), ("both", 3)])
def test_the_pass_decodes_the_reconstruction_and_what_it_is_told(setting, decoded, ways):
    made = setting.run(decoded=decoded)
    assert made.generated.shape == (ways * B, 3, 64, 64)
    assert not made.generated.requires_grad


def expected_picture(setting, z_c):
    """g(z_m, z_c) for the setting's noise, by hand."""
    model = setting.model
    encoding = model.encoding(model.features(setting.image, setting.hole), setting.hole)
    z_m = None if encoding.z_m is None else encoding.z_m.sample(setting.noise.z_m)
    return model.decode(z_c, z_m, encoding.features, setting.hole)[-1]


def test_the_reconstruction_is_decoded_from_a_sample_of_z_c_given_the_complement(setting):
    with torch.no_grad():
        f_c = setting.model.features(setting.image, 1 - setting.hole)
        z_c = setting.model.posterior(f_c).sample(setting.noise.z_c)
        found = setting.run().generated[:B]
        torch.testing.assert_close(found, expected_picture(setting, z_c), atol=1e-5, rtol=1e-4)


def test_best_is_decoded_from_the_primitive_nearest_to_z_c(setting):
    with torch.no_grad():
        model = setting.model
        _, mixture = model.encode(setting.image, setting.hole)
        target = model.posterior(model.features(setting.image, 1 - setting.hole))
        j = losses.best_primitive(losses.divergences(mixture, target, "reverse"))
        made = setting.run(decoded="best")
        assert torch.equal(made.j, j)
        expected = expected_picture(setting, mixture.primitive(j).sample(setting.noise.best))
        torch.testing.assert_close(made.generated[B:], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("choice", "drawn"), [(0.0, 0), (0.29, 0), (0.31, 1), (0.49, 1), (0.51, 2), (0.9999999, 2)]
)
def test_draw_picks_the_primitive_where_the_uniform_number_falls_in_alpha(cats, choice, drawn):
    with torch.no_grad():
        last = cats.model.latent.alpha[-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.3, 0.2, 0.5]).log())
        cats.noise = cats.noise._replace(choice=torch.full((B,), choice))
        _, mixture = cats.model.encode(cats.image, cats.hole)
        index = torch.full((B,), drawn)
        expected = expected_picture(cats, mixture.primitive(index).sample(cats.noise.drawn))
        found = cats.run(decoded="draw").generated[B:]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_primitive_without_probability_is_never_drawn(cats):
    with torch.no_grad():
        last = cats.model.latent.alpha[-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([-200.0, 0.0, -200.0]))
        _, mixture = cats.model.encode(cats.image, cats.hole)
        only = mixture.primitive(torch.ones(B, dtype=torch.int64)).sample(cats.noise.drawn)
        for choice in (0.0, 0.5, 1 - 2**-24):
            cats.noise = cats.noise._replace(choice=torch.full((B,), choice))
            found = cats.run(decoded="draw").generated[B:]
            torch.testing.assert_close(found, expected_picture(cats, only), atol=1e-5, rtol=1e-4)


def test_both_decodes_the_best_and_then_the_draw(setting):
    with torch.no_grad():
        both, best, draw = (setting.run(decoded=d).generated for d in ("both", "best", "draw"))
        torch.testing.assert_close(both[: 2 * B], best, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(both[2 * B :], draw[B:], atol=1e-5, rtol=1e-4)


def test_a_composite_keeps_the_known_pixels_to_the_bit_and_changes_nothing_in_the_hole(setting):
    with torch.no_grad():
        raw, pasted = (setting.run(composite=c).generated for c in (False, True))
    hole = setting.hole.repeat(2, 1, 1, 1) > 0
    original = setting.image.repeat(2, 1, 1, 1)
    assert torch.equal(pasted, torch.where(hole, raw, original))
    assert not torch.equal(raw, pasted)


def test_pixels_under_the_hole_reach_the_inferred_pictures_only_through_j(cats):
    with torch.no_grad():
        before = cats.run(decoded="draw").generated[B:]
        cats.image = torch.where(cats.hole > 0, -cats.image, cats.image)
        assert torch.equal(cats.run(decoded="draw").generated[B:], before)


# The sum


WEIGHTED = LossConfig(
    gmm=0.7,
    frequency=1.3,
    elbo=0.2,
    posterior=0.4,
    match=0.3,
    adversarial=0.05,
    perceptual=0.6,
    drawn=0.2,
    rim=0.8,
)


def test_the_loss_is_the_sum_of_weights_times_terms(setting):
    made = setting.run(WEIGHTED)
    kls = {"L_BM", "KL_c", "KL_m", "KL_match"}
    of_pictures = {"L1", "L1_known", "L1_rim", "L_A", "LPIPS", "LPIPS_drawn"}
    assert set(made.terms) == {"L_F", *kls, *of_pictures}
    t = {name: value.item() for name, value in made.terms.items()}
    expected = 1.3 * t["L_F"] + 0.7 * t["L_BM"] + 0.4 * t["KL_c"] + 0.2 * t["KL_m"]
    expected += t["L1"] + t["L1_known"] + 0.05 * t["L_A"] + 0.6 * t["LPIPS"]
    expected += 0.3 * t["KL_match"] + 0.8 * t["L1_rim"] + 0.2 * t["LPIPS_drawn"]
    assert made.loss.item() == pytest.approx(expected, rel=1e-5)
    assert not any(value.requires_grad for value in made.terms.values())


def test_the_terms_are_the_equations_on_the_pictures_of_the_pass(cats):
    made = cats.run(WEIGHTED, decoded="best")
    one, inferred = made.generated[:B], made.generated[B:]
    known = 1 - cats.hole
    f_c = cats.model.features(cats.image, 1 - cats.hole)
    f_m = cats.model.features(cats.image, cats.hole)[-1]
    _, mixture = cats.model.encode(cats.image, cats.hole)
    expected = {
        "L1": losses.reconstruction([one], cats.image),
        "L1_known": losses.known_reconstruction([inferred], cats.image, known),
        "L1_rim": losses.rim_reconstruction(inferred, cats.image, cats.hole),
        "L_A": losses.adversarial(
            *(cats.judge(i, cats.hole)[0] for i in (one, inferred, cats.image))
        ),
        "KL_c": kl_to_standard(cats.model.posterior(f_c)).mean(),
        "KL_m": kl_to_standard(cats.model.latent.gaussian(f_m)).mean(),
        "LPIPS": cats.lpips(WEIGHTED)(one, cats.image).mean(),
        "LPIPS_drawn": cats.lpips(WEIGHTED)(inferred, cats.image).mean(),
        "KL_match": kl(cats.model.posterior(f_c), mixture.primitive(made.j)).mean(),
    }
    for name, value in expected.items():
        assert made.terms[name].item() == pytest.approx(value.item(), rel=1e-4), name


@pytest.mark.parametrize(
    ("size", "push_pull", "composite", "looks"),
    [(64, False, False, 2), (64, False, True, 4), (128, True, True, 2)],
)
def test_one_look_serves_lpips_and_the_heads_of_d(
    cats, monkeypatch, size, push_pull, composite, looks
):
    config = NetworkConfig(
        "cats", size, P, judge_features=True, detail=push_pull, push_pull=push_pull
    )
    measure, taken = cats.lpips(WEIGHTED), []
    taps = measure.taps
    monkeypatch.setattr(measure, "taps", lambda *of: taken.append(of) or taps(*of))
    monkeypatch.setattr(cats, "lpips", lambda config: measure)
    cats.model = Picme(config).eval()
    cats.judge = discriminator.make(config, measure).eval().requires_grad_(False)
    cats.image, cats.hole = (
        torch.nn.functional.interpolate(x, size) for x in (cats.image, cats.hole)
    )
    made = cats.run(WEIGHTED, decoded="draw", composite=composite)
    assert len(taken) == looks
    seen = cats.judge.seen(torch.cat([cats.image, made.generated]))
    for found, expected in zip(made.seen, seen, strict=True):
        torch.testing.assert_close(found, expected)
    # LPIPS is that of g's own picture, composites or not
    plain = cats.run(WEIGHTED, decoded="draw", composite=False).generated[:B]
    torch.testing.assert_close(made.terms["LPIPS"], measure(plain, cats.image).mean())
    # and that of draws is of what D sees
    drawn = measure(made.generated[B:], cats.image).mean()
    torch.testing.assert_close(made.terms["LPIPS_drawn"], drawn)


@pytest.mark.parametrize(
    ("weight", "term"),
    [
        ("perceptual", "LPIPS"),
        ("drawn", "LPIPS_drawn"),
        ("match", "KL_match"),
        ("rim", "L1_rim"),
    ],
)
def test_an_extra_term_is_there_only_with_a_weight(setting, weight, term):
    assert term not in setting.run().terms
    assert setting.run(**{weight: 1}).terms[term] > 0


def test_pic_has_one_gaussian_and_no_z_m():
    made = Setting("pic").run(WEIGHTED, decoded="both")
    assert "KL_m" not in made.terms
    assert made.terms["L_F"].item() == 0
    assert made.j.tolist() == [0, 0]
    assert made.loss.isfinite()


def test_a_pass_is_a_function_of_its_noise(cats):
    one, two = cats.run(WEIGHTED), cats.run(WEIGHTED)
    assert torch.equal(one.loss, two.loss)
    cats.noise = Noise.draw(B, cats.model.latent_dim, torch.Generator().manual_seed(9))
    assert not torch.equal(cats.run(WEIGHTED).loss, one.loss)


def test_noise_repeats_by_its_generator():
    one, two = (Noise.draw(3, 5, torch.Generator().manual_seed(4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    normal = one[:4]
    assert all(part.shape == (3, 5) for part in normal)
    assert len({part[0, 0].item() for part in normal}) == 4
    assert ((one.choice >= 0) & (one.choice < 1)).all()


def test_a_pass_in_bf16_stays_near_fp32(cats):
    exact = cats.run(WEIGHTED)
    with torch.autocast("cpu", torch.bfloat16):
        half = cats.run(WEIGHTED)
    assert half.loss.dtype == torch.float32
    assert half.loss.item() == pytest.approx(exact.loss.item(), rel=0.05)


# What is judged is moved


def test_pictures_are_moved_each_by_its_own_draw_and_round_the_edge():
    pictures = torch.arange(2 * 2 * 36.0).view(4, 1, 6, 6)
    shift = torch.tensor([[0.0, 0.999], [0.5, 0.25]])
    noise = Noise(*torch.zeros(5, 2), shift)
    moved = shifted(pictures, noise, LossConfig(shift=3))
    for i, (down, right) in enumerate([(0, 3), (2, 1)] * 2):
        assert torch.equal(moved[i], pictures[i].roll((down, right), (1, 2)))
    assert shifted(pictures, noise, LossConfig()) is pictures


@pytest.mark.parametrize("shift", [1, 3])
def test_gradients_of_moved_pictures_are_moved_back(shift):
    random = torch.Generator().manual_seed(0)
    noise = Noise.draw(2, 4, random)
    pictures = torch.randn(6, 3, 5, 5, generator=random, dtype=torch.float64, requires_grad=True)
    config = LossConfig(shift=shift)
    assert torch.autograd.gradcheck(lambda x: shifted(x, noise, config), pictures)


def test_the_terms_see_moved_pictures_and_the_rest_does_not(cats):
    still, moved = cats.run(WEIGHTED), cats.run(WEIGHTED, shift=3)
    for name in still.terms:
        same = torch.equal(still.terms[name], moved.terms[name])
        assert same is (name not in ("L_A", "LPIPS", "LPIPS_drawn")), name
    ways = len(moved.generated) // B
    back = [
        one.roll([-int(4 * s) for s in cats.noise.shift[i % B]], (1, 2))
        for i, one in enumerate(moved.generated)
    ]
    assert ways > 1
    assert torch.equal(torch.stack(back), still.generated)

import hashlib
import math
import pathlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from picme_rt import sampling_ref as ref
from picme_rt.errors import UnavailableError
from picme_rt.kernels import native_is_built, sample_gmm

SPECIFICATION = pathlib.Path(__file__).parents[1] / "docs" / "sampling.md"
LAST_SEED = 2**64 - 1

# The documented case of docs/sampling.md, k=8, first=5: sha256 of z, little-endian.
GOLDEN_Z = {
    "categorical": "781d4e3831196b4de371e8687e438fd0f38d3c7cfde4f5e89092158203fdb6ff",
    "per_primitive": "fe3392cf37b70d249fdc33fa741f5a405f06fdc998c2a23462c2a2b9a9441f4b",
    "mean": "4132143432c8c553f6417fee6c0fe68be247322aeee0c52b5430299e863f63d6",
    "categorical, float16": "9c7ce6cd16fb943e1e26508a1f394569687451c1a220b6e244c0d49c744e1d96",
    "categorical, bfloat16": "74b3eaf5e2b112f390409bbc1134436087cdc1afbccb4f73ec0ae4d92338dc8e",
    "primitive 1 at temperature 0.5": (
        "4f53fb9cc92917828e515e4efb1e669527af4edd0e829011568a44f870e918ee"
    ),
}
GOLDEN_OPTIONS = {
    "categorical": {},
    "per_primitive": {"mode": "per_primitive"},
    "mean": {"mode": "mean"},
    "categorical, float16": {"dtype": "float16"},
    "categorical, bfloat16": {"dtype": "bfloat16"},
    "primitive 1 at temperature 0.5": {"primitive": 1, "temperature": 0.5},
}
GOLDEN_PRIMITIVES = {
    "categorical": [[2, 0, 2, 0, 2, 0, 0, 0], [1, 2, 2, 1, 2, 1, 0, 1]],
    "per_primitive": [[2, 0, 1, 2, 0, 1, 2, 0]] * 2,
    "mean": [[0] * 8] * 2,
    "primitive 1 at temperature 0.5": [[1] * 8] * 2,
}


def mixture(batch=2, primitives=5, dim=7, seed=0):
    """Return a random mixture and its seeds, the arrays that sample_gmm takes."""
    rng = np.random.default_rng([seed, batch, primitives, dim])
    log_alpha = np.log(rng.dirichlet(np.ones(primitives), batch)).astype(np.float32)
    mu, log_sigma = rng.normal(size=(2, batch, primitives, dim)).astype(np.float32)
    return log_alpha, mu, log_sigma, rng.integers(0, LAST_SEED, batch, np.uint64, endpoint=True)


def misaligned(array):
    """Return a copy that begins one byte beyond an aligned address."""
    room = np.zeros(array.nbytes + 1, np.uint8)
    room[1:] = np.frombuffer(array.tobytes(), np.uint8)
    copy = room[1:].view(array.dtype).reshape(array.shape)
    assert not copy.flags.aligned
    return copy


def standard_normal(seed, *, k, dim):
    """Return k latents of the standard normal mixture with one primitive."""
    zeros = np.zeros((1, 1, dim), np.float32)
    return sample_gmm(zeros[..., 0], zeros, zeros, np.array([seed], np.uint64), k=k)


def golden_arrays():
    b, p, d = np.ogrid[:2, :3, :257]
    log_alpha = np.broadcast_to(-(p[..., 0] + 1) / 4, (2, 3)).astype(np.float32)
    mu = (((7 * b + 3 * p + d) % 16) / 8 - 1).astype(np.float32)
    log_sigma = (-((5 * b + p + 3 * d) % 8) / 4).astype(np.float32)
    return log_alpha, mu, log_sigma, np.array([0, LAST_SEED], np.uint64)


def every_uniform(step=1):
    return ref.uniform(np.arange(0, 2**23, step, dtype=np.uint32) << np.uint32(9))


def ulps(value, truth):
    return np.max(np.abs(value - truth) / np.spacing(np.abs(truth).astype(np.float32)))


def assert_same(one, other):
    assert one.z.tobytes() == other.z.tobytes()
    assert (one.primitive == other.primitive).all()
    np.testing.assert_allclose(one.log_prob, other.log_prob, rtol=1e-5, atol=1e-6)


# The arithmetic


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    counter, key = ([np.array([int(w, 16)], np.uint64) for w in t.split()] for t in (counter, key))
    assert [f"{w:08x}" for w in ref.philox4x32_10(tuple(counter), tuple(key))[0]] == words.split()


def test_uniform_is_exact_and_never_0_or_1():
    u = every_uniform()
    assert (u.astype(np.float64) == (np.arange(2**23) + 0.5) / 2**23).all()
    assert u.min() == 2.0**-24
    assert u.max() == 1 - 2.0**-24
    assert (ref.uniform(np.array([511, 512], np.uint32)) == u[:2]).all()


def test_log_is_within_one_ulp_for_every_uniform():
    u = every_uniform()
    assert ulps(ref.log_poly(u), np.log(u.astype(np.float64))) < 1


def test_exp_is_within_one_ulp_between_its_ends():
    for end in (np.float32(88), np.float32(-104)):
        bits = np.arange(0, end.view(np.uint32) & 0x7FFFFFFF, 499, dtype=np.uint32)
        x = np.append(np.copysign(bits.view(np.float32), end), end)
        assert ulps(ref.exp_poly(x), np.exp(x.astype(np.float64))) < 1


def test_exp_takes_the_nearer_end_outside_its_range():
    inside = ref.exp_poly(np.array([88, 88, -104, -104], np.float32))
    assert (ref.exp_poly(np.array([89, np.inf, -105, -np.inf], np.float32)) == inside).all()
    assert inside[2] == 0
    assert ref.exp_poly(np.zeros(1, np.float32)) == 1


def test_sine_and_cosine_are_within_7e_8_for_every_uniform():
    u = every_uniform()
    angle = 2 * np.pi * u.astype(np.float64)
    sine, cosine = ref.sincos_poly(u)
    assert np.abs(sine - np.sin(angle)).max() < 7e-8
    assert np.abs(cosine - np.cos(angle)).max() < 7e-8


# The compiled kernel is the reference


def test_the_compiled_kernels_are_built():
    assert native_is_built()


@pytest.mark.parametrize("dim", [1, 3, 4, 5, 257])
@pytest.mark.parametrize("primitives", range(1, 13))
def test_native_equals_reference_to_the_bit(primitives, dim):
    arrays = mixture(3, primitives, dim)
    arrays[3][-1] = LAST_SEED
    for options in (
        {"k": 1},
        {"k": 7, "first": 3},
        {"k": 5, "first": 2**32 - 5},
        {"k": 4, "temperature": 0},
        {"k": 4, "temperature": 0.7},
        {"k": 4, "temperature": 1e3, "primitive": primitives - 1},
        {"k": 15, "first": 1, "mode": "per_primitive"},
        {"k": 2, "mode": "mean"},
    ):
        assert_same(
            sample_gmm(*arrays, impl="native", **options),
            sample_gmm(*arrays, impl="ref", **options),
        )


def test_native_equals_reference_at_the_ends_of_every_range():
    log_alpha, mu, log_sigma, seeds = mixture(4, 6, 33)
    log_alpha = log_alpha * np.float32(30)
    log_alpha[:, 2] = -np.inf
    mu = mu * np.float32(1e30)
    log_sigma = np.clip(log_sigma * 60, -200, 200).astype(np.float32)
    arrays = (log_alpha, mu, log_sigma, seeds)
    for temperature in (0.0, 1.0, 3e38):
        options = {"k": 9, "temperature": temperature}
        native = sample_gmm(*arrays, impl="native", **options)
        assert_same(native, sample_gmm(*arrays, impl="ref", **options))
        assert not np.isnan(native.log_prob).any()


@pytest.mark.parametrize("impl", ["ref", "native"])
@pytest.mark.parametrize("case", GOLDEN_Z)
def test_the_documented_case_has_its_golden_hashes(case, impl):
    done = sample_gmm(*golden_arrays(), k=8, first=5, impl=impl, **GOLDEN_OPTIONS[case])
    little_endian = done.z.astype(done.z.dtype.newbyteorder("<"))
    assert hashlib.sha256(little_endian.tobytes()).hexdigest() == GOLDEN_Z[case]
    assert done.primitive.tolist() == GOLDEN_PRIMITIVES[case.split(",")[0]]


def test_the_specification_states_the_golden_hashes_and_every_coefficient():
    text = SPECIFICATION.read_text(encoding="utf-8")
    tables = (
        ref.LOG_COEFFICIENTS,
        ref.EXP_COEFFICIENTS,
        ref.SIN_COEFFICIENTS,
        ref.COS_COEFFICIENTS,
        (ref.LOG2_E, ref.LN2_HIGH, ref.LN2_LOW),
    )
    for coefficient in (c for table in tables for c in table):
        assert f"{coefficient.view(np.uint32):08x}" in text
    for golden in GOLDEN_Z.values():
        assert golden in text


def test_the_specification_measures_the_errors_it_states(capsys):
    parts = SPECIFICATION.read_text(encoding="utf-8").split("```")
    code = next(part for part in parts if part.startswith("python\n"))
    stated = next(part for part in parts if part.startswith("text\n"))
    exec(code.removeprefix("python\n"), {})
    assert capsys.readouterr().out == stated.removeprefix("text\n")


def test_auto_takes_the_compiled_kernel_and_else_the_reference(monkeypatch):
    arrays = mixture()
    built = sample_gmm(*arrays, k=3)
    monkeypatch.setitem(sys.modules, "picme_rt._kernels", None)
    assert not native_is_built()
    assert_same(sample_gmm(*arrays, k=3), built)
    with pytest.raises(UnavailableError, match=r"not built: run `pip install \.`"):
        sample_gmm(*arrays, k=3, impl="native")


def test_importing_the_face_loads_no_compiled_module():
    code = "import sys, picme_rt.kernels; sys.exit('picme_rt._kernels' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Sample i is a function of the mixture, the seed and i alone


@pytest.mark.parametrize("impl", ["ref", "native"])
@pytest.mark.parametrize("mode", ["categorical", "per_primitive", "mean"])
def test_a_sample_depends_on_seed_and_index_alone(mode, impl):
    arrays = mixture(3, 4, 9)
    ten = sample_gmm(*arrays, k=10, mode=mode, impl=impl)
    part = sample_gmm(*arrays, k=3, first=6, mode=mode, impl=impl)
    alone = sample_gmm(*(a[1:2] for a in arrays), k=10, mode=mode, impl=impl)
    for whole, some, one in zip(ten, part, alone, strict=True):
        assert (whole[:, 6:9] == some).all()
        assert (whole[1:2] == one).all()


def test_samples_of_many_threads_are_those_of_one():
    arrays = mixture(2, 6, 300)
    expected = sample_gmm(*arrays, k=12)
    with ThreadPoolExecutor(4) as pool:
        for done in pool.map(lambda _: sample_gmm(*arrays, k=12), range(16)):
            assert_same(done, expected)


def test_every_bit_of_the_seed_matters():
    seeds = np.array([0, *(1 << np.arange(64, dtype=np.uint64))], np.uint64)
    zeros = np.zeros((65, 1, 4), np.float32)
    z = sample_gmm(zeros[..., 0], zeros, zeros, seeds, k=1).z
    assert len({row.tobytes() for row in z}) == 65


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_arrays_of_any_layout_are_read_as_they_are(impl):
    arrays = mixture()
    strided = [np.asfortranarray(np.repeat(a, 2, axis=-1))[..., ::2] for a in arrays[:3]]
    seeds = np.repeat(arrays[3], 2)[::2]
    done = sample_gmm(*strided, seeds, k=3, impl=impl)
    assert_same(done, sample_gmm(*arrays, k=3, impl=impl))
    shifted = [misaligned(a) for a in arrays]
    assert_same(sample_gmm(*shifted, k=3, impl=impl), done)
    for array in arrays:
        array.flags.writeable = False
    assert_same(sample_gmm(*arrays, k=3, impl=impl), done)


# Modes and temperature


def test_per_primitive_takes_the_primitives_in_turn():
    done = sample_gmm(*mixture(2, 3), k=5, first=1, mode="per_primitive")
    assert done.primitive.tolist() == [[1, 2, 0, 1, 2]] * 2
    assert done.primitive.dtype == np.int32


def test_mean_is_the_mean_of_the_heaviest_primitive_the_first_on_ties():
    _, mu, log_sigma, seeds = mixture(2, 3)
    log_alpha = np.log(np.array([[0.25, 0.5, 0.25], [0.4, 0.2, 0.4]])).astype(np.float32)
    done = sample_gmm(log_alpha, mu, log_sigma, seeds, k=2, mode="mean", temperature=5)
    assert done.primitive.tolist() == [[1, 1], [0, 0]]
    assert (done.z == mu[[0, 1], [1, 0]][:, None]).all()


def test_a_fixed_primitive_is_taken_with_the_noise_of_the_drawn_one():
    log_alpha, mu, log_sigma, seeds = mixture(1, 3)
    drawn = sample_gmm(log_alpha, mu, log_sigma, seeds, k=20)
    for p in range(3):
        fixed = sample_gmm(log_alpha, mu, log_sigma, seeds, k=20, primitive=p)
        assert (fixed.primitive == p).all()
        assert (fixed.z[drawn.primitive == p] == drawn.z[drawn.primitive == p]).all()


def test_temperature_scales_the_noise_and_leaves_the_primitives():
    log_alpha, mu, log_sigma, seeds = mixture(1, 4, 50)
    one, half, none = (
        sample_gmm(log_alpha, mu, log_sigma, seeds, k=9, temperature=t) for t in (1, 0.5, 0)
    )
    means = mu[0, one.primitive]
    assert (one.primitive == half.primitive).all()
    assert (none.z == means).all()
    np.testing.assert_allclose(half.z - means, (one.z - means) / 2, atol=1e-6)


# Statistics


def test_the_noise_is_standard_normal():
    z = np.sort(standard_normal(7, k=128, dim=1024).z.ravel().astype(np.float64))
    n = z.size
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    cumulated = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])
    distance = np.abs(cumulated - (np.arange(n) + 0.5) / n).max()
    assert distance < 1.95 / math.sqrt(n)  # Kolmogorov and Smirnov, 0.1 %


def test_channels_samples_and_seeds_are_uncorrelated():
    one, other = (standard_normal(seed, k=512, dim=256).z[0] for seed in (1, 2))
    limit = 5 / math.sqrt(one.size)
    for left, right in (
        (one[:, :-1], one[:, 1:]),
        (one[:, 0::2] ** 2 - 1, one[:, 1::2] ** 2 - 1),
        (one[:-1], one[1:]),
        (one, other),
    ):
        assert abs((left * right).mean()) < limit * left.std() * right.std() * 1.5


def test_primitives_are_drawn_by_weight():
    alpha = np.array([0.05, 0.5, 0.0, 0.15, 0.3, 0.0])
    log_alpha = np.log(np.maximum(alpha, 1e-300))[None].astype(np.float32)
    log_alpha[0, alpha == 0] = -np.inf
    zeros = np.zeros((1, 6, 1), np.float32)
    n = 40_000
    for shift in (0, 30, -30):  # weights need not be normalised
        arrays = (log_alpha + np.float32(shift), zeros, zeros, np.array([3], np.uint64))
        count = np.bincount(sample_gmm(*arrays, k=n).primitive[0], minlength=6)
        assert (count[alpha == 0] == 0).all()
        expected = n * alpha[alpha > 0]
        chi_square = ((count[alpha > 0] - expected) ** 2 / expected).sum()
        assert chi_square < 16.27  # 3 degrees of freedom, 0.1 %


# log_prob


@pytest.mark.parametrize("impl", ["ref", "native"])
@pytest.mark.parametrize("temperature", [0, 0.5, 1, 2])
def test_log_prob_is_the_density_of_the_mixture_at_temperature_1(temperature, impl):
    log_alpha, mu, log_sigma, seeds = mixture(3, 4, 3)
    done = sample_gmm(
        log_alpha + np.float32(2), mu, log_sigma, seeds, k=6, temperature=temperature, impl=impl
    )
    alpha = np.exp(log_alpha.astype(np.float64))
    alpha /= alpha.sum(axis=1, keepdims=True)
    sigma = np.exp(log_sigma.astype(np.float64))[:, None]
    score = (done.z[:, :, None].astype(np.float64) - mu[:, None]) / sigma
    density = np.prod(np.exp(-(score**2) / 2) / (sigma * math.sqrt(2 * math.pi)), axis=-1)
    truth = np.log((alpha[:, None] * density).sum(axis=-1))
    np.testing.assert_allclose(done.log_prob, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", ["ref", "native"])
@pytest.mark.parametrize("dim", [1, 16, 65, 1500])
def test_log_prob_is_that_of_a_torch_mixture(dim, impl):
    log_alpha, mu, log_sigma, seeds = mixture(2, 5, dim)
    log_alpha[:, 3] = -np.inf  # a dead primitive
    done = sample_gmm(log_alpha, mu, log_sigma, seeds, k=7, impl=impl)
    weight, mean, log_std, z = (
        torch.from_numpy(a).double() for a in (log_alpha, mu, log_sigma, done.z)
    )
    torch_mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=weight[:, None]),
        torch.distributions.Independent(
            torch.distributions.Normal(mean[:, None], log_std[:, None].exp()), 1
        ),
    )
    truth = torch_mixture.log_prob(z).numpy()
    np.testing.assert_allclose(done.log_prob, truth, rtol=1e-5, atol=1e-5)


def test_log_prob_survives_densities_beyond_float64():
    log_alpha, mu, log_sigma, seeds = mixture(1, 3, 5000)
    done = sample_gmm(log_alpha, mu, log_sigma, seeds, k=2)
    assert np.isfinite(done.log_prob).all()
    assert (done.log_prob < -1000).all()


def test_the_build_says_what_it_was_built_for():
    from picme_rt import _kernels

    with_cuda = hasattr(_kernels, "sample_gmm_cuda")
    said = r"CPU and CUDA( sm_\d+)+" if with_cuda else r"CPU only \(.+\)"
    assert re.fullmatch(said, _kernels.built_for)

"""The sampler's reference in NumPy: short, and the same bits as the compiled kernel.

NumPy never fuses a multiplication with an addition, so every line below is one float32 rounding per
operator, in the order in which it is written. docs/sampling.md is the specification in words.
"""

import math

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Latents = F32 | npt.NDArray[np.float16] | npt.NDArray[np.uint16]

PLACE = 0  # counter word 0 of the latent vector; `normal` takes others for noise maps

_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_PHILOX_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_PHILOX_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)

LOG2_E = np.float32(1.44269502)
LN2_HIGH = np.float32(0.693359375)  # nine bits: times an integer below 2**15 it is exact
LN2_LOW = np.float32(-2.12194442e-4)  # ln 2 - LN2_HIGH
EXP_RANGE = np.float32(-104.0), np.float32(88.0)

# Own minimax fits, rounded to float32; highest power first, as Horner's rule takes them.
LOG_COEFFICIENTS = tuple(
    np.float32(c)
    for c in (
        -0.07636439055204391,
        0.12762217223644257,
        -0.13159610331058502,
        0.14201579988002777,
        -0.166234090924263,
        0.2000124156475067,
        -0.2500081956386566,
        0.3333333134651184,
    )
)
EXP_COEFFICIENTS = tuple(
    np.float32(c)
    for c in (
        0.0013818697771057487,
        0.008368715643882751,
        0.04166829213500023,
        0.1666652113199234,
        0.4999999403953552,
    )
)
SIN_COEFFICIENTS = tuple(
    np.float32(c)
    for c in (-0.004554165527224541, 0.07965986430644989, -0.6459610462188721, 1.570796251296997)
)
COS_COEFFICIENTS = tuple(
    np.float32(c)
    for c in (0.0008935576770454645, -0.02085525169968605, 0.25366851687431335, -1.2337005138397217)
)


def philox4x32_10(counter: tuple[U64, U64, U64, U64], key: tuple[U64, U64]) -> U32:
    """Ten rounds of Philox4x32, the counter-based generator of Random123 (Salmon et al., 2011).

    Args:
        counter: four arrays that broadcast together to shape S; values below 2**32.
        key: two arrays that broadcast to S; values below 2**32.

    Returns:
        Array S + (4,), uint32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _PHILOX_MULTIPLIERS[0] * c0, _PHILOX_MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> _WORD) ^ c1 ^ k0, p1 & _LOW, (p0 >> _WORD) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _PHILOX_WEYL[0]) & _LOW, (k1 + _PHILOX_WEYL[1]) & _LOW
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def uniform(words: U32) -> F32:
    """Numbers inside (0, 1), never 0 or 1: ((x >> 9) + 0.5) / 2**23, exact in float32."""
    return ((words >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)


def log_poly(x: F32) -> F32:
    """Natural logarithm of positive normal float32 numbers.

    x = m * 2**e with m in [sqrt(1/2), sqrt(2)); f = m - 1;
    log x = f - f*f/2 + f**3 * P(f) + e * ln 2.
    """
    bits = x.view(np.uint32) + np.uint32(0x3F800000 - 0x3F3504F3)  # sqrt(1/2) moves to 1.0
    e = (bits >> np.uint32(23)).astype(np.float32) - np.float32(127.0)
    m = ((bits & np.uint32(0x007FFFFF)) + np.uint32(0x3F3504F3)).view(np.float32)
    f = m - np.float32(1.0)
    square = f * f
    tail = (f * square) * _horner(LOG_COEFFICIENTS, f)
    tail = tail + e * LN2_LOW
    tail = tail - np.float32(0.5) * square
    return (f + tail) + e * LN2_HIGH


def exp_poly(x: F32) -> F32:
    """Exponential; arguments outside [-104, 88] are taken as the nearer end.

    exp x = 2**n * (1 + r + r*r * P(r)) with n = floor(x / ln 2 + 1/2) and r = x - n * ln 2.
    """
    x = np.minimum(np.maximum(x, EXP_RANGE[0]), EXP_RANGE[1])
    n = np.floor(x * LOG2_E + np.float32(0.5))
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    y = (r * r) * _horner(EXP_COEFFICIENTS, r)
    y = (y + r) + np.float32(1.0)
    whole = n.astype(np.int32)
    half = whole >> np.int32(1)  # 2**n in two steps: only the second can round, below 2**-126
    result: F32 = (y * _power_of_two(half)) * _power_of_two(whole - half)
    return result


def sincos_poly(u: F32) -> tuple[F32, F32]:
    """Sine and cosine of 2*pi*u, for u in (0, 1) as `uniform` makes them.

    q = floor(4*u + 1/2) is the quadrant and f = 4*u - q, exact, in [-1/2, 1/2];
    sin(pi/2 f) = f * S(f*f), cos(pi/2 f) = 1 + f*f * C(f*f).
    """
    quarters = np.float32(4.0) * u
    q = np.floor(quarters + np.float32(0.5))
    f = quarters - q
    square = f * f
    sine = f * _horner(SIN_COEFFICIENTS, square)
    cosine = np.float32(1.0) + square * _horner(COS_COEFFICIENTS, square)
    quadrant = q.astype(np.int32) & np.int32(3)
    odd = (quadrant & np.int32(1)) == 1
    s, c = np.where(odd, cosine, sine), np.where(odd, sine, cosine)
    s = np.where(quadrant >= 2, -s, s)
    c = np.where((quadrant == 1) | (quadrant == 2), -c, c)
    return s, c


def normals(counter_words: U32) -> F32:
    """Standard normal numbers by Box and Muller: four words (..., 4) uint32 -> (..., 4) float32.

    Words 0 and 1 give numbers 0 (cosine) and 1 (sine), words 2 and 3 give numbers 2 and 3.
    """
    u = uniform(counter_words)
    radius = np.sqrt(np.float32(-2.0) * log_poly(u[..., 0::2]))
    s, c = sincos_poly(u[..., 1::2])
    return np.stack([radius * c, radius * s], axis=-1).reshape(u.shape)


def cumulated(log_alpha: F32) -> F32:
    """Weights (B, P) summed from primitive 0 on, one after another; infinite beyond float32."""
    with np.errstate(over="ignore"):
        sums: F32 = np.cumsum(exp_poly(log_alpha), axis=1, dtype=np.float32)
    return sums


def sample_gmm_ref(
    log_alpha: F32,
    mu: F32,
    log_sigma: F32,
    seeds: U64,
    *,
    k: int,
    first: int,
    mode: str,
    primitive: int | None,
    temperature: float,
    dtype: str = "float32",
    log_prob: bool = True,
) -> tuple[Latents, I32, F32 | None]:
    """`picme_rt.kernels.sample_gmm` on checked arguments; returns z, primitive and log_prob."""
    batch, _, dim = mu.shape
    index = np.uint64(first) + np.arange(k, dtype=np.uint64)

    if mode == "mean":
        chosen = np.broadcast_to(log_alpha.argmax(axis=1)[:, None], (batch, k))
    elif mode == "per_primitive":
        chosen = np.broadcast_to((index % np.uint64(mu.shape[1])).astype(np.int64), (batch, k))
    elif primitive is not None:
        chosen = np.full((batch, k), primitive)
    else:
        zero, place = np.zeros(1, np.uint64), np.full(1, PLACE, np.uint64)
        key = (seeds & _LOW)[:, None], (seeds >> _WORD)[:, None]
        draw = philox4x32_10((place, zero, index, zero), key)[..., 0]
        chosen = _choose(log_alpha, uniform(draw))

    row = np.arange(batch)[:, None]
    z = mu[row, chosen]
    if mode != "mean":
        eps = normal_ref(seeds, dim, k=k, first=first, place=PLACE)
        with np.errstate(over="ignore"):
            z = z + (np.float32(temperature) * exp_poly(log_sigma[row, chosen])) * eps
    density = _log_prob(z, log_alpha, mu, log_sigma) if log_prob else None
    return _rounded(z, dtype), chosen.astype(np.int32), density


def normal_ref(seeds: U64, size: int, *, k: int, first: int, place: int) -> F32:
    """`picme_rt.kernels.normal` on checked arguments, each map flat: (B, k, size)."""
    index = (np.uint64(first) + np.arange(k, dtype=np.uint64))[:, None]
    quad = np.arange((size + 3) // 4, dtype=np.uint64)
    counter = np.full(1, place, np.uint64), quad + np.uint64(1), index, np.zeros(1, np.uint64)
    key = (seeds & _LOW)[:, None, None], (seeds >> _WORD)[:, None, None]
    eps = normals(philox4x32_10(counter, key))
    return eps.reshape(seeds.size, k, 4 * quad.size)[..., :size]


def _rounded(z: F32, dtype: str) -> Latents:
    """To nearest, ties to even; bfloat16 as its bits, for NumPy has no such type. z is no NaN."""
    if dtype == "float32":
        return z
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return z.astype(np.float16)
    bits = z.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + (np.uint32(0x7FFF) + odd)) >> np.uint32(16)).astype(np.uint16)


def _horner(coefficients: tuple[np.float32, ...], x: F32) -> F32:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _power_of_two(n: I32) -> F32:
    return ((n + np.int32(127)) << np.int32(23)).view(np.float32)


def _choose(log_alpha: F32, u: F32) -> npt.NDArray[np.int64]:
    """Primitives (B, k): how many of the cumulated weights are at or below u * total."""
    sums = cumulated(log_alpha)
    threshold = u * sums[:, -1:]
    count = (sums[:, None, :] <= threshold[:, :, None]).sum(axis=-1)
    chosen: npt.NDArray[np.int64] = np.minimum(count, log_alpha.shape[1] - 1)
    return chosen


def _log_prob(z: F32, log_alpha: F32, mu: F32, log_sigma: F32) -> F32:
    """Eq. 3: the log of the mixture's density at z (B, k, D), at temperature 1, in float64."""
    log_weight = log_alpha.astype(np.float64)
    log_weight -= _logsumexp(log_weight, axis=1)[:, None]
    log_std = np.clip(log_sigma, *EXP_RANGE).astype(np.float64)
    constant = log_weight - log_std.sum(axis=-1) - 0.5 * mu.shape[2] * math.log(2.0 * math.pi)
    terms = np.empty((mu.shape[1], *z.shape[:2]))
    for p in range(mu.shape[1]):  # one primitive at a time: B * k * D numbers, not P times that
        distance = (z.astype(np.float64) - mu[:, None, p]) * np.exp(-log_std[:, None, p])
        terms[p] = constant[:, p, None] - 0.5 * (distance * distance).sum(axis=-1)
    with np.errstate(over="ignore"):
        return _logsumexp(terms, axis=0).astype(np.float32)


def _logsumexp(x: F64, axis: int) -> F64:
    top = x.max(axis=axis, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):  # the log of 0 is -inf: a z beyond float32 has no density
        total: F64 = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return total.squeeze(axis=axis)

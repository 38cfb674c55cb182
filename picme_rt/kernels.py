"""The compiled kernels' Python face: latents from the Gaussian mixture of PICME, and noise maps.

`picme_rt._kernels` is the compiled module; every kernel also has a reference in NumPy that gives
the same result without it. docs/sampling.md specifies the sampler. `composite` has a face of its
own, composite_kernel.py.
"""

import math
import numbers
import sys
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from picme_rt import compiled
from picme_rt.compiled import Impl as Impl
from picme_rt.compiled import check_integer as check_integer
from picme_rt.composite_kernel import composite as composite
from picme_rt.errors import InputError
from picme_rt.sampling_ref import Latents
from picme_rt.sampling_ref import cumulated as _cumulated
from picme_rt.sampling_ref import normal_ref as _normal_ref
from picme_rt.sampling_ref import sample_gmm_ref as _sample_gmm_ref

Mode = Literal["categorical", "per_primitive", "mean"]
LatentType = Literal["float32", "float16", "bfloat16"]

Number = TypeVar("Number", np.float32, np.uint64)

_MODES = ("categorical", "per_primitive", "mean")
_LATENT_TYPES = ("float32", "float16", "bfloat16")
_LOG_ALPHA_LIMIT = 80.0  # exp(80) times 6,141 primitives is still a float32
_MOST_NUMBERS = 4 * (2**32 - 1)  # of one index: counter word 1 numbers quads from 1 on
_FLOAT32, _UINT64 = np.dtype(np.float32), np.dtype(np.uint64)
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_new = tuple.__new__  # GmmSample(*parts) would go by way of a Python function


class GmmSample(NamedTuple):
    """Latents of B images, k each.

    Attributes:
        z: (B, k, D), the latents: float32, float16, or the bits of bfloat16 as uint16.
        primitive: (B, k) int32, the primitive of the mixture that each came from.
        log_prob: (B, k) float32, log density of each z under the mixture at temperature 1; None
            where it was not asked for.
    """

    z: Latents
    primitive: npt.NDArray[np.int32]
    log_prob: npt.NDArray[np.float32] | None


def sample_gmm(
    log_alpha: npt.NDArray[np.float32],
    mu: npt.NDArray[np.float32],
    log_sigma: npt.NDArray[np.float32],
    seeds: npt.NDArray[np.uint64],
    *,
    k: int,
    first: int = 0,
    mode: Mode = "categorical",
    primitive: int | None = None,
    temperature: float = 1.0,
    dtype: LatentType = "float32",
    log_prob: bool = True,
    impl: Impl = "auto",
    threads: int | None = None,
) -> GmmSample:
    """Draw k latents an image from its mixture of P diagonal Gaussians (PICME, Eq. 3).

    Sample i of an image is a function of its mixture, its seed and i alone, to the bit: never of k,
    the batch, the threads or the implementation. So `k=3, first=6` gives the samples 6, 7 and 8.

    Args:
        log_alpha: (B, P) float32, log weight of each primitive. It need not be normalised; the
            largest of a row lies in [-80, 80], and the sum of its weights is a float32, which
            more than 6,141 primitives may exceed; -inf is a primitive that is never drawn.
        mu: (B, P, D) float32, finite means.
        log_sigma: (B, P, D) float32, finite log standard deviations, taken as the nearer end
            outside [-104, 88].
        seeds: (B,) uint64, one seed an image. B may be 0.
        k: samples an image, at least 1.
        first: index of the first sample; first + k is at most 2**32.
        mode: "categorical" draws the primitive by weight, "per_primitive" takes primitive i mod P
            for sample i, "mean" returns the mean of the heaviest primitive, k times.
        primitive: takes this primitive for every sample; only with mode "categorical".
        temperature: factor T >= 0 on sigma, rounded to float32; the weights stay as they are.
        dtype: of z, rounded to nearest, ties to even. "bfloat16" gives its bits as uint16, for
            NumPy has no such type: `torch.from_numpy(z).view(torch.bfloat16)`.
        log_prob: whether it is wanted; without it a call takes half the time or less.
        impl: "native" is the compiled kernel, "ref" the NumPy reference, "auto" the compiled kernel
            where `native_is_built()`, else the reference. z and primitive are equal to the bit,
            log_prob to a relative 1e-5.
        threads: of the compiled kernel, 1 to 1024, of which no more than B * k are taken; None
            takes one where there is little work, and up to one a processor where there is much.

    Returns:
        GmmSample(z, primitive, log_prob); z = mu + (T * sigma) * eps, and log_prob is
        log sum_p alpha_p N(z; mu_p, sigma_p) of the z before it was rounded to `dtype`, whatever
        the mode and the temperature.

    Raises:
        InputError: an argument is not as above; dtypes are never converted.
        UnavailableError: impl is "native" and the compiled kernels are not built.
    """
    plain = getattr(sys.modules.get(compiled.NAME), "sample_gmm_plain", None)
    if plain is not None:  # it takes what needs neither a conversion nor a message
        usual = plain(
            log_alpha,
            mu,
            log_sigma,
            seeds,
            k,
            first,
            mode,
            primitive,
            temperature,
            dtype,
            log_prob,
            impl,
            threads,
        )
        if usual is not None:
            return _new(GmmSample, usual)
    _check_shapes(log_alpha, mu, log_sigma, seeds)
    k, first, primitive = check_options(
        log_alpha.shape[1],
        k=k,
        first=first,
        mode=mode,
        primitive=primitive,
        temperature=temperature,
    )
    if dtype not in _LATENT_TYPES:
        raise InputError(f"dtype must be one of {', '.join(_LATENT_TYPES)}, got {dtype!r}")
    module, count = compiled.find(impl), compiled.thread_count(threads)
    if module is None:
        _check_values(log_alpha, mu, log_sigma)
        sample = _sample_gmm_ref(
            log_alpha,
            mu,
            log_sigma,
            seeds,
            k=k,
            first=first,
            mode=mode,
            primitive=primitive,
            temperature=temperature,
            dtype=dtype,
            log_prob=log_prob,
        )
    else:
        sample = module.sample_gmm(
            _plain(log_alpha),
            _plain(mu),
            _plain(log_sigma),
            _plain(seeds),
            *(k, first, mode, primitive, temperature),
            *(dtype, log_prob, count),
        )
        if sample is None:
            _check_values(log_alpha, mu, log_sigma)  # raises, and says what is wrong
    return GmmSample(*sample)


def normal(
    seeds: npt.NDArray[np.uint64],
    shape: tuple[int, ...],
    *,
    k: int,
    first: int = 0,
    place: int = 1,
    impl: Impl = "auto",
    threads: int | None = None,
) -> npt.NDArray[np.float32]:
    """Draw k maps an image of independent standard normal numbers, for a network's noise inputs.

    Map i of an image is a function of its seed, `place` and i alone, to the bit, as in
    `sample_gmm`; the flat position in the map numbers its channels.

    Args:
        seeds: (B,) uint64, one seed an image. B may be 0.
        shape: of one map, in C order; it may hold a 0, and () is a single number.
        k: maps an image, at least 1.
        first: index of the first map; first + k is at most 2**32.
        place: numbers the noise maps of a network, such as the scales of a pyramid, 0 to 2**32 - 1.
            0 is the noise of `sample_gmm` with the same seed: take 1 and more beside it.
        impl: as in `sample_gmm`; equal to the bit.
        threads: as in `sample_gmm`.

    Returns:
        (B, k, *shape) float32.

    Raises:
        InputError: an argument is not as above.
        UnavailableError: impl is "native" and the compiled kernels are not built.
    """
    keys = _array("seeds", seeds, _UINT64, "B")
    shape = tuple(check_integer("each of shape", side, 0, _MOST_NUMBERS) for side in shape)
    size = math.prod(shape)
    if size > _MOST_NUMBERS:
        raise InputError(f"shape must hold at most {_MOST_NUMBERS} numbers, got {shape}")
    k, first = _check_indices(k, first)
    place = check_integer("place", place, 0, 2**32 - 1)
    module, count = compiled.find(impl), compiled.thread_count(threads)
    if module is None:
        eps = _normal_ref(seeds, size, k=k, first=first, place=place)
    else:
        eps = module.normal(_plain(seeds), size, k=k, first=first, place=place, threads=count)
    return eps.reshape(keys.size, k, *shape)


def check_options(
    primitives: int,
    *,
    k: int,
    first: int,
    mode: str,
    primitive: int | None,
    temperature: float,
) -> tuple[int, int, int | None]:
    """Refuses what `sample_gmm` would refuse of its options; gives k, first and primitive as int.

    Args:
        primitives: P of the mixture.
        k: as in `sample_gmm`, and so are the others.
        first: index of the first sample.
        mode: how the primitive is chosen.
        primitive: a fixed primitive.
        temperature: factor on sigma.

    Raises:
        InputError: an option is not as `sample_gmm` says.
    """
    k, first = _check_indices(k, first)
    if not isinstance(mode, str) or mode not in _MODES:
        raise InputError(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
    if primitive is not None:
        primitive = check_integer("primitive", primitive, 0, primitives - 1)
        if mode != "categorical":
            raise InputError(
                f"primitive must be None with mode {mode!r}, got {primitive}: "
                "leave it out, or use mode 'categorical'"
            )
    if not (isinstance(temperature, (float, numbers.Real)) and 0.0 <= temperature <= _FLOAT32_MAX):
        raise InputError(
            f"temperature must be a finite number of at least 0, got {temperature!r}: "
            "1 samples the mixture, 0 gives the means"
        )
    return k, first, primitive


def native_is_built() -> bool:
    """Whether the compiled kernels are here; impl="auto" takes them when they are."""
    return compiled.find("auto") is not None


def cuda_is_built() -> bool:
    """Whether the compiled kernels are here and hold those for a GPU; not whether one is here."""
    return hasattr(compiled.find("auto"), "sample_gmm_cuda")


def _check_indices(k: int, first: int) -> tuple[int, int]:
    k = check_integer("k", k, 1, 2**32)
    first = check_integer("first", first, 0, 2**32 - 1)
    if first + k > 2**32:
        raise InputError(
            f"first + k must be at most 2**32, got {first + k}: use another seed to draw more"
        )
    return k, first


def _plain(array: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Contiguous and aligned: itself if it is, else a copy."""
    return array if array.flags.carray else np.require(array, requirements=("C", "A"))


def _check_shapes(log_alpha: object, mu: object, log_sigma: object, seeds: object) -> None:
    weights = _array("log_alpha", log_alpha, _FLOAT32, "BP")
    means = _array("mu", mu, _FLOAT32, "BPD")
    deviations = _array("log_sigma", log_sigma, _FLOAT32, "BPD")
    keys = _array("seeds", seeds, _UINT64, "B")
    if weights.shape[1] < 1:
        raise InputError(f"log_alpha must be (B, P) with P at least 1, got {weights.shape}")
    if means.shape[:2] != weights.shape or means.shape[2] < 1:
        raise InputError(
            f"mu must be (B, P, D) with D at least 1 and (B, P) = {weights.shape} "
            f"as log_alpha, got {means.shape}"
        )
    if deviations.shape != means.shape:
        raise InputError(f"log_sigma must be {means.shape} as mu, got {deviations.shape}")
    if keys.shape != weights.shape[:1]:
        raise InputError(
            f"seeds must be {weights.shape[:1]}, one an image as in log_alpha, got {keys.shape}"
        )


def _check_values(
    log_alpha: npt.NDArray[np.float32],
    mu: npt.NDArray[np.float32],
    log_sigma: npt.NDArray[np.float32],
) -> None:
    for name, values in (("mu", mu), ("log_sigma", log_sigma)):
        if not np.isfinite(values).all():
            raise InputError(
                f"{name} must be finite, got NaN or infinity: look at the network that made it"
            )
    if np.isnan(log_alpha).any():
        raise InputError("log_alpha must not hold NaN, got NaN: look at the network that made it")
    largest = log_alpha.max(axis=1)
    if (np.abs(largest) > _LOG_ALPHA_LIMIT).any():
        raise InputError(
            "log_alpha must have its largest value of a row in [-80, 80], got "
            f"{largest[np.abs(largest).argmax()]:g}: subtract the row's log-sum-exp"
        )
    if not np.isfinite(_cumulated(log_alpha)[:, -1]).all():
        raise InputError(
            "log_alpha must have weights whose sum is a float32, got a row with a larger one: "
            "subtract the row's log-sum-exp"
        )


def _array(
    name: str, value: object, dtype: np.dtype[np.generic], axes: str
) -> npt.NDArray[np.generic]:
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"{name} must be a NumPy array, got {type(value).__name__}: use np.asarray"
        )
    if value.dtype != dtype:
        raise InputError(
            f"{name} must be {dtype}, got {value.dtype}: "
            f"convert it yourself with .astype(np.{dtype})"
        )
    if value.ndim != len(axes):
        raise InputError(f"{name} must have the axes ({', '.join(axes)}), got shape {value.shape}")
    return value

"""The compiled kernels' Python face: sampling latents, and pasting results (composite_kernel.py).

`picme_rt._kernels` is the compiled module; every kernel also has a reference in NumPy that gives
the same result without it. docs/sampling.md specifies the sampler.
"""

import numbers
import operator
from types import ModuleType
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from picme_rt.composite_kernel import composite as composite
from picme_rt.errors import InputError, UnavailableError
from picme_rt.sampling_ref import sample_gmm_ref as _sample_gmm_ref

Mode = Literal["categorical", "per_primitive", "mean"]
Impl = Literal["auto", "ref", "native"]

_MODES = ("categorical", "per_primitive", "mean")
_IMPLS = ("auto", "ref", "native")
_LOG_ALPHA_LIMIT = 80.0  # exp(80) times thousands of primitives is still a float32
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class GmmSample(NamedTuple):
    """Latents of B images, k each.

    Attributes:
        z: (B, k, D) float32, the latents.
        primitive: (B, k) int32, the primitive of the mixture that each came from.
        log_prob: (B, k) float32, log density of each z under the mixture at temperature 1.
    """

    z: npt.NDArray[np.float32]
    primitive: npt.NDArray[np.int32]
    log_prob: npt.NDArray[np.float32]


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
    impl: Impl = "auto",
) -> GmmSample:
    """Draw k latents an image from its mixture of P diagonal Gaussians (PICME, Eq. 3).

    Sample i of an image is a function of its mixture, its seed and i alone, to the bit: never of k,
    the batch or the implementation. So `k=3, first=6` gives the samples 6, 7 and 8.

    Args:
        log_alpha: (B, P) float32, log weight of each primitive. It need not be normalised; the
            largest of a row lies in [-80, 80]; -inf is a primitive that is never drawn.
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
        impl: "native" is the compiled kernel, "ref" the NumPy reference, "auto" the compiled kernel
            where `native_is_built()`, else the reference. z and primitive are equal to the bit,
            log_prob to a relative 1e-5.

    Returns:
        GmmSample(z, primitive, log_prob); z = mu + (T * sigma) * eps, and log_prob is
        log sum_p alpha_p N(z; mu_p, sigma_p) whatever the mode and the temperature.

    Raises:
        InputError: an argument is not as above; dtypes are never converted.
        UnavailableError: impl is "native" and the compiled kernels are not built.
    """
    _check_mixture(log_alpha, mu, log_sigma, seeds)
    k, first, primitive = check_options(
        log_alpha.shape[1],
        k=k,
        first=first,
        mode=mode,
        primitive=primitive,
        temperature=temperature,
    )
    if impl not in _IMPLS:
        raise InputError(f"impl must be one of {', '.join(_IMPLS)}, got {impl!r}")

    module = None if impl == "ref" else _native()
    if module is None:
        if impl == "native":
            raise UnavailableError(
                "impl='native' needs the compiled module picme_rt._kernels, which is not built: "
                "run `pip install .` with a C++17 compiler, or use impl='auto' or 'ref'"
            )
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
        )
    else:
        sample = module.sample_gmm(
            np.ascontiguousarray(log_alpha),
            np.ascontiguousarray(mu),
            np.ascontiguousarray(log_sigma),
            np.ascontiguousarray(seeds),
            k=k,
            first=first,
            mode=mode,
            primitive=primitive,
            temperature=temperature,
        )
    return GmmSample(*sample)


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
    k = check_integer("k", k, 1, 2**32)
    first = check_integer("first", first, 0, 2**32 - 1)
    if first + k > 2**32:
        raise InputError(
            f"first + k must be at most 2**32, got {first + k}: use another seed to draw more"
        )
    if mode not in _MODES:
        raise InputError(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
    if primitive is not None:
        primitive = check_integer("primitive", primitive, 0, primitives - 1)
        if mode != "categorical":
            raise InputError(
                f"primitive must be None with mode {mode!r}, got {primitive}: "
                "leave it out, or use mode 'categorical'"
            )
    if not (isinstance(temperature, numbers.Real) and 0.0 <= temperature <= _FLOAT32_MAX):
        raise InputError(
            f"temperature must be a finite number of at least 0, got {temperature!r}: "
            "1 samples the mixture, 0 gives the means"
        )
    return k, first, primitive


def native_is_built() -> bool:
    """Whether the compiled kernels are here; impl="auto" takes them when they are."""
    return _native() is not None


def _native() -> ModuleType | None:
    try:
        import picme_rt._kernels as native
    except ModuleNotFoundError:  # not built; a module that is there and broken raises ImportError
        return None
    return native


def _check_mixture(log_alpha: object, mu: object, log_sigma: object, seeds: object) -> None:
    weights = _array("log_alpha", log_alpha, np.float32, "BP")
    means = _array("mu", mu, np.float32, "BPD")
    deviations = _array("log_sigma", log_sigma, np.float32, "BPD")
    keys = _array("seeds", seeds, np.uint64, "B")
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
    for name, values in (("mu", means), ("log_sigma", deviations)):
        if not np.isfinite(values).all():
            raise InputError(
                f"{name} must be finite, got NaN or infinity: look at the network that made it"
            )
    if np.isnan(weights).any():
        raise InputError("log_alpha must not hold NaN, got NaN: look at the network that made it")
    largest = weights.max(axis=1)
    if (np.abs(largest) > _LOG_ALPHA_LIMIT).any():
        raise InputError(
            "log_alpha must have its largest value of a row in [-80, 80], got "
            f"{largest[np.abs(largest).argmax()]:g}: subtract the row's log-sum-exp"
        )


def _array(name: str, value: object, dtype: type, axes: str) -> npt.NDArray[np.generic]:
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"{name} must be a NumPy array, got {type(value).__name__}: use np.asarray"
        )
    if value.dtype != dtype:
        raise InputError(
            f"{name} must be {dtype.__name__}, got {value.dtype}: "
            f"convert it yourself with .astype(np.{dtype.__name__})"
        )
    if value.ndim != len(axes):
        raise InputError(f"{name} must have the axes ({', '.join(axes)}), got shape {value.shape}")
    return value


def check_integer(name: str, value: object, low: int, high: int) -> int:
    """The value as int, if it is an integer in low..high.

    Raises:
        InputError: It is not; the message calls it `name`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # it is what index() looks at
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise InputError(f"{name} must be an integer from {low} to {high}, got {value!r}")
    return number

"""The numbers that a session draws for a seed, for graphs that take them as inputs."""

from typing import NamedTuple

import numpy as np

from picme_rt import kernels
from picme_rt.images import Float
from picme_rt.sampling_ref import PLACE, philox4x32_10, uniform

_LAST = (1 << 32) - 1


class Noise(NamedTuple):
    """Of k results.

    Attributes:
        uniforms: (k,) float32 inside (0, 1): each draws a primitive.
        normals: (k, D) float32; times a temperature, the results are those at that temperature.
    """

    uniforms: Float
    normals: Float


def noise(seed: int, *, latent: int, k: int = 6, first: int = 0) -> Noise:
    """The noise of results first .. first + k - 1 of a seed, as docs/sampling.md has it.

    Args:
        seed: 0 to 2**64 - 1.
        latent: D.
        k: Results, at least 1.
        first: Index of the first.

    Raises:
        InputError: A number is out of its range.
    """
    seed = kernels.check_integer("seed", seed, 0, (1 << 64) - 1)
    first = kernels.check_integer("first", first, 0, _LAST)
    k = kernels.check_integer("k", k, 1, _LAST + 1 - first)
    normals = kernels.normal(np.array([seed], np.uint64), (latent,), k=k, first=first, place=PLACE)
    place = np.full(1, PLACE, np.uint64)
    index, zero = np.arange(first, first + k, dtype=np.uint64), np.zeros(1, np.uint64)
    key = np.array([seed & _LAST], np.uint64), np.array([seed >> 32], np.uint64)
    words = philox4x32_10((place, zero, index, zero), key)
    return Noise(uniform(words[:, 0]), normals[0])

"""z_c from the mixture, by numbers that come from outside (docs/sampling.md, `categorical`)."""

from collections.abc import Sequence

import numpy as np

from picme_export.pipeline.steps import Value
from picme_rt.sampling_ref import EXP_RANGE


def sample(mixture: Sequence[Value], uniforms: Value, normals: Value) -> tuple[Value, Value]:
    """Latents (k, D) and their primitives (k,) int64; Algorithm 2, lines 4-5.

    The specification's arithmetic with the library's exponential in place of `exp_poly`: z differs
    by a few units in the last place of its standard deviation, a primitive where a uniform number
    lies on the edge between two.

    Args:
        mixture: log_alpha (1, P), mu (1, P, D) and log_sigma (1, P, D), float32.
        uniforms: (k,) float32 inside (0, 1).
        normals: (k, D) float32.
    """
    log_alpha, mu, log_sigma = mixture
    steps, primitives = mu.steps, log_alpha.size(1)
    weights = steps.op("Exp", log_alpha)
    summed = steps.op("CumSum", weights, steps.constant(np.int64(1)))
    threshold = uniforms.insert(1) * summed.part(1, -1, primitives)
    passed = summed.at_most(threshold).cast(np.int64).total(1).remove(1)
    chosen = passed.smaller(primitives - 1)
    mu, log_sigma = (steps.op("Gather", one.remove(0), chosen, axis=0) for one in (mu, log_sigma))
    low, high = (steps.constant(end) for end in EXP_RANGE)
    sigma = steps.op("Exp", steps.op("Clip", log_sigma, low, high))
    return mu + sigma * normals, chosen

"""What an engine's graphs gave, checked before anything is made of it.

A graph that is damaged, or made by somebody else, may run and give anything.
"""

import numpy as np

from picme_rt.errors import EngineError
from picme_rt.framing import Box
from picme_rt.images import Float

_PICTURE = 1.01  # largest magnitude that a decoder gives: it ends in tanh
_LOG_ALPHA = 80  # largest magnitude of a row's largest log_alpha that the sampler takes


def check_values(values: dict[str, Float]) -> None:
    """Refuses what no encoder gives, before anything is made of it.

    Raises:
        EngineError: A value is NaN or infinite, or the weights of the mixture are no logarithms.
    """
    for name, value in values.items():
        if not np.isfinite((value.max(), value.min())).all():  # NaN is both
            raise EngineError(
                f"the engine's encoder gave values of {name} that are not finite; export it again"
            )
    _check_log_alpha(values["log_alpha"].max())


def check_extremes(log_alpha: float, pictures: float) -> None:
    """`check_values` and the check of pictures, where only largest magnitudes are at hand.

    Args:
        log_alpha: Of the largest log_alpha of a row; NaN if one of them is.
        pictures: Of the decoder's pictures, likewise.

    Raises:
        EngineError: They are none that a network gives.
    """
    _check_log_alpha(log_alpha)
    _check_magnitude(pictures)


def _check_log_alpha(largest: float) -> None:
    if not abs(largest) <= _LOG_ALPHA:
        raise EngineError(
            f"the engine's encoder gave {largest:g} as largest log_alpha; export it again"
        )


def check_picture(pictures: Float, box: Box) -> None:
    """Refuses what no decoder gives in the box (micro_batch, 3, S, S) of its pictures."""
    pictures = pictures[:, :, box.top : box.bottom, box.left : box.right]
    _check_magnitude(max(pictures.max(), -pictures.min()))


def _check_magnitude(largest: float) -> None:
    """Refuses NaN, infinity and numbers that no colour has: they would be pixels of any kind."""
    if not largest <= _PICTURE:
        raise EngineError(
            "the engine's decoder gave values that are not finite or not in [-1, 1]; "
            "export it again, or lower the temperature if it is far above 1"
        )

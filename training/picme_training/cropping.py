"""How a decoder crops its maps to the windows of a box (`picme_rt.windows`)."""

from collections.abc import Callable

from torch import Tensor

Cropping = Callable[[Tensor, int], Tensor]
"""A map (B, C, h, w) and which of the decoder's crops it comes to -> its window."""


def whole(x: Tensor, place: int) -> Tensor:
    """Crops nothing: the whole picture is decoded."""
    return x


def to(rows: Tensor) -> Cropping:
    """Crops to windows.

    Args:
        rows: (2 n, 2) integers, as `picme_rt.windows.Windows` has them.
    """

    def crop(x: Tensor, place: int) -> Tensor:
        (top, left), (bottom, right) = rows[2 * place : 2 * place + 2].tolist()
        return x[:, :, top:bottom, left:right]

    return crop

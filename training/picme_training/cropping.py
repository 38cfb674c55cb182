"""How a decoder crops its maps to the windows of a box (`picme_rt.windows`)."""

from typing import Protocol

from torch import Tensor


class Cropping(Protocol):
    """Crops a decoder's maps (B, C, h, w) to the windows of a box."""

    def __call__(self, x: Tensor, place: int, ratios: tuple[int, ...] = ()) -> Tensor:
        """A map's window at one of the decoder's crops.

        Args:
            x: The map.
            place: Which of the crops.
            ratios: Of a map that no earlier crop has met: how many of its places are one of the map
                of crop 0, 1, ... up to `place`. Else the map is that of the crop, cropped before.
        """
        ...


def whole(x: Tensor, place: int, ratios: tuple[int, ...] = ()) -> Tensor:
    """Crops nothing: the whole picture is decoded."""
    return x


def ends(rows: Tensor, place: int, ratios: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """First row and column of a window, and last ones + 1, (2,) each; see `Cropping`."""
    *before, ratio = ratios or (1,)
    first, last = ratio * rows[2 * place], ratio * rows[2 * place + 1]
    for earlier, times in enumerate(before):  # each is counted from where the one before begins
        begin = times * rows[2 * earlier]
        first, last = first + begin, last + begin
    return first, last


def to(rows: Tensor) -> Cropping:
    """Crops to windows.

    Args:
        rows: (2 n, 2) integers, as `picme_rt.windows.Windows` has them.
    """

    def crop(x: Tensor, place: int, ratios: tuple[int, ...] = ()) -> Tensor:
        (top, left), (bottom, right) = (end.tolist() for end in ends(rows, place, ratios))
        return x[:, :, top:bottom, left:right]

    return crop

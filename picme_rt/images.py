"""Pictures and masks as users have them, turned once into arrays that the runtime can trust."""

from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from picme_rt import bit_depth, cuda_arrays
from picme_rt.errors import InputError

Image = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""
Hole = NDArray[np.bool_]
"""(H, W), True in the hole."""
Alpha = NDArray[np.uint8]
"""(H, W), 0 is transparent and 255 opaque."""
Float = NDArray[np.float32]

MAX_SIDE = 65_535
"""Longest side of a picture in pixels, as JPEG's header has it: beyond it resizing tables get
absurd."""

GREY = 127
"""A grey value of an antialiased mask over this is hole."""

_ORIENTATION = 0x0112  # EXIF's tag
_FROM_FLOATS = "(img * 255).round().astype('uint8') for values in 0..1"
_FROM_INTEGERS = (
    "np.uint8(img) for values in 0..255, (img / 257).round().astype('uint8') for values in 0..65535"
)
_TO_UINT8 = {"u": _FROM_INTEGERS, "i": _FROM_INTEGERS, "b": "img * np.uint8(255) for bool"}
_CURE_OF_CHANNELS = "; convert it with np.asarray(mask.convert('L')) > 127"
_CURE_OF_ALPHA = (
    " with transparent pixels; paint the hole white, everything else black, and convert it; or "
    "take its alpha, a = np.asarray(mask.convert('RGBA'))[..., 3]: a < 128 if the hole is "
    "transparent, a > 127 if it is painted"
)


class PilImage(Protocol):
    """The part of a PIL image that is used here, so that PIL need not be imported."""

    @property
    def mode(self) -> str:
        """PIL's name of the channels, such as `RGB` or `L`."""
        ...

    def convert(self, mode: str) -> Any:
        """A copy with other channels."""
        ...


ImageLike = ArrayLike | PilImage | cuda_arrays.CudaArray
"""Arrays on a GPU too, of any library: they are fetched (`picme_rt.cuda_fetch`)."""


def _is_pil(value: object) -> TypeGuard[PilImage]:
    return hasattr(value, "mode") and hasattr(value, "convert")


def read_image(img: ImageLike) -> Image:
    """A picture as (H, W, 3) uint8 RGB, C-contiguous.

    Args:
        img: (H, W, 3) uint8, or a PIL image, which is converted to RGB: one of mode L gets three
            equal channels. Of one that was loaded before, PIL does not say whether its file had 16
            bits a channel.

    Raises:
        InputError: Another shape or dtype; a PIL image of more than 8 bits, with transparent
            pixels, that its EXIF orientation turns, or one that cannot be read to its end.
    """
    given = img
    if _is_pil(img):
        if bit_depth.is_deep(img):
            cure = "scale it to 0..255 and convert it to RGB"
            if not img.mode.startswith(("I", "F")):
                cure = "PIL drops the lower 8 of 16: img.convert('RGB') if they are not needed"
            raise InputError(
                f"img must have 8 bits a channel, got a PIL image of mode {img.mode} with more; "
                f"{cure}"
            )
        if alpha("img", img) is not None:
            # Pillow keeps a single transparent colour through convert("RGB")
            first = "" if img.mode in ("RGBA", "LA") else ".convert('RGBA')"
            raise InputError(
                f"img must be opaque, got transparent pixels in a PIL image of mode {img.mode}; "
                f"drop its alpha with img{first}.convert('RGB')"
            )
        img = as_rgb(img)
    array = _array("img", img)
    _check_upright("img", given)
    if array.dtype != np.uint8:
        raise InputError(
            f"img must be uint8 in 0..255, got {array.dtype}; convert it, for instance with "
            + _TO_UINT8.get(array.dtype.kind, _FROM_FLOATS)
        )
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise InputError(
            f"img must be (H, W, 3) RGB, got shape {array.shape}; stack a grey picture three "
            "times, drop an alpha channel, turn (3, H, W) with img.transpose(1, 2, 0)"
        )
    if max(array.shape) > MAX_SIDE:
        raise InputError(
            f"img must have sides of at most {MAX_SIDE} pixels, got shape {array.shape}; cut it"
        )
    return np.ascontiguousarray(array)


def read_mask(mask: ImageLike, shape: tuple[int, int]) -> Hole:
    """A mask as (H, W) bool, True in the hole.

    Args:
        mask: (H, W) or (H, W, 1), of bool, integers or floats, or a PIL image of one channel;
            everything that is not zero is hole. But of a PIL image of mode L with several greys,
            which is antialiased or was a JPEG, what is over `GREY`, as of a mask file.
        shape: (H, W) of the picture.

    Raises:
        InputError: Another shape than the picture's, NaN, a dtype without a zero, or a PIL image
            that its EXIF orientation turns.
    """
    if _is_pil(mask) and mask.mode not in ("1", "L", "I", "F", "I;16", "I;16L", "I;16B"):
        raise InputError(
            f"mask must have one channel of values, got a PIL image of mode {mask.mode}"
            + (_CURE_OF_ALPHA if alpha("mask", mask) is not None else _CURE_OF_CHANNELS)
        )
    array = _array("mask", mask)
    _check_upright("mask", mask)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.shape != shape:
        raise InputError(
            f"mask must have the height and width of img, {shape}, got shape {array.shape}"
        )
    if array.dtype.kind not in "biuf":
        raise InputError(f"mask must be bool, integers or floats, got {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("mask must be finite, got NaN or infinity; 0 is known, anything else hole")
    if array.dtype == bool:
        array = array.view(np.uint8)  # whose comparison NumPy has vector code for
    if _is_pil(mask) and mask.mode == "L":
        array = _hardened(array.astype(np.uint8, copy=False))
    return np.ascontiguousarray(array != 0)


def _hardened(grey: NDArray[np.uint8]) -> NDArray[Any]:
    """Whether each is over `GREY`, where some are between 0 and a largest that is."""
    largest = grey.max(initial=0)
    soft = largest > GREY and bool(((grey != 0) & (grey != largest)).any())
    return grey > GREY if soft else grey


def _check_upright(name: str, img: object) -> None:
    """Refuses a PIL image that other programs show turned or mirrored, as its EXIF entry says."""
    if not _is_pil(img) or not hasattr(img, "getexif"):
        return
    orientation = img.getexif().get(_ORIENTATION, 1)
    if orientation in range(2, 9):
        raise InputError(
            f"{name} must be upright, got a PIL image with EXIF orientation {orientation}; turn it "
            f"with PIL.ImageOps.exif_transpose({name})"
        )


def alpha(name: str, img: PilImage) -> Alpha | None:
    """The alpha of a PIL image; None where every pixel is opaque.

    Raises:
        InputError: The image cannot be read to its end.
    """
    if not getattr(img, "has_transparency_data", False):
        return None
    found = np.asarray(converted(name, img, "RGBA").getchannel("A"))
    return None if (found == 255).all() else found


def as_rgb(img: PilImage) -> PilImage:
    """A PIL image as one of mode RGB; of transparent pixels the colours that are stored.

    Raises:
        InputError: The image cannot be read to its end, or has no RGB.
    """
    return img if img.mode == "RGB" else converted("img", img, "RGB")


def converted(name: str, img: PilImage, mode: str) -> Any:
    """A PIL image in another mode; `name` is what the error calls it.

    Raises:
        InputError: The image cannot be read to its end, or has no such values.
    """
    try:
        return img.convert(mode)
    except (OSError, ValueError) as exc:  # its file is cut short, it was closed, mode LAB
        raise InputError(f"{name} cannot be converted to {mode}: {exc}") from exc


def _array(name: str, value: object) -> NDArray[np.generic]:
    try:
        on_gpu = cuda_arrays.is_on_gpu(value)
        array = np.empty(0) if on_gpu else np.asarray(value)
    except Exception as exc:  # what another library's object raises when it is asked for its values
        raise InputError(
            f"{name} must be an array or a PIL image that can be read, "
            f"got {type(value).__name__}: {str(exc) or repr(exc)}; threads that share a PIL image "
            "need its load() first"
        ) from exc
    if on_gpu:
        from picme_rt import cuda_fetch

        return cuda_fetch.fetch(name, value)
    if array.dtype == object or isinstance(value, (str, bytes)):
        raise InputError(
            f"{name} must be an array or a PIL image, got {type(value).__name__}; open a file "
            "first, for instance with PIL.Image.open"
        )
    return array


def to_network(pixels: Float) -> Float:
    """0..255 to [-1, 1]: x / 127.5 - 1."""
    return pixels / np.float32(127.5) - np.float32(1)


def to_levels(picture: Float) -> Float:
    """[-1, 1] to 0..255, not rounded."""
    return (picture + np.float32(1)) * np.float32(127.5)

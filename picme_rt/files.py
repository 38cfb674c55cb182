"""Pictures on disk: read and written with Pillow."""

import io
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms, ImageFile, ImageOps, PngImagePlugin
from PIL.ExifTags import IFD, Base

from picme_rt import atomic, bit_depth, images
from picme_rt.errors import InputError
from picme_rt.images import Alpha, Hole, Image

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".avif", ".jp2", ".ppm", ".tga"),
)
"""Of the files that a folder of pictures is searched for, in any case."""


_WRITING: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {"compress_level": 2}),  # of zlib's 6 a third of the time, 7 % larger
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "webp": ("WEBP", {"lossless": True, "exact": True}),  # exact: what alpha hides too
}
FORMATS = tuple(_WRITING)
"""Of the files that are written; all but jpg keep every pixel."""
_SIDES = {".webp": 16_383, ".jpg": 65_500}  # of their libraries: libjpeg stops short of 65,535
_OF_TIFF = (
    *(Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist),
    *(Base.HostComputer, Base.Copyright, Base.XResolution, Base.YResolution, Base.ResolutionUnit),
    *(Base.Rating, Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject),
)
"""Of a TIFF's own entries those that are about the photograph; others are about the file, or may
show what the hole hides: layers, thumbnails."""
_MOST_DPI = 65_536  # a JPEG has 16 bits for it
_filtering = threading.Lock()


class Photograph(NamedTuple):
    """A picture file: what is seen, and what its file said besides.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        exif: EXIF entries as a file holds them, without the orientation and without a thumbnail,
            which would show what the hole hides; None if there are none.
        icc_profile: What the values of `pixels` mean; None for sRGB.
        alpha: (H, W) uint8, or None if every pixel is opaque. `pixels` are not multiplied by it: of
            transparent ones they are what the file stores.
        grey: Whether its file has no colour, so that none is written: luminance alone, which is
            exact where red, green and blue are equal. A webp has three equal channels instead.
        dpi: Pixels an inch, the same both ways; None if the file does not say. Not for webp.
        gamma: A PNG's own, what its values mean where there is no profile; for PNG alone.
    """

    pixels: Image
    exif: bytes | None
    icc_profile: bytes | None
    alpha: Alpha | None = None
    grey: bool = False
    dpi: float | None = None
    gamma: float | None = None

    def opaque_in(self, hole: Hole) -> "Photograph":
        """The same with an opaque hole: results show what was made for it."""
        if self.alpha is None:
            return self
        alpha = np.where(hole, np.uint8(255), self.alpha)
        return self._replace(alpha=None if alpha.min() == 255 else alpha)

    def on_white(self) -> Image:
        """What is seen of it on a white page, (H, W, 3) uint8."""
        if self.alpha is None:
            return self.pixels
        alpha = self.alpha[:, :, None].astype(np.uint16)
        return ((self.pixels * alpha + (255 - alpha) * 255 + 127) // 255).astype(np.uint8)


def read_photograph(path: Path) -> Photograph:
    """A picture file, turned upright as its EXIF entry says.

    Grey and palettes become RGB, CMYK becomes sRGB by its profile if it has one; of a file with
    several pictures the first is read.

    Raises:
        InputError: The file is missing, damaged or has more than 8 bits a channel.
    """
    opened, of_tiff = _open(path)
    exif = _exif(path, opened, of_tiff)
    profile = opened.info.get("icc_profile")
    if opened.mode == "CMYK" and profile:
        opened, profile = _to_srgb(path, opened, profile), None
    alpha = images.alpha("img", opened)
    opened.info.pop("transparency", None)  # one colour, or a palette's alpha: it is in `alpha` now
    pixels = images.read_image(np.asarray(images.as_rgb(opened)))
    grey = opened.mode in ("1", "L", "LA")
    # a profile of CMYK values says nothing about the RGB that is made of them
    kept = profile if grey or opened.mode in ("RGB", "RGBA", "P") else None
    return Photograph(pixels, exif, kept or None, alpha, grey, *_resolution_and_gamma(opened.info))


def _resolution_and_gamma(info: dict[Any, Any]) -> tuple[float | None, float | None]:
    dpi, gamma = info.get("dpi", (0, 0)), info.get("gamma")
    same = dpi[0] == dpi[1] and 0 < float(dpi[0]) < _MOST_DPI
    return float(dpi[0]) if same else None, gamma if gamma and "srgb" not in info else None


def read_picture(path: Path) -> Image:
    """The `pixels` of `read_photograph`."""
    return read_photograph(path).pixels


def read_mask(path: Path) -> Hole:
    """A mask file as (H, W) bool: True, the hole, where its grey value is over `images.GREY`.

    A mask that is black everywhere is empty: results are copies.

    Raises:
        InputError: The file is missing, damaged, has more than 8 bits, transparent pixels or no
            grey values; or it is not black, and yet no grey value is over the threshold.
    """
    opened, _ = _open(path)
    if images.alpha("mask", opened) is not None:
        raise InputError(
            f"mask must be opaque, got transparent pixels in {path}; paint the hole white, "
            "everything else black, and save it without alpha"
        )
    grey = np.asarray(images.converted(f"mask {path}", opened, "L"))
    if 0 < (largest := grey.max(initial=0)) <= images.GREY:
        raise InputError(
            f"mask must have grey over {images.GREY} in its hole, got at most {largest} in "
            f"{path}; paint the hole white, or multiply a mask of 0 and 1 by 255"
        )
    return grey > images.GREY


def read_pair(image: Path, mask: Path) -> tuple[Photograph, Hole]:
    """A picture file and its mask file, of one size.

    Raises:
        InputError: As of `read_photograph` and `read_mask`, or their sizes differ.
    """
    photograph, hole = read_photograph(image), read_mask(mask)
    shape = photograph.pixels.shape[:2]
    if hole.shape != shape:
        says = f"{shape} of {image}, got {hole.shape} of {mask}"
        if hole.shape == shape[::-1] and _is_turned(image):
            says += f"; {image} is turned by its EXIF entry: draw the mask on what a viewer shows"
        raise InputError(f"mask must have the height and width of img, {says}")
    return photograph, hole


def write_picture(path: Path, photograph: Photograph) -> None:
    """Writes a picture in the format of the suffix; the file appears whole or not at all.

    Args:
        path: Ends with one of `FORMATS`.
        photograph: The picture; its EXIF entries, profile, alpha and resolution are written too.

    Raises:
        InputError: The format cannot hold the picture.
        OSError: The file cannot be written.
    """
    check_format(path, photograph)
    kind, options = _WRITING[path.suffix[1:]]
    picture, profile = Pillow.fromarray(photograph.pixels), photograph.icc_profile
    if photograph.grey:
        picture = picture.convert("L")
        profile = None if kind == "WEBP" else profile  # which has no grey that it could be of
    kept = {"exif": photograph.exif, "icc_profile": profile}
    options = options | {name: value for name, value in kept.items() if value}
    if photograph.dpi and kind != "WEBP":
        options["dpi"] = (photograph.dpi, photograph.dpi)
    if photograph.gamma and kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add(b"gAMA", round(1e5 * photograph.gamma).to_bytes(4, "big"))
    if photograph.alpha is not None:
        picture.putalpha(Pillow.fromarray(photograph.alpha))
    with atomic.file(path) as fresh:
        try:
            picture.save(fresh, kind, **options)
        except ValueError as exc:  # EXIF entries or a profile that are too long for JPEG
            raise InputError(f"{path} cannot be written: {exc}; choose png") from exc


def check_format(path: Path, photograph: Photograph) -> None:
    """Checks that the format of a suffix can hold a picture.

    Raises:
        InputError: It cannot.
    """
    most = _SIDES.get(path.suffix)
    if most is not None and max(photograph.pixels.shape) > most:
        raise InputError(
            f"a {path.suffix[1:]} must have sides of at most {most} pixels, got "
            f"{photograph.pixels.shape[:2]} for {path}; choose png"
        )
    if path.suffix == ".jpg" and photograph.alpha is not None:
        raise InputError(
            f"jpg holds no alpha, got transparent pixels for {path}; choose png or webp"
        )


def _open(path: Path) -> tuple[Pillow.Image, Pillow.Exif | None]:
    """The picture, read to its end and upright, in the mode of its file; a TIFF's EXIF entries."""
    if not path.exists():
        raise InputError(f"there is no picture {path}")
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path} is no picture that can be read: it is no file")
    try:
        with _header(path) as opened:
            deep = bit_depth.is_deep(opened)
            of_tiff = _entries_of_tiff(opened) if opened.format == "TIFF" else None
            upright = ImageOps.exif_transpose(opened)
    except Pillow.DecompressionBombError as exc:
        raise InputError(
            f"{path} must have at most {2 * (Pillow.MAX_IMAGE_PIXELS or 0)} pixels, got more; "
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS in Python and give "
            "Session.complete an array of its pixels"
        ) from exc
    except Exception as exc:  # of damaged bytes Pillow's decoders raise errors of any kind
        raise InputError(f"{path} is no picture that can be read: {str(exc) or repr(exc)}") from exc
    if deep or bit_depth.is_deep(upright):
        raise InputError(
            f"{path} must have 8 bits a channel, got more (mode {upright.mode}); convert it, for "
            "instance with ImageMagick's -depth 8"
        )
    return upright, of_tiff


def _entries_of_tiff(opened: Pillow.Image) -> Pillow.Exif:
    """They are the file's own, so they are read before it is closed, and not all are kept."""
    there, kept = opened.getexif(), Pillow.Exif()
    for tag in _OF_TIFF:
        if tag in there:
            kept[tag] = there[tag]
    for directory in (IFD.Exif, IFD.GPSInfo):
        if found := dict(there.get_ifd(directory)):
            if IFD.Interop in found:  # where in that file it stands
                found[IFD.Interop] = there.get_ifd(IFD.Interop)
            kept[directory] = found
    return kept


def _exif(path: Path, upright: Pillow.Image, of_tiff: Pillow.Exif | None) -> bytes | None:
    try:
        exif = upright.getexif() if of_tiff is None else of_tiff
        return exif.tobytes() if exif else None
    except Exception as exc:  # of damaged entries Pillow raises errors of any kind
        raise InputError(
            f"{path} has EXIF entries that cannot be read: {exc}; remove them, for instance with "
            "exiftool -all="
        ) from exc


def _header(path: Path) -> ImageFile.ImageFile:
    """The picture, opened and not read yet; the filters of warnings are the whole process's."""
    with _filtering, warnings.catch_warnings():
        # below the size that Pillow refuses it warns, which is of no use to who gave the file
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
        return Pillow.open(path)


def _is_turned(path: Path) -> bool:
    """Whether width and height are exchanged where the picture is upright."""
    with _header(path) as opened:
        return opened.getexif().get(Base.Orientation, 1) in (5, 6, 7, 8)


def _to_srgb(path: Path, cmyk: Pillow.Image, profile: bytes) -> Pillow.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        found = ImageCms.profileToProfile(cmyk, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as exc:
        raise InputError(
            f"{path} has a colour profile that cannot be read: {exc}; convert it to RGB"
        ) from exc
    assert found is not None  # with inPlace=False
    return found

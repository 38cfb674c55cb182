"""A report as a picture: a bar for each backend and precision, of the stages of one call."""

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING

from picme_rt.speed.report import STAGE_K, Report, Row
from picme_rt.speed.stages import STAGES

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

REST = "rest"
_COLOURS = {
    "pre": "#8cc5e3", "encode": "#3594cc", "sample": "#d8a6a6", "decode": "#1f3a5f",
    "composite": "#e2a13b", REST: "#c9c9c9",
}  # fmt: skip
_INK, _PALE, _PAPER = "#1c1c1c", "#dddddd", "#ffffff"
_WIDTH, _LEFT, _RIGHT, _TOP, _BAR, _PITCH = 1600, 330, 330, 170, 44, 76
_TICKS = 8


def write(report: Report, path: Path) -> None:
    """Writes the chart as PNG.

    A bar is as long as the median of `session.complete` with k = 6; its parts are the stages'
    medians, timed apart, and the rest of the call. Beside it stands what a decode of the whole
    square reaches of the machine's peak.

    Args:
        report: What was measured.
        path: The file, overwritten.
    """
    from PIL import Image, ImageDraw

    rows = report.rows[1:]  # the first is `auto`, which is one of the others
    height = _TOP + _PITCH * len(rows) + 80
    picture = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    longest = max(max(row.calls[STAGE_K].median, sum(_parts(row).values())) for row in rows)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    title = _title(report)
    draw.text((40, 30), title, _INK, _fitting(draw, title, 34, _WIDTH - 80))
    _legend(draw)
    _axis(draw, longest, scale, height - 70)
    for place, row in enumerate(rows):
        _bar(draw, row, _TOP + _PITCH * place, scale)
    picture.save(path, "PNG")


def _title(report: Report) -> str:
    size = report.size
    return (
        f"{report.name}, {size} x {size}: {STAGE_K} completions of one picture, "
        f"{report.cpu}, {report.cores} cores"
    )


def _legend(draw: "ImageDraw") -> None:
    left, font = 40, _font(26)
    for name, colour in _COLOURS.items():
        draw.rectangle((left, 98, left + 26, 124), fill=colour)
        draw.text((left + 36, 111), name, _INK, font, anchor="lm")
        left += 36 + int(draw.textlength(name, font)) + 36


def _axis(draw: "ImageDraw", longest: float, scale: float, bottom: int) -> None:
    """Pale lines at round numbers of milliseconds, numbered below."""
    step = _round_step(longest / _TICKS)
    for tick in range(int(longest / step) + 1):
        x = _LEFT + tick * step * scale
        draw.line((x, _TOP - 14, x, bottom), fill=_PALE, width=2)
        text = f"{tick * step:g}" + " ms" * (tick == 0)
        draw.text((x, bottom + 10), text, _INK, _font(24), anchor="ma")


def _bar(draw: "ImageDraw", row: Row, top: int, scale: float) -> None:
    middle, left = top + _BAR / 2, float(_LEFT)
    name = f"{row.backend} {row.precision}"
    font = _fitting(draw, name, 28, _LEFT - 50)
    draw.text((_LEFT - 20, middle), name, _INK, font, anchor="rm")
    for part, milliseconds in _parts(row).items():
        right = left + milliseconds * scale
        if right - left >= 1:  # less is no pixel
            draw.rectangle((left, top, right, top + _BAR), fill=_COLOURS[part])
        left = right
    label = f"{row.calls[STAGE_K].median:.3g} ms"
    if row.share is not None:
        label += f", {100 * row.share:.0f} % of peak"
    font = _fitting(draw, label, 28, _RIGHT - 40)
    place = left + 14, middle
    draw.rectangle(draw.textbbox(place, label, font, anchor="lm"), fill=_PAPER)  # over the lines
    draw.text(place, label, _INK, font, anchor="lm")


def _parts(row: Row) -> dict[str, float]:
    """Milliseconds of each part of a bar."""
    found: dict[str, float] = {stage: row.stages[stage].median for stage in STAGES}
    rest = row.calls[STAGE_K].median - sum(found.values())
    return {**found, REST: max(rest, 0.0)}


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (and 0.5, 0.2, ...) that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * part for part in (1, 2, 5, 10) if power * part >= least)


def _fitting(draw: "ImageDraw", text: str, size: int, width: float) -> "FreeTypeFont | ImageFont":
    """The font of a size, or of the largest below it in which a text is not wider than `width`."""
    fonts = (_font(points) for points in range(size, 8, -1))
    return next((font for font in fonts if draw.textlength(text, font) <= width), _font(8))


@functools.cache
def _font(size: int) -> "FreeTypeFont | ImageFont":
    """Pillow's own, so that no machine lacks it."""
    from PIL import ImageFont

    return ImageFont.load_default(size)

"""What was measured, as JSON and as a table in Markdown."""

from typing import Any, NamedTuple

from picme_training.evaluate.comparison import Comparison, Value, relative


class Measure(NamedTuple):
    """A row of the table.

    Attributes:
        label: Its name in the table.
        unit: Of its numbers.
        better: `up`, `down`, or empty where neither is better.
    """

    label: str
    unit: str
    better: str


MEASURES = {
    "PSNR": Measure("PSNR", "dB", "up"),
    "PSNR_hole": Measure("PSNR in the hole", "dB", "up"),
    "SSIM": Measure("SSIM", "", "up"),
    "SSIM_hole": Measure("SSIM in the hole", "", "up"),
    "PSNR_averaged": Measure("PSNR in the hole, mean of the results", "dB", "up"),
    "SSIM_averaged": Measure("SSIM, mean of the results", "", "up"),
    "MAE": Measure("MAE", "of 1", "down"),
    "MAE_hole": Measure("MAE in the hole", "of 1", "down"),
    "LPIPS": Measure("LPIPS to the original", "", "down"),
    "LPIPS_hole": Measure("LPIPS in the hole", "", "down"),
    "FID": Measure("FID", "", "down"),
    "KID": Measure("KID", "", "down"),
    "LPIPS_pairs": Measure("LPIPS between pairs", "", "up"),
    "DIV_FID": Measure("DIV-FID", "", "up"),
    "pairwise": Measure("difference of pairs in the hole", "levels", "up"),
    "std": Measure("standard deviation in the hole", "levels", "up"),
    "seam": Measure("seam gradient jump", "levels", "down"),
    "patches": Measure("bidirectional patch distance", "levels squared", "down"),
    "changed": Measure("changed known pixels", "", "down"),
}
PRIMITIVES = {
    "entropy_alpha": Measure("entropy of alpha", "nats", "up"),
    "entropy_drawn": Measure("entropy of the primitives drawn", "nats", "up"),
    "entropy_best": Measure("entropy of the best primitive", "nats", "up"),
    "entropy_most": Measure("the most that an entropy can be, ln P", "nats", ""),
    "pixels_same": Measure("difference in the hole, same primitive", "levels", ""),
    "pixels_different": Measure("difference in the hole, different primitives", "levels", ""),
    "pixels_ratio": Measure("different / same, pixels", "", "up"),
    "LPIPS_same": Measure("LPIPS, same primitive", "", ""),
    "LPIPS_different": Measure("LPIPS, different primitives", "", ""),
    "LPIPS_ratio": Measure("different / same, LPIPS", "", "up"),
    "between_share_z": Measure("share of the variance of z between primitives", "", "up"),
    "between_share_pictures": Measure(
        "share of the variance of the hole's pixels between primitives", "", "up"
    ),
}
FORMAT = 1
_ARROWS = {"up": " ↑", "down": " ↓", "": ""}
_IN_SPACE = ("FID", "KID", "DIV_FID")  # distances that are nothing without their feature space
_SHARES = {"alpha": "mean alpha", "drawn": "share drawn", "best": "share best (Eq. 4)"}


def as_json(found: Comparison, about: dict[str, Any]) -> dict[str, Any]:
    """Everything measured; `about` says of what, and how."""
    ratios = {n: relative(found.columns, n) for n in MEASURES if n in found.columns["model"]}
    return {
        "format": FORMAT,
        **about,
        "measures": {
            column: {name: value._asdict() for name, value in table.items()}
            for column, table in found.columns.items()
        },
        "relative": {name: each for name, each in ratios.items() if each},
        "KID_gap": {name: gap._asdict() for name, gap in found.gaps.items()},
        "primitives": {**found.shares, **found.scalars},
    }


def as_markdown(found: Comparison, about: dict[str, Any]) -> str:
    """Tables of the measures, of the primitives, and what was measured."""
    columns = list(found.columns)
    lines = [f"# {about['model'].get('engine') or about['model'].get('checkpoint')}", ""]
    lines += [_said(about), "", _row(["", *columns]), _rule(len(columns))]
    for name, measure in MEASURES.items():
        if any(name in table for table in found.columns.values()):
            cells = [_cell(table.get(name)) for table in found.columns.values()]
            lines.append(_row([_label(name, measure, about["feature_space"]), *cells]))
    named = [n for n in ("LPIPS_hole", "KID") if n in found.columns["model"]]
    for name in named:
        if ratios := relative(found.columns, name):
            said = ", ".join(f"{ratio:.3f} of {other}'s" for other, ratio in ratios.items())
            lines += ["", f"{MEASURES[name].label}: {said}."]
    for name, gap in found.gaps.items():
        lines += ["", f"KID of {name} less the model's, over all pairs of pictures: {_cell(gap)}."]
    places = range(len(found.shares["alpha"]))
    lines += ["", _row(["primitive", *map(str, places)]), _rule(len(places))]
    for name, share in found.shares.items():
        lines.append(_row([_SHARES[name], *(f"{value:.3f}" for value in share)]))
    lines += ["", _row(["primitives", ""]), _rule(1)]
    for name, measure in PRIMITIVES.items():
        if name in found.scalars:
            label = _label(name, measure, None)
            lines.append(_row([label, _digits(found.scalars[name])]))
    return "\n".join(lines) + "\n"


def of_diversity(found: dict[str, dict[str, float]], about: dict[str, Any]) -> str:
    """The table of an engine of one picture: a column a diversity (IDC's Table S2)."""
    rows = [_row(["", *found]), _rule(len(found))]
    for name, measure in MEASURES.items():
        if any(name in table for table in found.values()):
            cells = [_digits(table[name]) if name in table else "-" for table in found.values()]
            rows.append(_row([_label(name, measure, None), *cells]))
    head = f"# {about['engine']}"
    said = (
        f"{about['data']}, mask {about['masks']}, {about['samples']} results each, "
        f"seed {about['seed']}."
    )
    if not any("LPIPS" in table for table in found.values()):
        said += " Without the weights of LPIPS there is no LPIPS: --lpips-weights."
    return "\n".join([head, "", said, "", *rows]) + "\n"


def _said(about: dict[str, Any]) -> str:
    said = (
        f"{about['pictures']} pictures at {about['size']}x{about['size']}, masks {about['masks']}, "
        f"{about['holes']} hole(s) a picture, {about['samples']} results each, "
        f"seed {about['seed']}. Means ± standard errors over pictures (of FID and DIV-FID "
        "deviations over sets of results, of KID over subsets)."
    )
    if about["feature_space"] is None:
        said += " Without the weights of LPIPS there are no LPIPS, FID and KID: --lpips-weights."
    return said


def _label(name: str, measure: Measure, space: str | None) -> str:
    where = f" ({space})" if name in _IN_SPACE else ""
    unit = f", {measure.unit}" if measure.unit else ""
    return f"{measure.label}{where}{unit}{_ARROWS[measure.better]}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|---" + "|---:" * columns + "|"


def _cell(value: Value | None) -> str:
    if value is None:
        return "-"
    if value.spread is None:
        return _digits(value.mean)
    return f"{_digits(value.mean)} ± {value.spread:.2g}"


def _digits(value: float) -> str:
    return f"{value:.4g}"

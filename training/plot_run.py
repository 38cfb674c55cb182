"""Draws a run's metrics.jsonl: losses, measures on held-out pictures, use of the primitives.

python training/plot_run.py RUN OUT.png
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Line = dict[str, Any]


def smooth(values: list[float], width: int = 15) -> list[float]:
    """Running mean over the last `width` values."""
    return [
        sum(part) / len(part)
        for i in range(len(values))
        if (part := values[max(0, i - width + 1) : i + 1])
    ]


def curves(axes: Axes, lines: list[Line], names: tuple[str, ...], title: str, width: int) -> None:
    """One panel with a curve for each name that the lines have."""
    for name in names:
        if named := [line for line in lines if name in line]:
            steps = [line["step"] for line in named]
            axes.plot(steps, smooth([line[name] for line in named], width), label=name)
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)


def main(run: Path, out: Path) -> None:
    """Reads RUN/metrics.jsonl and writes the picture."""
    written = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    lines = [json.loads(text) for text in written if text.endswith("\n")]  # the last may be half
    train = [line for line in lines if "loss" in line]
    val = [line for line in lines if "used" in line]
    figure, panels = plt.subplots(2, 3, figsize=(15, 7.5), constrained_layout=True)
    curves(panels[0, 0], train, ("L1", "L1_known", "LPIPS"), "reconstruction (train)", 15)
    curves(panels[0, 1], train, ("L_A", "L_D"), "adversarial (train)", 15)
    curves(
        panels[0, 2], train, ("KL_c", "KL_m", "L_BM", "L_F"), "latent (train), nats a dimension", 15
    )
    names = ("val_LPIPS", "val_LPIPS_reconstruction", "val_LPIPS_pairs")
    curves(panels[1, 0], val, names, "held out, centre hole: LPIPS", 1)
    curves(
        panels[1, 1],
        val,
        ("val_pairwise",),
        "held out: difference of pairs in the hole, levels of 255",
        1,
    )
    steps = [line["step"] for line in val]
    if val:
        panels[1, 2].stackplot(steps, *zip(*(line["used"] for line in val), strict=True))
    panels[1, 2].set_title("held out: share of pictures by best primitive")
    panels[1, 2].set_xlabel("step")
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "training" / "plot_run.py"


@pytest.mark.parametrize(
    ("width", "expected"), [(1, [1, 3, 8, 0]), (2, [1, 2, 5.5, 4]), (9, [1, 2, 4, 3])]
)
def test_a_curve_is_the_mean_of_so_many_values(load_script, width, expected):
    assert load_script("plot_run").smooth([1, 3, 8, 0], width) == expected


def test_a_run_that_has_just_begun_or_lacks_a_measure_is_drawn(load_script, tmp_path):
    plot = load_script("plot_run").main
    whole = '{"step": 1, "loss": 1, "L1": 1, "L_A": 1}\n{"step": 2, "loss": 1, "L1": 1}\n'
    for text in ("", whole, whole + '{"step": 3, "lo'):  # the last is being written
        (tmp_path / "metrics.jsonl").write_text(text)
        plot(tmp_path, tmp_path / "curves.png")


def test_a_run_s_metrics_become_one_picture(tmp_path, monkeypatch):
    train = [{"step": s, "loss": 1 / s, "L1": 1 / s, "L_A": 0.3, "L_D": 0.2} for s in (1, 2, 3)]
    val = [{"step": s, "val_pairwise": s, "used": [0.25, 0.75]} for s in (2, 3)]
    lines = "".join(json.dumps(line) + "\n" for line in train + val)
    (tmp_path / "metrics.jsonl").write_text(lines)
    out = tmp_path / "curves.png"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    with Image.open(out) as picture:
        assert picture.size == (1200, 600)
        assert len(picture.convert("RGB").getcolors(10**6)) > 20

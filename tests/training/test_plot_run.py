import json
import runpy
import sys
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[2] / "training" / "plot_run.py"


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

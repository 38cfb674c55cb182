"""The example for a cluster, on two workers of this machine; `make test-slow` runs it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from picme_rt import cli

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture
def photographs(tmp_path):
    """Eight photos with masks of their names, one of them cut short."""
    rng = np.random.default_rng(0)
    for place in ("photos", "masks"):
        (tmp_path / place).mkdir()
    for i in range(8):
        shape = (150 + 9 * i, 170)
        img, hole = rng.integers(0, 256, (*shape, 3), np.uint8), np.zeros(shape, np.uint8)
        hole[40:120, 30:110] = 255
        Pillow.fromarray(img).save(tmp_path / "photos" / f"p{i}.png")
        Pillow.fromarray(hole).save(tmp_path / "masks" / f"p{i}.png")
    whole = (tmp_path / "photos" / "p3.png").read_bytes()
    (tmp_path / "photos" / "p3.png").write_bytes(whole[:9000])
    return tmp_path


def run(place, *more):
    command = [sys.executable, "examples/cluster/map_folder.py", place / "photos", place / "masks"]
    more = ("-o", place / "out", "-k", "2", "--workers", "2", "--cpus", "0.5", *more)
    ran = subprocess.run(
        [str(a) for a in (*command, *more)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_two_workers_share_a_folder_and_leave_the_bytes_of_one_session(photographs, capsys):
    said = run(photographs)
    done = re.findall(r"(p\d)\.png by worker (\d+)", said)
    assert sorted(name for name, _ in done) == ["p0", "p1", "p2", "p4", "p5", "p6", "p7"]
    assert len({worker for _, worker in done}) == 2
    assert "p3.png is no picture" in said
    command = ["complete", str(photographs / "photos"), str(photographs / "masks"), "-k", "2"]
    assert cli.main([*command, "-o", str(photographs / "one"), "--threads", "1"]) == 1
    one, many = (
        {p.name: p.read_bytes() for p in (photographs / name).iterdir()} for name in ("one", "out")
    )
    assert many == one
    (photographs / "out" / "p5_01.png").unlink()
    (photographs / "out" / "p5_sheet.png").unlink()
    again = run(photographs, "--resume")
    assert re.findall(r"(p\d)\.png by worker", again) == ["p5"]
    assert {p.name: p.read_bytes() for p in (photographs / "out").iterdir()} == one
    capsys.readouterr()
    assert cli.main([*command, "-o", str(photographs / "out"), "--resume"]) == 1
    assert capsys.readouterr().err.endswith("picme: 1 of 8 pictures could not be completed\n")

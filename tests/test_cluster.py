"""The example for a cluster: on two workers of this machine where tests are slow, else on none."""

import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import picme_rt
from picme_rt import cli
from picme_rt.verbs import DEFAULT_ENGINE

ROOT = Path(__file__).parents[1]
SCRIPT = "examples/cluster/map_folder.py"


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
    command = [sys.executable, SCRIPT, place / "photos", place / "masks"]
    more = ("-o", place / "out", "-k", "2", "--workers", "2", "--cpus", "0.5", *more)
    ran = subprocess.run(
        [str(a) for a in (*command, *more)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1, ran.stderr
    assert "p3.png is no picture" in ran.stderr
    assert ran.stderr.endswith("map_folder.py: 1 of 8 pictures could not be completed\n")
    return ran.stdout


@pytest.mark.slow
def test_two_workers_share_a_folder_and_leave_the_bytes_of_one_session(photographs, capsys):
    said = run(photographs)
    done = re.findall(r"(p\d)\.png by worker (\d+)", said)
    assert sorted(name for name, _ in done) == ["p0", "p1", "p2", "p4", "p5", "p6", "p7"]
    assert len({worker for _, worker in done}) == 2
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


class Rows(list):
    """Stands in for a data set of Ray: what is mapped is mapped here."""

    def map(self, worker, *, fn_constructor_args, compute, num_cpus):
        return Rows(map(worker(*fn_constructor_args), self))

    def iter_rows(self):
        return iter(self)


@pytest.fixture
def script(monkeypatch):
    """Runs the example as a script, with a Ray that is none; what it ends with."""
    ray = types.ModuleType("ray")
    ray.data = types.SimpleNamespace(
        from_items=lambda rows, override_num_blocks: Rows(rows),
        ActorPoolStrategy=lambda size: None,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.chdir(ROOT)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
        try:
            runpy.run_path(SCRIPT, run_name="__main__")
        except SystemExit as end:
            return end.code
        return 0

    return call


def test_it_ends_as_the_verb_does_and_either_goes_on_with_the_others_run(
    photographs, engine, script, capsys
):
    for i in (0, 1, 2, 4, 6, 7):
        (photographs / "photos" / f"p{i}.png").unlink()
    places = [photographs / "photos", photographs / "masks", "-o", photographs / "out", "-k", 1]
    asked = [*places, "--engine", engine]
    failed = "1 of 2 pictures could not be completed"
    assert script(*asked) == f"map_folder.py: {failed}"
    assert "p3.png is no picture" in capsys.readouterr().err
    assert cli.main(["complete", *map(str, asked), "--resume"]) == 1
    assert capsys.readouterr().err.endswith(f"picme: {failed}\n")
    assert "holds a run" in script(*asked)
    (photographs / "photos" / "p3.png").unlink()
    assert script(*asked, "--resume") == 0
    asked[1] = photographs / "nope"
    assert "there is no mask file or folder" in script(*asked)


def test_its_engine_is_the_verbs(photographs, script, monkeypatch):
    opened = []

    def session(engine, **options):
        opened.append(Path(engine))
        raise picme_rt.PicmeError("no more")

    monkeypatch.setattr(picme_rt, "Session", session)
    places = (photographs / name for name in ("photos", "masks"))
    assert script(*places, "-o", photographs / "out") == "map_folder.py: no more"
    assert opened == [ROOT / DEFAULT_ENGINE]

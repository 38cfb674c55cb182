"""The README's and the examples' commands and code run as they stand."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from picme_rt import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_python_of_the_readme_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    img = data.chelsea()
    mask = np.zeros(img.shape[:2], bool)
    mask[90:190, 150:270] = True
    names = {"img": img, "mask": mask}
    for block in blocks("python"):
        exec(block, names)
    assert names["done"].images.shape == (6, *img.shape)
    assert list(names["more"].indices) == [6, 7, 8, 9, 10, 11]
    assert (names["done"].images[:, ~mask] == img[~mask]).all()
    names["session"].close()


def test_every_picme_command_of_the_readme_is_one_that_the_command_line_takes():
    found = re.findall(r"^picme .*$", README, re.MULTILINE)
    assert len(found) >= 4
    for line in found:
        verb, *arguments = shlex.split(line, comments=True)[1:]
        module = cli.VERBS[verb].module
        parser = cli.argparse.ArgumentParser()
        __import__(module)
        sys.modules[module].add_arguments(parser)
        parser.parse_args(arguments)


def test_the_files_that_the_documents_link_to_are_there():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_every_example_runs(example, tmp_path):
    arguments = [str(tmp_path)] if example.stem == "complete" else []
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(example), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


@pytest.mark.parametrize("engine", sorted((ROOT / "engines").iterdir()), ids=lambda p: p.name)
def test_a_shipped_engine_is_small_and_has_its_card(engine):
    assert sum(path.stat().st_size for path in engine.rglob("*") if path.is_file()) <= 12e6
    card = (ROOT / "training" / "configs" / f"{engine.name}.card.md").read_text(encoding="utf-8")
    assert (engine / "MODEL_CARD.md").read_text(encoding="utf-8") == card
    for picture in re.findall(r"docs/images/\S+\.(?:jpg|png)", card):
        assert (ROOT / picture).exists(), picture


def test_the_demo_writes_a_sheet_with_six_different_fillings(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["demo", "-o", str(tmp_path)]) == 0
    page = tmp_path / "chelsea_sheet.png"
    assert str(page) in capsys.readouterr().out
    from picme_rt.files import read_picture

    results = [read_picture(tmp_path / f"chelsea_{i:02d}.png").astype(int) for i in range(6)]
    changed = (np.stack(results) != data.chelsea()).any(axis=(0, 3))
    assert 0.05 < changed.mean() < 0.5
    for i in range(6):
        for j in range(i):
            assert np.abs(results[i] - results[j])[changed].mean() > 1

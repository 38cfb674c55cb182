"""`picme evaluate` of an engine of one picture: low, mid and high."""

import json

import numpy as np
import pytest
import tiny_pyramid
from PIL import Image

from picme_rt.cli import main
from picme_rt.errors import InputError
from picme_rt.session import Session
from picme_training.evaluate import diversity, measures

IMG, MASK = tiny_pyramid.picture()


@pytest.fixture
def asked(tmp_path):
    path = tiny_pyramid.write(tmp_path / "tiny", tiny_pyramid.make().files)
    for name, array in (("img.png", IMG), ("mask.png", MASK), ("none.png", MASK * 0)):
        Image.fromarray(array).save(tmp_path / name)
    data, masks = (str(tmp_path / name) for name in ("img.png", "mask.png"))
    return ["evaluate", str(path), "--data", data, "--masks", masks, "-k", "3"]


def test_each_diversity_is_measured(asked, tmp_path, capsys):
    assert main([*asked, "--json", "-o", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    measured = found["measures"]
    assert list(measured) == ["original", "low", "mid", "high"]
    assert measured["original"].keys() == {"seam", "patches"}
    for name in ("low", "mid", "high"):
        assert measured[name]["changed"] == 0
        assert measured[name]["patches"] > 0
    assert measured["low"]["std"] == measured["low"]["pairwise"] == 0 < measured["high"]["std"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == found
    assert main(asked) == 0
    table = capsys.readouterr().out
    assert "|  | original | low | mid | high |" in table
    assert table == (tmp_path / "out" / "report.md").read_text()


def test_another_picture_and_an_empty_mask_are_refused(asked, tmp_path, capsys):
    assert main([*asked, "--masks", str(tmp_path / "none.png")]) == 1
    assert "mask must have a hole to measure in" in capsys.readouterr().err
    Image.fromarray(np.roll(IMG, 1, 0)).save(tmp_path / "img.png")
    assert main(asked) == 1
    assert "img must be the picture that tiny was trained on" in capsys.readouterr().err


def test_a_picture_of_another_size_than_its_mask_is_one_line(asked, tmp_path, capsys):
    Image.fromarray(IMG[:-2]).save(tmp_path / "img.png")
    assert main(asked) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("picme: mask must have the height and width of img, ")
    assert "img.png" in said
    assert "mask.png" in said


def test_what_is_not_the_engine_s_is_refused_before_anything_is_measured(asked, monkeypatch):
    monkeypatch.setattr(measures, "patches", None)
    monkeypatch.setattr(measures, "seam_jump", None)
    given = ((np.roll(IMG, 1, 0), MASK), (IMG[:-2], MASK), (IMG, np.ones_like(MASK)))
    with Session(asked[1]) as session:
        for img, mask in given:
            with pytest.raises(InputError, match="must"):
                diversity.compare(session, img, mask > 0, k=2, seed=0)


@pytest.mark.parametrize("masks", [None, "random", "."])
def test_what_is_no_mask_file_is_refused(asked, masks, capsys):
    place = asked.index("--masks")
    asked[place : place + 2] = [] if masks is None else ["--masks", masks]
    assert main(asked) == 1
    says = f"--masks must be the mask that {asked[1]} was trained with, a file, got"
    assert f"{says} {masks or 'centre'}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flag",
    [
        ["--size", "64"],
        ["--baselines", "mean"],
        ["--holes", "2"],
        ["--per-primitive", "3"],
        ["--keep-grey"],
        ["--patch-distance"],
    ],
)
def test_what_is_of_many_pictures_is_refused(asked, flag, capsys):
    assert main([*asked, *flag]) == 1
    assert f"{flag[0]} must be left out for an engine of one picture" in capsys.readouterr().err

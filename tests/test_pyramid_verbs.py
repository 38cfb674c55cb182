"""`picme complete`, `info` and `bench` on an engine of kind `idc`."""

import json

import numpy as np
import pytest
import tiny_pyramid
from PIL import Image

import picme_rt
from picme_rt import cli
from picme_rt.speed import peaks

IMG, MASK = tiny_pyramid.picture()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_pyramid.write(tmp_path_factory.mktemp("idc") / "tiny", tiny_pyramid.make().files)


@pytest.fixture
def given(tmp_path, path):
    """The arguments of a call."""
    for name, array in (("img.png", IMG), ("mask.png", MASK)):
        Image.fromarray(array).save(tmp_path / name)
    out = tmp_path / "out"
    files = [str(tmp_path / name) for name in ("img.png", "mask.png")]
    return out, ["complete", *files, "-o", str(out), "--engine", str(path), "-k", "2"]


@pytest.mark.parametrize("diversity", ["high", "2.5", None])
def test_complete_takes_a_diversity(given, path, diversity):
    out, asked = given
    more = [] if diversity is None else ["--diversity", diversity]
    assert cli.main([*asked, *more]) == 0
    with picme_rt.Session(path) as session:
        number = float(diversity) if diversity == "2.5" else diversity
        done = session.complete(IMG, MASK, k=2, diversity=number).images
    for i in range(2):
        assert (np.asarray(Image.open(out / f"img_0{i}.png")) == done[i]).all()
    assert (out / "img_sheet.png").is_file()


def test_what_is_no_diversity_and_engines_without_one_are_refused(given, capsys):
    out, asked = given
    assert cli.main(asked) == 0
    made = sorted(out.iterdir())
    for wrong, says in (
        (["--diversity", "much"], "diversity must be low, mid, high or a number"),
        (["--primitive", "1"], "engines of kind 'idc' have no primitives: leave out"),
    ):
        assert cli.main([*asked, "--force", *wrong]) == 1
        assert says in capsys.readouterr().err
        assert sorted(out.iterdir()) == made
    asked[asked.index("--engine") + 1] = "patch"
    assert cli.main([*asked, "--diversity", "low"]) == 1
    assert "diversity must be left out" in capsys.readouterr().err


def test_info_says_whose_picture_it_is(path, capsys):
    assert cli.main(["info", str(path)]) == 0
    assert "picture      (24, 30)" in capsys.readouterr().out
    assert cli.main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["picture"] == [24, 30]


def test_bench_times_calls_and_stages(path, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(peaks, "measure", lambda: peaks.Peaks(1, {"fp32": 100.0}, 1.0))
    assert cli.main(["bench", str(path), "--rounds", "1", "-o", str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("tiny, 24 x 30, trained at 24 x 30, hole 11%")
    assert "graph" in printed[2]
    found = json.loads((tmp_path / "b").read_text())
    first = found["rows"][0]
    assert (first["backend"], first["precision"]) == ("onnxruntime", "fp32")
    assert set(first["stages"]) == {"encode", "noise", "graph", "paste"}
    assert 0 < first["share"] == pytest.approx(first["gops"] / 100)
    assert 0 < found["gmac"] < 1


def test_bench_times_one_backend_alone(path, monkeypatch, capsys):
    monkeypatch.setattr(peaks, "measure", lambda: peaks.Peaks(1, {"fp32": 100.0}, 1.0))
    asked = ["bench", str(path), "--rounds", "1", "--json"]
    assert cli.main([*asked, "--backend", "openvino", "--precision", "fp32"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["backend"], row["precision"]) for row in rows] == [("openvino", "fp32")]
    assert cli.main([*asked, "--backend", "torch"]) == 1
    assert "--backend torch must be among what this engine has here: " in capsys.readouterr().err


@pytest.mark.parametrize("flag", [["--tune"], ["--chart", "x.png"]])
def test_bench_has_nothing_to_tune_or_draw(path, flag, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", str(path), *flag]) == 1
    assert f"{flag[0]} must be left out for an engine of kind 'idc'" in capsys.readouterr().err

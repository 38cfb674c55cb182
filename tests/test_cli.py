"""The command line: what it writes, what it says, how it ends."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
from PIL import Image as Pillow
from skimage.data import chelsea

import picme_rt
from picme_rt import cli
from picme_rt.backends import BACKENDS
from picme_rt.verbs import complete, demo


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A folder with `cat.png` of 80 x 100 and `mask.png`, in which the test stands."""
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (80, 100, 3), np.uint8), np.zeros((80, 100), np.uint8)
    mask[20:50, 30:70] = 255
    Pillow.fromarray(image).save(tmp_path / "cat.png")
    Pillow.fromarray(mask).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return image, mask


def read(path):
    with Pillow.open(path) as opened:
        return np.asarray(opened)


def picme(*arguments):
    return cli.main([str(argument) for argument in arguments])


def one_line(capsys, says):
    """The error is one line on stderr; nothing is on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("picme: ")
    assert err.count("\n") == 1
    assert says in err


def usage(capsys, says, *arguments):
    """Wrong usage ends with 2, as argparse ends it."""
    with pytest.raises(SystemExit) as caught:
        picme(*arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.fixture(params=["SIGTERM", "SIGHUP"])
def ending(request):
    """A signal that ends a process that does not hear it, as where tests run without nohup."""
    number = getattr(signal, request.param)
    before = signal.signal(number, signal.SIG_DFL)
    yield number
    signal.signal(number, before)


def send(number):
    """What Python does at a signal; a real one may kill this process (own_process.py)."""
    signal.getsignal(number)(number, None)


def test_a_signal_to_end_unwinds_everything_and_is_the_exit_code(ending, monkeypatch, capsys):
    unwound = []

    def told(_):
        try:
            send(ending)
            pytest.fail("it was not heard")
        finally:
            unwound.append(ending)

    monkeypatch.setattr("picme_rt.verbs.info.run", told)
    assert picme("info", "engine") == 128 + ending
    assert unwound == [ending]
    said = capsys.readouterr().err
    assert said == f"picme: ended by {ending.name}; files that were finished are whole\n"
    assert signal.getsignal(ending) is signal.SIG_DFL


def test_a_signal_that_somebody_hears_is_left_to_them(ending, monkeypatch):
    heard = []
    signal.signal(ending, lambda number, _: heard.append(number))
    monkeypatch.setattr("picme_rt.verbs.info.run", lambda _: send(ending))
    assert picme("info", "engine") == 0
    assert heard == [ending]


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        picme("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"picme {picme_rt.__version__}\n"


def test_a_closed_standard_output_is_no_error(disk, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it after >&-
    assert picme("complete", "cat.png", "mask.png", "-o", "out", "-k", 1, "--engine", engine) == 0
    assert (tmp_path / "out" / "cat_00.png").exists()


def test_complete_writes_k_pictures_and_a_sheet(disk, engine, session, tmp_path, capsys):
    image, mask = disk
    assert picme("complete", "cat.png", "mask.png", "-o", "out/a", "-k", 2, "--engine", engine) == 0
    names = ["cat_00.png", "cat_01.png", "cat_sheet.png"]
    assert sorted(p.name for p in (tmp_path / "out" / "a").iterdir()) == names
    out, err = capsys.readouterr()
    assert out.split() == [f"out/a/{name}" for name in names]
    assert err == ""
    want = session.complete(image, mask, k=2).images
    done = [read(f"out/a/{name}") for name in names[:2]]
    assert (np.stack(done) == want).all()
    page = read("out/a/cat_sheet.png")
    assert page.shape == (80 + 16, 3 * 100 + 32, 3)
    assert (page[8:88, 8:108][mask == 0] == image[mask == 0]).all()
    assert (page[8:88, 8:108][mask > 0] == 128).all()
    assert (page[8:88, 116:216] == done[0]).all()
    assert (page[8:88, 224:324] == done[1]).all()


def test_json_says_what_was_done(disk, engine, session, capsys):
    options = ["-k", 3, "--seed", 2**64 - 1, "--mode", "per_primitive", "--temperature", 0.5]
    where = ["-o", "out", "--engine", engine, "--device", "cpu", "--backend", "onnxruntime"]
    assert picme("complete", "cat.png", "mask.png", *where, *options, "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert (report["engine"], report["backend"], report["device"]) == ("cats", "onnxruntime", "cpu")
    assert (report["precision"], report["seed"]) == ("fp32", 2**64 - 1)
    assert report["seconds"] > 0
    assert report["sheet"] == "out/cat_sheet.png"
    want = session.complete(*disk, k=3, seed=2**64 - 1, mode="per_primitive", temperature=0.5)
    for i, result in enumerate(report["results"]):
        assert (result["index"], result["primitive"]) == (i, i)
        assert result["log_prob"] == pytest.approx(float(want.log_prob[i]))
        assert (read(result["path"]) == want.images[i]).all()


def test_an_empty_mask_is_reported_with_null(disk, engine, capsys):
    Pillow.new("L", (100, 80)).save("mask.png")
    assert picme("complete", "cat.png", "mask.png", "-o", "o", "--engine", engine, "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert len(results) == 6
    assert {(one["primitive"], one["log_prob"]) for one in results} == {(None, None)}
    assert (read("o/cat_05.png") == disk[0]).all()


@pytest.mark.skipif(sys.platform != "linux", reason="names are text on other systems")
@pytest.mark.parametrize(
    ("encoding", "name", "printed"),
    [
        ("utf-8", b"caf\xe9", b"caf\xe9"),  # of Latin 1
        ("ascii", "\N{CJK UNIFIED IDEOGRAPH-732B}".encode(), rb"\u732b"),
    ],
)
def test_any_name_is_printed_as_it_is_or_escaped(
    disk, engine, monkeypatch, encoding, name, printed
):
    picture = os.fsdecode(name + b".png")
    shutil.copyfile("cat.png", picture)
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert picme("complete", picture, "mask.png", "-o", "o", "-k", 1, "--engine", engine) == 0
    assert out.buffer.getvalue() == b"o/%b_00.png\no/%b_sheet.png\n" % (printed, printed)


def test_grey_over_127_of_a_mask_file_is_hole(disk, engine):
    image, mask = disk
    Pillow.fromarray(np.where(mask > 0, 128, 127).astype(np.uint8)).save("mask.png")
    assert picme("complete", "cat.png", "mask.png", "-o", "o", "-k", 1, "--engine", engine) == 0
    assert (read("o/cat_00.png")[mask == 0] == image[mask == 0]).all()
    assert (read("o/cat_00.png")[mask > 0] != image[mask > 0]).any()


def test_a_photograph_is_turned_as_its_exif_entry_says(disk, engine):
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Pillow.fromarray(disk[0]).save("turned.png", exif=exif)
    Pillow.fromarray(np.rot90(disk[1], -1)).save("mask.png")
    assert picme("complete", "turned.png", "mask.png", "-o", "o", "-k", 1, "--engine", engine) == 0
    done, known = read("o/turned_00.png"), np.rot90(disk[1], -1) == 0
    assert (done[known] == np.rot90(disk[0], -1)[known]).all()


def test_what_exists_is_kept_unless_forced(disk, engine, tmp_path, capsys):
    command = ["complete", "cat.png", "mask.png", "-o", "out", "-k", 1, "--engine", engine]
    assert picme(*command) == 0
    first = (tmp_path / "out" / "cat_00.png").read_bytes()
    capsys.readouterr()
    assert picme(*command, "--seed", 1) == 1
    one_line(capsys, "out/cat_00.png exists; pass --force")
    assert (tmp_path / "out" / "cat_00.png").read_bytes() == first
    assert picme(*command, "--seed", 1, "--force") == 0
    assert (tmp_path / "out" / "cat_00.png").read_bytes() != first
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_what_is_forced_leaves_nothing_of_the_picture_s_older_results(disk, engine, tmp_path):
    command = ["complete", "cat.png", "mask.png", "-o", "out", "--engine", engine]
    assert picme(*command, "-k", 3) == 0
    (tmp_path / "out" / "cat_9.png").touch()  # none of ours
    assert picme(*command, "-k", 2, "--format", "webp", "--force") == 0
    left = ["cat_00.webp", "cat_01.webp", "cat_9.png", "cat_sheet.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == left
    Pillow.new("L", (100, 79)).save("mask.png")
    assert picme(*command, "-k", 1, "--force") == 1  # what fails deletes nothing
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == left


ERRORS = {
    "no picture": (["none.png", "mask.png"], "there is no picture or folder none.png"),
    "no mask": (["cat.png", "none.png"], "there is no mask file or folder none.png"),
    "picture is text": (["text.png", "mask.png"], "text.png is no picture"),
    "picture is cut": (["cut.png", "mask.png"], "cut.png is no picture"),
    "folder without a picture": (["none", "mask.png", "-o", "."], "no picture"),
    "mask is a folder without it": (["cat.png", ".."], "one mask named cat"),
    "out is the folder itself": ([".", "mask.png", "-o", "."], "must be another folder"),
    "picture of 16 bits": (["deep.png", "mask.png"], "8 bits a channel"),
    "mask of another size": (["cat.png", "small.png"], "mask must have the height and width"),
    "k is 0": (["cat.png", "mask.png", "-k", "0"], "k must be an integer from 1 to"),
    "k is too large": (["cat.png", "mask.png", "-k", "10001"], "k must be at most 10000"),
    "k is absurd": (["cat.png", "mask.png", "-k", str(10**12)], "k must be an integer from 1 to"),
    "one picture resumed": (["cat.png", "mask.png", "--resume"], "--resume goes on with a folder"),
    "seed": (["cat.png", "mask.png", "--seed", "-1"], "seed must be"),
    "primitive": (["cat.png", "mask.png", "--primitive", "6"], "primitive must be"),
    "primitive of none": (
        ["cat.png", "mask.png", "--engine", "patch", "--primitive", "1"],
        "have no primitives: leave out mode='per_primitive' and primitive, got",
    ),
    "temperature": (["cat.png", "mask.png", "--temperature", "nan"], "temperature must be"),
    "device": (["cat.png", "mask.png", "--device", "abacus"], "device must be one of"),
    "precision": (["cat.png", "mask.png", "--precision", "fp1"], "precision must be one of"),
    "out is a file": (["cat.png", "mask.png", "-k", "1", "-o", "text.png"], "text.png: "),
}


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS)
def test_an_error_is_one_line_and_ends_with_1(disk, engine, tmp_path, capsys, case):
    arguments, says = case
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cat.png").read_bytes()[:5000])
    Pillow.new("I;16", (100, 80)).save("deep.png")
    Pillow.new("L", (100, 79)).save("small.png")
    assert picme("complete", "-o", "out", "--engine", engine, *arguments) == 1
    one_line(capsys, says)
    assert not (tmp_path / "out").exists()


def test_an_engine_that_is_none_is_one_line(disk, tmp_path, capsys):
    for verb in (["complete", "cat.png", "mask.png", "-o", "o", "--engine"], ["info"]):
        assert picme(*verb, tmp_path) == 1
        one_line(capsys, "is not an engine")


def test_wrong_usage_ends_with_2(disk, capsys):
    usage(capsys, "required: VERB")
    usage(capsys, "invalid choice: 'paint'", "paint", "cat.png")
    usage(capsys, "required: IMAGE, MASK, -o/--out", "complete")
    usage(capsys, "invalid int value", "complete", "cat.png", "mask.png", "-o", "o", "-k", "six")
    usage(capsys, "invalid choice: 'best'", "complete", "a", "b", "-o", "o", "--mode", "best")
    usage(capsys, "unrecognized arguments: --fast", "complete", "a", "b", "-o", "o", "--fast")


def test_info_prints_what_the_session_says(engine, session, capsys):
    assert picme("info", engine, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    shares = report.pop("decode_share")
    assert report == json.loads(json.dumps(vars(session.info)))
    assert 0 < shares["5 % hole"] < shares["centre hole"] < 1
    assert picme("info", engine) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "backend      onnxruntime" in lines
    assert "licence      CC0" in lines


def test_info_knows_patch_as_the_session_does(tmp_path, monkeypatch, capsys):
    assert picme("info", "patch", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    with picme_rt.Session("patch") as session:
        assert report == json.loads(json.dumps(vars(session.info)))
    assert picme("info", "patch") == 0
    assert "backend      patch" in capsys.readouterr().out.splitlines()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patch").mkdir()
    assert picme("info", "./patch") == 1
    one_line(capsys, "is not an engine")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verb_whose_package_is_missing_names_the_extra(monkeypatch, capsys, verb):
    def absent(name):
        raise ModuleNotFoundError("No module named 'abacus'", name="abacus")

    monkeypatch.setattr(cli.importlib, "import_module", absent)
    assert picme(verb, "a", "b") == 1
    says = f"`picme {verb}` needs abacus, which is not installed; pip install 'picme_rt[%s]'"
    one_line(capsys, says % cli.VERBS[verb].extra)


def test_without_any_backend_the_extra_is_named(disk, engine, monkeypatch, capsys):
    for name in BACKENDS:
        monkeypatch.setitem(sys.modules, name, None)
    assert picme("complete", "cat.png", "mask.png", "-o", "out", "--engine", engine) == 1
    one_line(capsys, "pip install 'picme_rt[cpu]'")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (KeyboardInterrupt(), 130),
        (picme_rt.ClosedError("two\nlines"), 1),
        (PermissionError(13, "Permission denied", "/x"), 1),
        (OSError("disk full"), 1),
    ],
)
def test_whatever_stops_a_verb_is_one_line(monkeypatch, capsys, raised, code):
    def run(arguments):
        raise raised

    monkeypatch.setattr(complete, "run", run)
    assert picme("complete", "a", "b", "-o", "o") == code
    one_line(capsys, "")


def test_a_reader_that_goes_away_is_not_worth_a_line(engine):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-c", "from picme_rt import cli; exit(cli.main())", "info", engine],
            stdout=gone, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")


def test_a_bug_is_not_hidden(monkeypatch):
    def run(arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(complete, "run", run)
    with pytest.raises(ZeroDivisionError):
        picme("complete", "a", "b", "-o", "o")


def test_help_of_every_verb_names_its_defaults(capsys):
    for verb in set(cli.VERBS) - {"completion"}:  # has nothing but the shell's name
        with pytest.raises(SystemExit) as caught:
            picme(verb, "--help")
        assert caught.value.code == 0
        assert "default" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [None, *cli.VERBS])
def test_help_loads_no_framework(verb):
    """So that every help is there at once: what takes seconds to import is imported by `run`."""
    code = (
        "import sys\n"
        "from picme_rt import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    asked = ["--help"] if verb is None else [verb, "--help"]
    done = subprocess.run(
        [sys.executable, "-c", code, *asked], capture_output=True, text=True, check=True
    )
    if verb is None:
        assert all(name in done.stdout for name in cli.VERBS)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {
        "torch",
        "onnxruntime",
        "openvino",
        "onnx",
        "skimage",
        "scipy",
        "tensorboard",
        "matplotlib",
    }
    assert not loaded & (heavy if verb else {*heavy, "PIL", "picme_training"})


def failing(name):
    def run(arguments):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return run


def test_a_package_that_is_missing_when_a_verb_runs_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(complete, "run", failing("abacus"))
    assert picme("complete", "a", "b", "-o", "o") == 1
    one_line(capsys, "needs abacus, which is not installed; pip install 'picme_rt[cpu]'")


def test_a_module_of_ours_that_is_missing_is_a_bug_and_not_hidden(monkeypatch):
    monkeypatch.setattr(complete, "run", failing("picme_rt.nothing"))
    with pytest.raises(ModuleNotFoundError):
        picme("complete", "a", "b", "-o", "o")


def test_a_shell_completes_verbs_and_flags(capsys, tmp_path):
    assert picme("completion", "bash") == 0
    script = tmp_path / "picme.bash"
    script.write_text(capsys.readouterr().out)

    def completed(*words):
        line = " ".join(words)
        code = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            f'COMP_LINE="{line}"; _shtab_picme; echo "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("picme", "comp") == ["complete", "completion"]
    assert completed("picme", "complete", "--mo") == ["--mode"]
    assert completed("picme", "complete", "--mode", "per") == ["per_primitive"]
    assert completed("picme", "train", "--res") == ["--resume"]
    assert "_picme_complete___engine_COMPGEN=_shtab_compgen_files" in script.read_text()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_every_verb(capsys, shell):
    assert picme("completion", shell) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in cli.VERBS)


def test_demo_says_where_the_results_lie_as_json(tmp_path, engine, capsys):
    assert picme("demo", "-o", tmp_path / "d", "-k", 2, "--engine", engine, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert read(report["sheet"]).ndim == 3
    assert [read(path).shape for path in report["results"]] == [(300, 451, 3)] * 2


def test_demo_takes_patch_for_an_engine(tmp_path, monkeypatch):
    def small(shape):
        hole = np.zeros(shape, bool)
        hole[100:108, 100:110] = True
        return hole

    monkeypatch.setattr(demo, "face_hole", small)
    assert picme("demo", "-o", tmp_path / "d", "-k", 1, "--engine", "patch") == 0
    assert (read(tmp_path / "d" / "chelsea_00.png") != chelsea()).any(2).sum() <= 80


def test_the_installed_command_completes_a_picture(disk, engine, session, tmp_path):
    command = shutil.which("picme", path=sysconfig.get_path("scripts"))
    assert command is not None
    arguments = ["complete", "cat.png", "mask.png", "-o", "out", "-k", "1", "--json"]
    done = subprocess.run(
        [command, *arguments, "--engine", str(engine)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["results"][0]["path"] == "out/cat_00.png"
    assert done.stderr == ""
    assert (read("out/cat_00.png") == session.complete(*disk, k=1).images[0]).all()
    refused = subprocess.run([command, "paint"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2


def test_the_demo_completes_a_photograph(engine, tmp_path, capsys):
    assert picme("demo", "-o", tmp_path / "demo", "-k", 1, "--engine", engine) == 0
    page = tmp_path / "demo" / "chelsea_sheet.png"
    assert capsys.readouterr().out == f"the sheet: {page}\n"
    assert read(page).shape == (300 + 16, 2 * 451 + 24, 3)
    assert read(tmp_path / "demo" / "chelsea_00.png").shape == (300, 451, 3)

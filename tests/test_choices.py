"""What was measured on a machine is found there again, and nowhere else; damage is no choice."""

import dataclasses
import json
import logging

import pytest
import tiny_engines
from cpu_backends import EVERY

import picme_rt
from picme_rt import atomic, backends, choices, tuning
from picme_rt import engine as engines
from picme_rt.choices import Measured, Settings

FAST = Measured(Settings("openvino", "fp32", threads=1, micro_batch=4), 3.0)
SLOW = Measured(Settings("onnxruntime", "fp32", threads=2), 9.5)
BF16 = Measured(Settings("openvino", "bf16", threads=1, micro_batch=2), 1.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Choices of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "picme_rt" / "choices"


@pytest.fixture
def path(tmp_path):
    root = tmp_path / "engine"
    (root / "fp32").mkdir(parents=True)
    for name, content in tiny_engines.make(z_m=True).files.items():
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def engine(path):
    return engines.load(path)


def write(engine, measured):
    return choices.write(engine, backends.BACKENDS, measured)


def read(engine):
    return choices.read(engine, backends.BACKENDS)


def opened(path, **asked):
    with picme_rt.Session(path, **asked) as session:
        info = session.info
        return info.backend, info.precision, info.threads, info.micro_batch, info.chosen_by


def test_what_was_measured_is_read_again(engine, cache):
    assert read(engine) == []
    place = write(engine, [SLOW, FAST, BF16])
    assert read(engine) == [SLOW, FAST, BF16]
    assert [p.name for p in cache.iterdir()] == [place.name]  # nothing is left beside it
    write(engine, [SLOW])
    assert read(engine) == [SLOW]


def test_auto_takes_the_fastest_of_a_precision_and_says_so(path, engine):
    assert opened(path)[4] == "default"
    write(engine, [SLOW, FAST, BF16])
    assert opened(path) == ("openvino", "fp32", 1, 4, "measured")  # never bf16 by itself
    chosen = backends.choose(engine, backend="auto", device="auto", precision="bf16")
    assert chosen == (BF16.settings, "measured")
    write(engine, [SLOW])
    assert opened(path) == ("onnxruntime", "fp32", 2, 1, "measured")


def test_a_backend_that_is_named_keeps_its_defaults(path, engine):
    write(engine, [SLOW, FAST, BF16])
    for name in backends.BACKENDS:
        want = (name, "fp32", choices.cores(), 1, "asked")
        assert opened(path, backend=name) == want


def test_a_backend_that_went_away_is_not_chosen(path, engine, monkeypatch):
    write(engine, [SLOW, FAST])
    monkeypatch.setattr(backends, "installed", lambda: ("onnxruntime",))
    assert opened(path)[0] == "onnxruntime"


def test_the_first_stays_unless_another_saves_a_tenth():
    def chosen(*times):
        settings = [Settings("onnxruntime", "fp32", n + 1) for n in range(len(times))]
        return choices.fastest([*map(Measured, settings, times)]).threads - 1

    assert chosen(10.0) == 0
    assert chosen(10.0, 9.1, 20.0) == 0
    assert chosen(10.0, 8.9, 20.0) == 1
    assert chosen(10.0, 8.9, 8.8) == 2


def test_another_machine_version_or_engine_finds_nothing(engine, monkeypatch):
    write(engine, [FAST])
    file = dataclasses.replace(engine.files["fp32/decoder.onnx"], sha256="0" * 64)
    other = dataclasses.replace(engine, files={**engine.files, "fp32/decoder.onnx": file})
    assert read(other) == []
    for name, value in (("cores", 99), ("_cpu", "abacus"), ("_version", "0.0.1")):
        with monkeypatch.context() as patched:
            patched.setattr(choices, name, lambda *_, value=value: value)
            assert read(engine) == []
    assert read(engine) == [FAST]


def change(**entries):
    """Writes other entries into the first of what was measured."""

    def apply(text):
        content = json.loads(text)
        content["measured"][0].update(entries)
        return json.dumps(content)

    return apply


DAMAGED = {
    "cut": lambda text: text[:-9],
    "empty": lambda text: "",
    "no text": lambda text: "\udcff\udcfe",
    "no object": lambda text: "[]",
    "of another machine": lambda text: text.replace('"cores": ', '"cores": 1'),
    "without what was measured": lambda text: text.replace('"measured"', '"other"'),
    "deep": lambda text: "[" * 60_000,
    "endless": lambda text: text + " " * (1 << 17) + "!",
    "a foreign backend": change(backend="os"),
    "threads as text": change(threads="2"),
    "threads as truth": change(threads=True),
    "no threads": change(threads=0),
    "a huge micro-batch": change(micro_batch=10**9),
    "precision as number": change(precision=32),
    "time that is none": change(milliseconds=float("nan")),
    "no time": change(milliseconds=0.0),
    "lower as number": change(lower=0),
    "an entry too few": lambda text: text.replace('"threads"', '"thread"'),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_ignored_with_one_warning(path, engine, damage, caplog):
    place = write(engine, [FAST])
    text = damage(place.read_text())
    place.write_bytes(text.encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING):
        assert opened(path)[0] == "onnxruntime"
    (said,) = caplog.messages
    assert said.startswith(f"{place} is ignored: ")
    assert said.endswith(f"`picme bench {path} --tune` writes it anew")
    assert "\n" not in said
    write(engine, [FAST])
    caplog.clear()
    assert opened(path)[0] == "openvino"
    assert not caplog.messages


def test_a_folder_in_its_place_is_ignored_too(path, engine, caplog):
    place = write(engine, [FAST])
    place.unlink()
    place.mkdir()
    assert opened(path)[4] == "default"
    assert "is ignored" in caplog.text


def test_a_write_that_fails_leaves_what_was_there(engine, cache, monkeypatch):
    write(engine, [FAST])

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(atomic, "_sync", full)
    with pytest.raises(OSError, match="No space left"):
        write(engine, [SLOW])
    monkeypatch.undo()
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("root", ["", "relative/cache"])
def test_without_a_cache_folder_it_is_in_the_home(engine, monkeypatch, tmp_path, root):
    monkeypatch.setenv("XDG_CACHE_HOME", root)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert write(engine, [FAST]).is_relative_to(tmp_path / "home" / ".cache" / "picme_rt")
    assert read(engine) == [FAST]


def test_without_a_home_nothing_is_read_and_writing_says_why(path, engine, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(choices.os.path, "expanduser", lambda path: path)
    assert opened(path)[4] == "default"
    with pytest.raises(OSError, match="set XDG_CACHE_HOME"):
        write(engine, [FAST])


def test_results_for_measured_settings_are_those_within_a_level(path, engine, picture):
    image, mask = picture
    want = picme_rt.Session(path, backend="onnxruntime").complete(image, mask, k=6, seed=1)
    write(engine, [Measured(Settings("onnxruntime", "fp32", threads=1, micro_batch=4), 1.0)])
    with picme_rt.Session(path) as session:
        assert session.info.micro_batch == 4
        got, prepared = session.complete(image, mask, k=6, seed=1), session.encode(image, mask)
        for k in (1, 4, 5):  # whole and padded micro-batches
            assert (prepared.complete(k=k, seed=1).images == got.images[:k]).all()
        assert (prepared.complete(k=2, seed=1, first=4).images == got.images[4:]).all()
    assert (want.log_prob == got.log_prob).all()
    assert abs(want.images.astype(int) - got.images).max() <= 1


@pytest.fixture
def soon(monkeypatch):
    """Tuning that does not wait until results go side by side."""
    monkeypatch.setattr(tuning, "_WARM", 0.01)


@pytest.mark.usefixtures("soon")
def test_tuning_measures_every_backend_and_precision_that_runs_here(engine):
    found = tuning.tune(engine)
    assert [(one.settings.backend, one.settings.precision) for one in found] == EVERY
    for settings, milliseconds, lower in found:
        assert not lower
        assert settings.threads >= 1
        assert settings.micro_batch in (1, 2, 3)
        assert 0 < milliseconds < 60_000


@pytest.mark.usefixtures("soon")
def test_tuning_leaves_out_a_precision_that_this_cpu_lacks(engine, monkeypatch):
    load = backends.load

    def older(engine, settings, **given):
        if settings.precision == "bf16":
            raise picme_rt.UnavailableError("no bf16 here")
        return load(engine, settings, **given)

    monkeypatch.setattr(backends, "load", older)
    assert {one.settings.precision for one in tuning.tune(engine)} == {"fp32"}


@pytest.mark.parametrize(
    ("limit", "most"), [("max 100000", None), ("150000 100000", 2), ("20000 100000", 1), ("", None)]
)
def test_a_container_s_share_of_the_processors_bounds_the_cores(limit, most, tmp_path, monkeypatch):
    monkeypatch.setattr(choices.os, "sched_getaffinity", lambda _: range(10**6, 10**6 + 8))
    place = tmp_path / "cpu.max"
    monkeypatch.setattr(choices, "_CPU_MAX", place)
    assert choices.cores() == 8  # no file
    place.write_text(limit)
    assert choices.cores() == (most or 8)

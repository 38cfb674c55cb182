"""A folder on several devices: the bytes, words and order of one session; devices are pretended."""

import ctypes
import dataclasses
import json
import threading

import numpy as np
import pytest
from PIL import Image as Pillow

import picme_rt
from picme_rt import cli, device_list, folder
from picme_rt.errors import InputError, UnavailableError
from picme_rt.verbs import complete

NAMES = "abcdef"


class Pretended(picme_rt.Session):
    """A session on the CPU that says it is elsewhere, and remembers what it was given."""

    opened: list["Pretended"] = []  # noqa: RUF012  # emptied by the fixture

    def __init__(self, engine, *, device, **options):
        if device == "fake:9":
            raise UnavailableError("there is no fake:9")
        if device == "fake:8":
            options["threads"] = 2
        super().__init__(engine, device="cpu", **options)
        self.place, self.pictures, self.closed = device, [], False
        self.opened.append(self)

    @property
    def info(self):
        return dataclasses.replace(super().info, device=self.place)

    def encode(self, img, mask):
        self.pictures.append(img.shape)
        return super().encode(img, mask)

    def close(self):
        self.closed = True
        super().close()


@pytest.fixture
def sessions(monkeypatch):
    monkeypatch.setattr(complete, "Session", Pretended)
    monkeypatch.setattr(Pretended, "opened", [])
    return lambda: Pretended.opened


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Stand in a folder with six photos, c broken, and masks of the same names."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for place in ("photos", "masks"):
        (tmp_path / place).mkdir()
    for i, name in enumerate(NAMES):
        shape = (30 + 7 * i, 44)
        img, hole = rng.integers(0, 256, (*shape, 3), np.uint8), np.zeros(shape, np.uint8)
        hole[5:25, 10:40] = 255
        Pillow.fromarray(img).save(f"photos/{name}.png")
        Pillow.fromarray(hole).save(f"masks/{name}.png")
    whole = (tmp_path / "photos" / "c.png").read_bytes()
    (tmp_path / "photos" / "c.png").write_bytes(whole[: len(whole) // 2])
    return tmp_path


@pytest.fixture
def picme(engine, sessions):
    def run(device, *more, out="out"):
        command = ["complete", "photos", "masks", "-o", out, "-k", "2", "--engine", str(engine)]
        return cli.main([*command, "--device", device, *more])

    return run


def contents(place):
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_several_devices_leave_the_bytes_words_and_order_of_one(disk, picme, sessions, capsys):
    assert picme("fake:0", out="one") == 1
    want = capsys.readouterr()
    assert want.out.split() == [f"one/{name}_sheet.png" for name in "abdef"]
    for given in ("fake:0,fake:1", "fake:2, fake:0, fake:1", "fake:0,fake:1,fake:2,fake:3,fake:4"):
        sessions().clear()
        assert picme(given, "--force", out="many") == 1
        got = capsys.readouterr()
        assert (got.out.replace("many/", "one/"), got.err) == want
        assert contents(disk / "many") == contents(disk / "one")
        assert [one.place for one in sessions()] == [name.strip() for name in given.split(",")]
        assert sum(len(one.pictures) for one in sessions()) == 5
        assert all(one.closed for one in sessions())


def test_every_device_has_pictures_at_the_same_time(disk, picme, sessions, monkeypatch):
    together, encode = threading.Barrier(3), Pretended.encode
    lock, places = threading.Lock(), ["fake:0", "fake:1", "fake:2"]

    def encode_together(self, img, mask):
        with lock:
            first = self.place in places
            if first:
                places.remove(self.place)
        if first:
            together.wait(60)  # breaks unless every device has come as far
        return encode(self, img, mask)

    monkeypatch.setattr(Pretended, "encode", encode_together)
    assert picme("fake:0,fake:1,fake:2") == 1
    assert all(one.pictures for one in sessions())


def test_a_run_says_on_which_devices(disk, picme, capsys):
    assert picme("fake:0,fake:1", "--json") == 1
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["device"], summary["completed"]) == ("fake:0,fake:1", 5)


def test_a_run_that_was_stopped_goes_on_with_other_devices(disk, picme, capsys, monkeypatch):
    assert picme("fake:0", out="whole") == 1
    write = folder.files.write_picture

    def full(path, photograph):
        if path.name == "d_01.png":
            raise OSError(28, "No space left on device", str(path))
        write(path, photograph)

    capsys.readouterr()
    monkeypatch.setattr(folder.files, "write_picture", full)
    assert picme("fake:0,fake:1,fake:2") == 1
    out, err = capsys.readouterr()
    assert out.split() == ["out/a_sheet.png", "out/b_sheet.png"]
    assert err == "picme: out/d_01.png: No space left on device\n"
    monkeypatch.setattr(folder.files, "write_picture", write)
    stamps = {p.name: p.stat().st_mtime_ns for p in (disk / "out").iterdir()}
    assert {"a_00.png", "b_01.png", "d_00.png"} <= set(stamps)
    assert picme("fake:1,fake:3", "--resume") == 1
    assert contents(disk / "out") == contents(disk / "whole")
    assert {name: (disk / "out" / name).stat().st_mtime_ns for name in stamps} == stamps


def test_devices_that_would_make_other_bits_are_refused(disk, picme, sessions, capsys):
    assert picme("fake:0,fake:8") == 1
    assert "devices must make the same results, got threads 1 and 2 on fake:0 and fake:8" in (
        capsys.readouterr().err
    )
    assert not (disk / "out").exists()
    assert all(one.closed for one in sessions())


def test_a_device_that_is_missing_ends_the_run_before_it_begins(disk, picme, sessions, capsys):
    assert picme("fake:0,fake:9") == 1
    assert capsys.readouterr().err == "picme: there is no fake:9\n"
    assert not (disk / "out").exists()
    assert [one.closed for one in sessions()] == [True]


def test_one_picture_is_not_shared(disk, sessions, capsys):
    command = ["complete", "photos/a.png", "masks", "-o", "out", "--device", "fake:0,fake:1"]
    assert cli.main(command) == 1
    assert "several devices share a folder of pictures, got photos/a.png" in capsys.readouterr().err
    assert not sessions()


def test_names_of_devices_are_read():
    assert device_list.read("auto") == ["auto"]
    assert device_list.read("cuda:1, cuda:0") == ["cuda:1", "cuda:0"]
    for wrong in ("", "cuda:0,", "cuda:0,cuda:0", ","):
        with pytest.raises(InputError, match="device must be one name"):
            device_list.read(wrong)


class Driver:
    """The two calls of the driver that are made."""

    def __init__(self, count, error):
        self.count, self.error = count, error

    def cuInit(self, flags):
        return self.error

    def cuDeviceGetCount(self, place):
        place._obj.value = self.count
        return 0


def test_all_are_the_gpus_that_the_driver_counts(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(3, 0))
    assert device_list.read("all") == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(0, 100))
    with pytest.raises(UnavailableError, match=r"driver names none \(error 100\)"):
        device_list.read("all")

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(UnavailableError, match="needs the NVIDIA driver"):
        device_list.read("all")

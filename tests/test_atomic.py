"""Whatever ends a writer, at any moment: its place is the whole old one or the whole new one."""

import contextlib
import errno
import fcntl
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import pytest

from picme_rt import atomic, cli
from picme_rt.errors import InputError

CALLS = (
    *((os, name) for name in ("mkdir", "open", "write", "fsync", "close")),
    *((os, name) for name in ("rename", "replace", "unlink", "rmdir", "stat", "scandir")),
    (fcntl, "flock"),
    (atomic, "_swap"),
)
OLD, NEW = {"one": b"old", "two": b"old"}, {"one": b"new", "two": b"new"}
CHANGING = {
    "mkdir",
    "open",
    "write",
    "fsync",
    "rename",
    "replace",
    "unlink",
    "rmdir",
    "flock",
    "_swap",
}
NOBODY = 65534


@pytest.fixture(autouse=True)
def quick_sync(monkeypatch):
    """A kill takes nothing from a disk: only its order among the calls matters here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def put(path, content):
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    os.write(handle, content[:1])
    os.write(handle, content[1:])
    os.close(handle)


def make_directory(place):
    with atomic.directory(place, force=True) as fresh:
        for name, content in NEW.items():
            put(fresh / name, content)


def make_file(place):
    with atomic.file(place) as fresh:
        put(fresh, b"new")


def found(place):
    """What a place holds: None, the bytes of a file, or those of each file of a directory."""
    if place.is_dir():
        return {path.name: path.read_bytes() for path in place.iterdir()}
    return place.read_bytes() if place.exists() else None


class Scene:
    """A folder whose `place` holds nothing or an old state, and a writer of a new one."""

    def __init__(self, folder, kind, old):
        self.place = folder / "place"
        self.write = make_directory if kind == "directory" else make_file
        self.new = NEW if kind == "directory" else b"new"
        self.old = (OLD if kind == "directory" else b"old") if old else None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if kind == "directory" and old:
            self.place.mkdir()
            for name, content in OLD.items():
                (self.place / name).write_bytes(content)
        elif old:
            self.place.write_bytes(b"old")

    @property
    def leftovers(self):
        return [path for path in self.place.parent.iterdir() if path != self.place]


@contextlib.contextmanager
def at_call(number, act, *, late=False):
    """Calls `act(name)` instead of the system call of that number, or after it; gives the names."""
    seen = []

    def instead(real, name):
        def call(*given, **named):
            seen.append(name)
            if len(seen) != number:
                return real(*given, **named)
            if late:
                real(*given, **named)
            return act(name)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module, name in CALLS:
            patch.setattr(module, name, instead(getattr(module, name), name))
        yield seen


def calls_of(folder, kind, old):
    """The system calls of an undisturbed writer, by name."""
    scene = Scene(folder, kind, old)
    with at_call(0, None) as seen:
        scene.write(scene.place)
    assert found(scene.place) == scene.new
    return seen


def in_child(work):
    """Runs `work` in a forked process and gives its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child runs nothing but this
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(params=["swap", "renames"])
def system(request, monkeypatch):
    """A system that swaps two names in one step, and one that cannot."""
    if request.param == "renames":
        monkeypatch.setattr(atomic, "_swap", lambda one, other: False)
    return request.param


SCENES = pytest.mark.parametrize(
    ("kind", "old"),
    [("directory", False), ("directory", True), ("file", False), ("file", True)],
)


# Killed


@SCENES
def test_a_writer_killed_before_any_of_its_calls_leaves_the_whole_old_or_the_whole_new(
    tmp_path, system, kind, old
):
    folder = tmp_path / "folder"
    count = len(calls_of(folder, kind, old))
    assert count > 10
    states, left = [], 0
    for number in range(1, count + 2):
        scene = Scene(folder, kind, old)

        def work(number=number, scene=scene):
            with at_call(number, lambda name: os._exit(9)):
                scene.write(scene.place)
            os._exit(0)

        assert in_child(work) == (9 if number <= count else 0)
        if system == "swap" or kind == "file":  # else the sweep gives the old one its name back
            assert found(scene.place) in (scene.old, scene.new)
        left += bool(scene.leftovers)
        atomic.sweep(folder)
        assert scene.leftovers == []
        states.append(found(scene.place))
    turn = states.index(scene.new)
    assert states == [scene.old] * turn + [scene.new] * (len(states) - turn)
    assert turn > 10
    assert left > 10


def test_between_two_renames_there_is_neither_until_the_same_place_is_written_again(tmp_path):
    """The cost of a system without the swap; the next writer of the place makes it good."""
    scene = Scene(tmp_path / "folder", "directory", True)

    def work():
        atomic._swap = lambda one, other: False
        real = Path.rename
        Path.rename = lambda self, to: os._exit(9) if self.name == "new" else real(self, to)
        scene.write(scene.place)

    assert in_child(work) == 9
    assert found(scene.place) is None
    with pytest.raises(InputError, match="place exists"), atomic.directory(scene.place):
        pass
    assert found(scene.place) == OLD
    assert scene.leftovers == []


def test_a_killed_removal_never_leaves_half_of_what_it_removes(tmp_path):
    for number in range(1, 30):
        scene = Scene(tmp_path / "folder", "directory", True)

        def work(number=number, scene=scene):
            with at_call(number, lambda name: os._exit(9)):
                atomic.remove(scene.place)
            os._exit(0)

        done = in_child(work) == 0
        assert found(scene.place) in (OLD, None)
        atomic.sweep(scene.place.parent)
        assert scene.leftovers == []
        if done:
            break
    assert number > 8
    assert found(scene.place) is None


# Failing


@SCENES
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_any_call_that_fails_ends_in_an_error_that_names_the_place(
    tmp_path, system, kind, old, code
):
    folder = tmp_path / "folder"
    names = calls_of(folder, kind, old)

    def fail(name):
        raise OSError(code, os.strerror(code))

    parent = names.index("mkdir") + 1 if kind == "directory" else 0  # exists: it need not be made
    turned = len(names) - names[::-1].index("fsync")  # what follows is tidying
    for number in range(1, len(names) + 1):
        scene, name = Scene(folder, kind, old), names[number - 1]
        error = None
        with at_call(number, fail):
            try:
                scene.write(scene.place)
            except OSError as exc:
                error = exc
        assert error is None or (error.errno, error.filename) == (code, str(scene.place)), name
        now = found(scene.place)
        assert now in (scene.old, scene.new)
        if number == parent:
            assert now == scene.new
        elif name in {"write", "fsync", "rename", "replace", "_swap", "mkdir"}:
            assert error is not None, name
            if number < turned:
                assert now == scene.old
                assert scene.leftovers == []
        atomic.sweep(folder)
        assert scene.leftovers == []


def test_a_directory_is_on_disk_before_it_gets_its_name(tmp_path):
    """Every file, every directory and the names in them; the folder itself comes last."""
    scene, synced = Scene(tmp_path / "folder", "directory", False), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "_sync", lambda path: synced.append((path.name, path.exists())))
        with atomic.directory(scene.place) as fresh:
            (fresh / "deep").mkdir()
            (fresh / "deep" / "file").touch()
    assert sorted(synced[:-1]) == [("deep", True), ("file", True), ("new", True)]
    assert synced[-1] == ("folder", True)


def test_a_folder_that_keeps_names_by_itself_needs_no_sync_but_a_file_does(tmp_path, monkeypatch):
    def fail(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    make_file(tmp_path / "place")

    def refuse(handle):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Invalid argument"):
        make_file(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_block_that_raises_leaves_the_old_one(tmp_path, kind):
    scene = Scene(tmp_path / "folder", kind, True)
    writer = (
        atomic.directory(scene.place, force=True)
        if kind == "directory"
        else atomic.file(scene.place)
    )
    with contextlib.suppress(ZeroDivisionError), writer as fresh:
        put(fresh / "one" if kind == "directory" else fresh, b"half")
        raise ZeroDivisionError
    assert found(scene.place) == scene.old
    assert scene.leftovers == []


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic.directory(tmp_path / "place"):
        (tmp_path / "card.md").read_bytes()
    assert caught.value.filename == str(tmp_path / "card.md")


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_is_none_is_an_error_with_the_place_s_name(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught, atomic.file(tmp_path / folder / "x.png"):  # noqa: PT011  # two kinds
        pass
    assert caught.value.filename == str(tmp_path / folder / "x.png")


@pytest.fixture
def open_path():
    """A folder that everybody may enter; pytest's own ones are its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_folder_that_may_not_be_written_is_an_error_with_the_place_s_name(open_path):
    """Root may write everywhere: so a child that is nobody tries."""
    scene = Scene(open_path / "folder", "directory", True)
    scene.place.parent.chmod(0o555)

    def work():
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        for write in (make_directory, make_file, atomic.remove):
            try:
                write(scene.place)
            except PermissionError as exc:
                if exc.filename != str(scene.place):
                    os._exit(3)
            else:
                os._exit(4)
        os._exit(0)

    code = in_child(work)
    scene.place.parent.chmod(0o755)
    assert code == 0
    assert found(scene.place) == OLD
    assert scene.leftovers == []


def test_the_command_line_says_it_in_one_line(tmp_path, monkeypatch, capsys):
    def fail(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Module:
        add_arguments = staticmethod(lambda parser: None)
        run = staticmethod(lambda arguments: make_file(tmp_path / "x.png"))

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Module)
    monkeypatch.setattr(os, "fsync", fail)
    assert cli.main(["info"]) == 1
    assert capsys.readouterr().err == f"picme: {tmp_path}/x.png: No space left on device\n"


# Interrupted


@SCENES
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_ctrl_c_at_any_call_leaves_the_whole_old_or_the_whole_new(
    tmp_path, system, kind, old, late
):
    folder = tmp_path / "folder"

    def interrupt(name):
        raise KeyboardInterrupt

    for number, name in enumerate(calls_of(folder, kind, old), 1):
        if late and name not in CHANGING:
            continue  # is the same as before the next one
        scene = Scene(folder, kind, old)
        with at_call(number, interrupt, late=late), contextlib.suppress(KeyboardInterrupt):
            scene.write(scene.place)
        assert found(scene.place) in (scene.old, scene.new), (number, name)


def test_ctrl_c_while_it_is_written_leaves_nothing(tmp_path):
    for writer in (atomic.directory(tmp_path / "place"), atomic.file(tmp_path / "place")):
        with contextlib.suppress(KeyboardInterrupt), writer as fresh:
            put(fresh / "one" if fresh.is_dir() else fresh, b"half")
            raise KeyboardInterrupt
        assert not list(tmp_path.iterdir())


# Several at once


def write_many(write, place, go):
    go.wait()
    for _ in range(10):
        write(place)
        atomic.sweep(place.parent)


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_writers_of_one_place_and_their_sweeps_never_disturb_one_another(tmp_path, system, kind):
    scene, go, errors = Scene(tmp_path / "folder", kind, True), threading.Event(), []

    def work():
        try:
            write_many(scene.write, scene.place, go)
        except OSError as exc:  # two renames: another writer may come between them
            if system == "swap" or exc.errno not in {errno.ENOTEMPTY, errno.ENOENT}:
                errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    go.set()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(0.001)
        if kind == "file":
            assert found(scene.place) in (scene.old, scene.new)
    assert errors == []
    # without the swap, one that had to give up may give the old one back
    assert found(scene.place) in (scene.new, scene.old if system == "renames" else scene.new)
    atomic.sweep(scene.place.parent)
    assert scene.leftovers == []


def test_writers_in_several_processes_do_not_disturb_one_another_either(tmp_path):
    scene, context = Scene(tmp_path / "folder", "directory", True), multiprocessing
    go = context.get_context("spawn").Event()
    writers = [
        context.get_context("spawn").Process(
            target=write_many, args=(make_directory, scene.place, go)
        )
        for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    go.set()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert found(scene.place) == NEW
    assert scene.leftovers == []


def test_a_place_that_appears_meanwhile_is_kept(tmp_path):
    def write():
        with atomic.directory(tmp_path / "place"):
            (tmp_path / "place").mkdir()
            (tmp_path / "place" / "one").write_bytes(b"theirs")

    with pytest.raises(InputError, match="appeared meanwhile"):
        write()
    assert found(tmp_path / "place") == {"one": b"theirs"}
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


# Sweeping


def test_a_living_writer_s_directory_is_not_swept_by_anybody(tmp_path):
    with atomic.directory(tmp_path / "place") as fresh:
        put(fresh / "one", b"new")
        atomic.sweep(tmp_path)
        assert in_child(lambda: (atomic.sweep(tmp_path), os._exit(0))) == 0
        assert found(fresh) == {"one": b"new"}
    assert found(tmp_path / "place") == {"one": b"new"}


def test_a_sweep_takes_nothing_but_leftovers(tmp_path):
    for name in (".picme-x", ".hidden.tmp", "picme-abc.tmp", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "picture.png").touch()
    before = sorted(tmp_path.iterdir())
    (tmp_path / ".picme-abcd1234.tmp" / "new" / "deep").mkdir(parents=True)
    atomic.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    atomic.sweep(tmp_path / "missing")


def test_writing_a_directory_again_sweeps_what_killed_writers_left(tmp_path):
    (tmp_path / ".picme-abcd1234.tmp" / "new").mkdir(parents=True)
    make_directory(tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_another_user_s_leftover_is_left_alone(open_path):
    (open_path / ".picme-abcd1234.tmp").mkdir(0o700)
    if os.getuid():
        (open_path / ".picme-abcd1234.tmp").chmod(0)

    def work():
        if os.getuid() == 0:
            os.setuid(NOBODY)
        atomic.sweep(open_path)
        os._exit(0)

    assert in_child(work) == 0
    assert len(list(open_path.iterdir())) == 1


def test_a_writer_whose_directory_is_swept_before_it_is_locked_takes_another(tmp_path, monkeypatch):
    real, swept = atomic._lock, []

    def slow(own):
        if not swept:
            swept.append(own)
            shutil.rmtree(own)
        return real(own)

    monkeypatch.setattr(atomic, "_lock", slow)
    make_directory(tmp_path / "place")
    assert swept
    assert found(tmp_path / "place") == NEW


def test_a_lock_on_a_directory_that_is_gone_is_no_lock(tmp_path, monkeypatch):
    """The sweep deleted it while the writer waited to open it."""
    own, real = tmp_path / "own", fcntl.flock
    own.mkdir()
    monkeypatch.setattr(fcntl, "flock", lambda *given: (real(*given), own.rmdir()))
    with pytest.raises(FileNotFoundError):
        atomic._lock(own)


@pytest.mark.parametrize("code", sorted(atomic._NO_LOCKS))
def test_where_there_are_no_locks_leftovers_stay(tmp_path, monkeypatch, code):
    def fail(handle, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    (tmp_path / ".picme-abcd1234.tmp").mkdir()
    make_directory(tmp_path / "place")
    assert found(tmp_path / "place") == NEW
    assert sorted(path.name for path in tmp_path.iterdir()) == [".picme-abcd1234.tmp", "place"]


def test_a_system_without_such_locks_at_all_writes_and_leaves_leftovers(tmp_path):
    """Windows has no fcntl: the module is imported as it would be there."""
    code = f"""
import sys
from pathlib import Path
import picme_rt.errors
sys.modules["fcntl"], sys.platform, folder = None, "win32", Path({str(tmp_path)!r})
from picme_rt import atomic
atomic._swap = lambda one, other: False
(folder / ".picme-abcd1234.tmp").mkdir()
for content in ("old", "new"):
    with atomic.directory(folder / "place", force=True) as fresh:
        (fresh / "one").write_text(content)
    with atomic.file(folder / "file") as fresh:
        fresh.write_text(content)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "place" / "one").read_text() == "new"
    assert (tmp_path / "file").read_text() == "new"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".picme-abcd1234.tmp", "file", "place"]


# What they make


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002, 0o077])
def test_results_have_the_modes_that_an_ordinary_open_gives(tmp_path, umask):
    def work():
        os.umask(umask)
        make_directory(tmp_path / "place")
        make_file(tmp_path / "file")
        os._exit(0)

    assert in_child(work) == 0
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    plain = 0o666 & ~umask
    assert modes == {"place": 0o777 & ~umask, "one": plain, "two": plain, "file": plain}


def test_a_link_is_replaced_and_not_what_it_points_to(tmp_path):
    scene = Scene(tmp_path / "folder", "directory", True)
    (tmp_path / "link").symlink_to(scene.place)
    make_directory(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    assert found(tmp_path / "link") == NEW
    assert found(scene.place) == OLD


def test_a_name_as_long_as_names_may_be_is_written(tmp_path):
    make_file(tmp_path / ("x" * 255))
    make_directory(tmp_path / ("y" * 255))
    assert len(list(tmp_path.iterdir())) == 2


def test_names_are_swapped_in_one_step_here(tmp_path):
    """Linux: else the tests above would prove nothing about the swap."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.touch()
    assert atomic._swap(one, other)
    assert one.is_file()
    assert other.is_dir()
    with pytest.raises(FileNotFoundError) as caught:
        atomic._swap(one, tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")

"""What a folder of results was made with, in OUT/picme_run.json, so that no two runs are mixed."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from picme_rt import atomic, files
from picme_rt.encoded import Request
from picme_rt.errors import InputError
from picme_rt.folder import MOST, Task
from picme_rt.models import Info

NAME = "picme_run.json"
_FORMAT = 3


def of(info: Info, request: Request, form: str) -> dict[str, Any]:
    """What decides the bits of every result, as JSON holds it."""
    return {
        "record": _FORMAT,
        "engine": info.sha256,
        "backend": info.backend,
        "precision": info.precision,
        "threads": info.threads,
        "micro_batch": info.micro_batch,
        **request._asdict(),
        "format": form,
    }


def agree(infos: Sequence[Info], request: Request, form: str) -> dict[str, Any]:
    """The record of sessions that share a folder.

    Raises:
        InputError: They would make different bits of one picture.
    """
    first, *rest = (of(info, request, form) for info in infos)
    for info, other in zip(infos[1:], rest, strict=True):
        which = [name for name in first if first[name] != other[name]]
        if which:
            said = ", ".join(f"{name} {first[name]} and {other[name]}" for name in which)
            raise InputError(
                f"devices must make the same results, got {said} on {infos[0].device} and "
                f"{info.device}; name --backend, --precision and --threads"
            )
    return first


def begin(out: Path, planned: Sequence[Task], record: dict[str, Any], *, force: bool) -> None:
    """Prepares a folder for a new run.

    Args:
        out: The folder.
        planned: Its tasks.
        record: What the results will be made with, see `of`.
        force: Whether results that are there are deleted: all that the record there names, and
            what else there is of the planned pictures.

    Raises:
        InputError: Results are there and `force` is not set.
    """
    if not force:
        if (out / NAME).exists():
            raise InputError(f"{out} holds a run; pass --resume to go on, --force to overwrite it")
        _refuse(planned, "pass --force to overwrite, or another --out")
    atomic.sweep(out)
    # the old record goes last: whoever is killed finds again what is left, and whose it is
    doomed = [path for task in planned for path in task.left()]
    for path in (*doomed, *_named(out)):
        path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    _write(out, record, [task.name for task in planned])


def resume(out: Path, planned: Sequence[Task], record: dict[str, Any]) -> None:
    """Prepares a folder to go on with its run; pictures that are new to it join it.

    Raises:
        InputError: There is no run, or it was made with something else; or there are results of a
            picture that was not part of it.
    """
    if not (out / NAME).exists():
        raise InputError(f"{out} holds no run to go on with; leave out --resume")
    known = _pictures(out, record)
    there = set(known)
    fresh = [task for task in planned if task.name not in there]
    _refuse(fresh, f"the run in {out} did not make it: move it, or choose another --out")
    atomic.sweep(out)
    if fresh:
        _write(out, record, [*known, *(task.name for task in fresh)])


def check_one(task: Task, record: dict[str, Any], *, force: bool) -> None:
    """Checks that one picture's results may be written, beside those of a run if there is one.

    Raises:
        InputError: The folder holds a run that was made with something else; or results are there
            and `force` is not set.
    """
    if (task.out / NAME).exists():
        _pictures(task.out, record)
    if not force:
        _refuse([task], "pass --force to overwrite, or another --out")


def join(task: Task, record: dict[str, Any]) -> None:
    """Makes one picture, whose results are all there, part of its folder's run if there is one."""
    if (task.out / NAME).exists():
        with atomic.alone(task.out):  # others may add theirs at the same moment
            known = _pictures(task.out, record)
            if task.name not in known:
                _write(task.out, record, [*known, task.name])


def _refuse(planned: Iterable[Task], cure: str) -> None:
    if there := next((path for task in planned for path in task.existing()), None):
        raise InputError(f"{there} exists; {cure}")


def _write(out: Path, record: dict[str, Any], pictures: list[str]) -> None:
    with atomic.file(out / NAME) as fresh:
        fresh.write_text(json.dumps({**record, "pictures": pictures}, indent=1) + "\n")


def _read(out: Path) -> dict[str, Any]:
    """The record of a folder, and under `pictures` the names of its pictures.

    Raises:
        InputError: It is damaged, or of another version.
    """
    again = "begin the folder again with --force, or choose another --out"
    try:
        there = json.loads((out / NAME).read_bytes())
    except ValueError as exc:
        raise InputError(f"{out / NAME} is damaged: {exc}; {again}") from exc
    if not isinstance(there, dict) or there.get("record") != _FORMAT:
        raise InputError(f"{out} was made with another version of picme_rt; {again}")
    pictures = there.get("pictures")
    if not isinstance(pictures, list) or not all(map(_is_plain, pictures)):
        raise InputError(f"{out / NAME} is damaged: it does not name its pictures; {again}")
    return there


def _is_plain(name: object) -> bool:
    """Whether it is a file's name, which leads to no other folder."""
    return isinstance(name, str) and name == Path(name).name and "\0" not in name


def _pictures(out: Path, record: dict[str, Any]) -> list[str]:
    """The names of the pictures of a folder's run.

    Raises:
        InputError: The run was made with something else than `record`.
    """
    there = _read(out)
    pictures: list[str] = there.pop("pictures")
    if there != record:
        every = [_differs(name, there.get(name), now) for name, now in record.items()]
        which = " and ".join(filter(None, every)) or "version of picme_rt"
        raise InputError(
            f"{out} was made with another {which}; ask for the same, or choose another --out"
        )
    return pictures


def _differs(name: str, there: object, now: object) -> str:
    """An option and its two values, if they differ; an engine's digests say nothing to anybody."""
    if there == now:
        return ""
    return name if isinstance(now, dict) else f"{name} ({there}, not {now})"


def _named(out: Path) -> list[Path]:
    """All files that the record of a folder speaks of; none where it is missing or damaged."""
    if not (out / NAME).exists():
        return []
    try:
        there = _read(out)
    except InputError:
        return []
    k, form = there.get("k"), there.get("format")
    if not isinstance(k, int) or not 0 < k <= MOST or form not in files.FORMATS:
        return []
    # a suffix, for a task takes one off, and a picture may be named a.b
    plain = [Task(Path(f"{name}.png"), Path(), out, k, form) for name in there["pictures"]]
    return [path for task in plain for path in task.paths]

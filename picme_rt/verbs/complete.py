"""`picme complete IMAGE MASK -o OUT`: k results and a sheet, of one picture or of a folder's."""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from picme_rt import (
    atomic,
    choices,
    device_list,
    devices,
    files,
    folder,
    pyramid_encoded,
    run_record,
)
from picme_rt.encoded import Request
from picme_rt.errors import InputError
from picme_rt.models import Info
from picme_rt.session import Session
from picme_rt.verbs import DEFAULT_ENGINE, engine


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that say which engine runs where."""
    parser.add_argument(
        "--device",
        default="auto",
        help=f"{devices.NAMES}; auto is the CPU; picme complete shares a folder between several, "
        "with commas between, or all GPUs (default: auto)",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        help="auto, onnxruntime, openvino (the CPU alone), torch, or tensorrt, for which plans "
        "were built (default: auto)",
    )
    parser.add_argument(
        "--precision", default="auto",
        help="auto (fp32, or what picme bench --tune --lower chose), a variant of the engine such "
        "as int8, bf16 with openvino, or fp16, bf16 and tf32 with torch on a GPU (default: auto)",
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "image", type=Path, metavar="IMAGE",
        help="the picture, 8 bits a channel, at most 178 megapixels; or a folder of pictures, "
        "without its subfolders",
    )  # fmt: skip
    parser.add_argument(
        "mask", type=Path, metavar="MASK",
        help="of the picture's size; grey over 127 is hole; or a folder, searched by the "
        "picture's name",
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("-k", type=int, default=6, help="number of results (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="0 to 2**64 - 1 (default: 0)")
    parser.add_argument(
        "--engine", type=engine, default=DEFAULT_ENGINE,
        help="the engine's directory, or patch: none, the picture's own patches fill the hole "
        f"(default: {DEFAULT_ENGINE})",
    )  # fmt: skip
    parser.add_argument(
        "--mode", default="categorical", choices=("categorical", "per_primitive", "mean"),
        help="how each result's primitive is chosen (default: categorical)",
    )  # fmt: skip
    parser.add_argument("--primitive", type=int, help="draw every result from this primitive")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="factor on the spread (default: 1)"
    )
    parser.add_argument(
        "--diversity", type=_diversity, metavar="low|mid|high|PLACES",
        help="of an engine of one picture (picme internal): how much results differ, or at how "
        "many places from the known ones that begins: 7, 4, 0 (default: mid)",
    )  # fmt: skip
    parser.add_argument(
        "--format", default="png", choices=files.FORMATS,
        help="of the results; png and webp (lossless) keep every known pixel and its alpha, jpg "
        "(quality 95) does not keep the pixels and has no alpha (default: png)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int,
        help="threads that the backend computes one picture with (default: for a folder 1, and as "
        "many pictures at once as there are cores; for a picture as many as cores)",
    )  # fmt: skip
    there = parser.add_mutually_exclusive_group()
    there.add_argument(
        "--force", action="store_true",
        help="begin anew: an earlier run's results go first, whatever its options were; of one "
        "picture without its sheet, which is written last, those of today's -k and --format",
    )  # fmt: skip
    there.add_argument(
        "--resume", action="store_true", help="go on with a folder: what is there stays"
    )
    parser.add_argument(
        "--json", action="store_true",
        help="print the results as JSON; of a folder one line a picture, then a summary",
    )  # fmt: skip
    add_engine_arguments(parser)


def _diversity(text: str) -> float | str:
    """A word as it is, a number as such; what is neither the engine refuses."""
    try:
        return float(text)
    except ValueError:
        return text


def run(arguments: argparse.Namespace) -> None:
    """Writes OUT/NAME_00.png ... and OUT/NAME_sheet.png for each picture."""
    threads, many = arguments.threads, arguments.image.is_dir()
    if threads is None and many:
        threads = 1  # so several pictures at once keep the cores busier than several threads do
    places = device_list.read(arguments.device)
    if len(places) > 1 and not many:
        raise InputError(
            f"several devices share a folder of pictures, got {arguments.image}; name one device"
        )
    with contextlib.ExitStack() as opened:
        sessions = [
            opened.enter_context(
                Session(
                    arguments.engine,
                    device=place,
                    backend=arguments.backend,
                    precision=arguments.precision,
                    threads=threads,
                )
            )
            for place in places
        ]
        info = sessions[0].info
        if info.picture:  # now: a wrong one must not be found after results were deleted
            pyramid_encoded.eroded_by(arguments.diversity)
        asked = Request(
            k=arguments.k,
            seed=arguments.seed,
            first=0,
            mode=arguments.mode,
            primitive=arguments.primitive,
            temperature=arguments.temperature,
            diversity=None if info.picture else arguments.diversity,
        ).checked(info.primitives)
        asked = asked._replace(diversity=arguments.diversity)
        if asked.k > folder.MOST:
            raise InputError(
                f"k must be at most {folder.MOST} results on disk a picture, got {asked.k}; "
                "Session.stream has no such limit"
            )
        if many:
            _run_folder(arguments, sessions, asked)
        else:
            _run_one(arguments, sessions[0], asked)


def _run_one(arguments: argparse.Namespace, session: Session, asked: Request) -> None:
    if arguments.resume:
        raise InputError(f"--resume goes on with a folder of pictures, got {arguments.image}")
    mask = folder.pair(arguments.image, arguments.mask)
    task = folder.Task(arguments.image, mask, arguments.out, asked.k, arguments.format)
    made_with = run_record.of(session.info, asked, arguments.format)
    run_record.check_one(task, made_with, force=arguments.force)
    atomic.sweep(arguments.out)
    done = folder.complete(session, task, asked, keep=False, go_on=lambda: None)
    run_record.join(task, made_with)
    if arguments.json:
        about = _about(session.info, asked)
        print(json.dumps({**about, **_report(done)}, indent=1))
        return
    for one in done.results:
        print(one.path)
    print(task.sheet)


def _run_folder(arguments: argparse.Namespace, sessions: Sequence[Session], asked: Request) -> None:
    from tqdm import tqdm

    out = arguments.out
    found = folder.tasks(arguments.image, arguments.mask, out, asked.k, arguments.format)
    if others := folder.left_out(arguments.image):
        kinds = ", ".join(sorted({one.suffix or one.name for one in others}))
        print(
            f"picme: left out {len(others)} file(s) that are no pictures: {kinds}", file=sys.stderr
        )
    failures = [one for one in found if isinstance(one, folder.Failure)]
    planned = [one for one in found if isinstance(one, folder.Task)]
    infos = [session.info for session in sessions]
    made_with = run_record.agree(infos, asked, arguments.format)
    if planned and arguments.resume:
        run_record.resume(out, planned, made_with)
    elif planned:  # else nothing is deleted or written
        run_record.begin(out, planned, made_with, force=arguments.force)
    waiting = [task for task in planned if len(task.existing()) < asked.k + 1]
    kept = len(planned) - len(waiting)
    # two more than can compute: they read, write or wait for the disk meanwhile; and two a device
    at_once = max(choices.cores() // infos[0].threads + 2, 2 * len(sessions))
    outcomes = folder.complete_all(sessions, waiting, asked, keep=arguments.resume, at_once=at_once)
    # smoothing=0: the mean rate; disable=None: no bar where nobody looks
    with (
        tqdm(total=len(planned), initial=kept, unit="img", smoothing=0, disable=None) as bar,
        contextlib.closing(outcomes) as ended,
    ):
        for one in ended:
            if isinstance(one, folder.Failure):
                failures.append(one)
            else:
                print(json.dumps(_report(one)) if arguments.json else one.task.sheet, flush=True)
            bar.update()
    for failure in failures:
        reason = " ".join(failure.reason.split())
        named = str(failure.image) in reason
        print(f"picme: {reason if named else f'{failure.image}: {reason}'}", file=sys.stderr)
    if arguments.json:
        summary = {
            **_about(infos[0], asked),
            "device": ",".join(info.device for info in infos),
            "completed": len(found) - kept - len(failures),
            "kept": kept,
            "failed": [{"image": str(one.image), "error": one.reason} for one in failures],
        }
        print(json.dumps(summary))
    if failures:
        raise InputError(f"{len(failures)} of {len(found)} pictures could not be completed")


def _about(info: Info, asked: Request) -> dict[str, Any]:
    return {
        "engine": info.name,
        "backend": info.backend,
        "device": info.device,
        "precision": info.precision,
        "threads": info.threads,
        "seed": asked.seed,
    }


def _report(done: folder.Finished) -> dict[str, Any]:
    return {
        "image": str(done.task.image),
        "mask": str(done.task.mask),
        "seconds": round(done.seconds, 4),
        "sheet": str(done.task.sheet),
        "results": [{**dataclasses.asdict(one), "path": str(one.path)} for one in done.results],
    }

"""A folder of pictures completed on a cluster by Ray Data, with one session per worker.

pip install 'picme_rt[cpu,ray]'
python examples/cluster/map_folder.py PHOTOS MASKS -o OUT --workers 2 [--resume]

The files in OUT are those of `picme complete PHOTOS MASKS -o OUT --threads 1`, and so is the exit
code: 1 where a picture could not be completed. Every machine must see the folders and the engine
at the same paths; on a cluster start it with `ray job submit`.
"""

import argparse
import os
import sys
from pathlib import Path

import ray

import picme_rt
from picme_rt import folder, run_record
from picme_rt.encoded import Request
from picme_rt.errors import InputError, PicmeError
from picme_rt.verbs import DEFAULT_ENGINE


class Worker:
    """What one worker keeps: a session, opened once."""

    def __init__(self, engine: str, request: Request):
        self.session = picme_rt.Session(engine, threads=1)
        self.request = request

    def __call__(self, row: dict[str, str]) -> dict[str, str | int]:
        """Completes one picture; a bad file does not stop the others."""
        places = (Path(row[name]) for name in ("image", "mask", "out"))
        task, error = folder.Task(*places, self.request.k, "png"), ""
        try:
            folder.complete(self.session, task, self.request, keep=True, go_on=lambda: None)
        except InputError as exc:
            error = str(exc)
        return {"image": row["image"], "error": error, "worker": os.getpid()}


def main() -> None:
    """Plans the run as `picme complete` does, and gives its pictures to the workers.

    Raises:
        PicmeError: The run cannot begin, or a picture could not be completed.
    """
    parser = argparse.ArgumentParser()
    for name in ("images", "masks"):
        parser.add_argument(name, type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("-k", type=int, default=6)
    parser.add_argument("--engine", type=Path, default=DEFAULT_ENGINE)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cpus", type=float, default=1, help="cores that a worker takes")
    parser.add_argument("--resume", action="store_true")
    asked = parser.parse_args()

    images, masks, out = (path.resolve() for path in (asked.images, asked.masks, asked.out))
    engine = str(asked.engine.resolve())
    found = folder.tasks(images, masks, out, asked.k, "png")
    planned = [one for one in found if isinstance(one, folder.Task)]
    with picme_rt.Session(engine, threads=1) as session:
        request = Request(asked.k, 0, 0, "categorical", None, 1.0).checked(session.info.primitives)
        record = run_record.of(session.info, request, "png")
    if planned and asked.resume:
        run_record.resume(out, planned, record)
    elif planned:
        run_record.begin(out, planned, record, force=False)
    rows = [
        {"image": str(task.image), "mask": str(task.mask), "out": str(task.out)}
        for task in planned
        if len(task.existing()) < asked.k + 1
    ]
    failed = [(str(one.image), one.reason) for one in found if isinstance(one, folder.Failure)]
    if rows:
        # a block is what a worker takes at a time: several for each, so that all end together
        pictures = ray.data.from_items(rows, override_num_blocks=min(len(rows), 8 * asked.workers))
        done = pictures.map(
            Worker,
            fn_constructor_args=(engine, request),
            compute=ray.data.ActorPoolStrategy(size=asked.workers),
            num_cpus=asked.cpus,
        )
        for one in done.iter_rows():
            if one["error"]:
                failed.append((one["image"], one["error"]))
            else:
                print(f"{one['image']} by worker {one['worker']}", flush=True)
    for image, error in failed:
        print(f"{image}: {error}", file=sys.stderr)
    if failed:
        raise InputError(f"{len(failed)} of {len(found)} pictures could not be completed")


if __name__ == "__main__":
    try:
        main()
    except PicmeError as exc:
        sys.exit(f"map_folder.py: {exc}")

"""`picme train CONFIG --data DIR --out RUN`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # torch takes seconds to import: what needs it is imported where it is used
    from torch import Tensor

    from picme_training.config import RunConfig
    from picme_training.data import Batches, Pictures
    from picme_training.perceptual import Lpips

HELD_OUT = 64  # pictures of --data that are kept for evaluation where there is no --val


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="training/configs/NAME.toml")
    parser.add_argument(
        "--data", type=Path, required=True,
        help="pictures to learn from: a folder, without its subfolders, or a file of picme pack",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument(
        "--val", type=Path,
        help=f"held-out pictures, a folder or a pack (default: the last {HELD_OUT} of --data)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-grey", action="store_true",
        help="learn from pictures without colour too (default: they are left out)",
    )  # fmt: skip
    parser.add_argument(
        "--masks", type=Path,
        help="folder of masks, for masks.folder > 0; none empty or full at the network's size",
    )  # fmt: skip
    parser.add_argument("--lpips-weights", type=Path, help="LPIPS-squeeze as safetensors")
    parser.add_argument("--device", default="cpu", help="a torch device (default: cpu)")
    parser.add_argument(
        "--start-from", type=Path, metavar="PLACE",
        help="begin with the weights of this run, checkpoint or engine; D is new where it has none",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument(
        "--stop", type=int, metavar="STEP",
        help="end at this step, with a checkpoint for --resume (default: the configuration's last)",
    )  # fmt: skip
    parser.add_argument(
        "--compile", action="store_true",
        help="compile the networks: a minute or two first, then faster steps on a GPU",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help="print checkpoint, step, pictures and measures as JSON"
    )


def run(arguments: argparse.Namespace) -> None:
    """Trains, and prints the last checkpoint's directory."""
    from picme_training import distributed, loop, memory

    memory.keep()
    with distributed.joined(arguments.device, arguments.out) as device:
        with distributed.agreed():
            given = _read(arguments)
            if distributed.rank() == 0:
                _report(given.read, arguments.out)
                _warn_of_precision(given.settings, device)
        last = loop.train(
            given.settings,
            given.batches,
            given.val,
            arguments.out,
            device=device,
            lpips=given.lpips,
            resume=arguments.resume,
            start_from=arguments.start_from,
            stop=arguments.stop,
            compiled=arguments.compile,
        )
        if distributed.rank() == 0:
            ended = _ended(last, arguments.out, given) if arguments.json else None
            print(last if ended is None else json.dumps(ended))


class _Given(NamedTuple):
    settings: "RunConfig"
    lpips: "Lpips | None"
    batches: "Batches"
    val: "Tensor"
    read: "dict[str, Pictures]"  # by the flag's name


def _read(arguments: argparse.Namespace) -> _Given:
    from picme_training import config, data, dataset, distributed, loop, masks, perceptual

    settings = config.load(arguments.config)
    size, grey = settings.network.size, arguments.keep_grey
    # all that can fail early, before the reading
    loop.origin(arguments.out, settings, arguments.resume, arguments.start_from)
    lpips = perceptual.load(arguments.lpips_weights) if arguments.lpips_weights else None
    loop.check_lpips(settings, lpips)
    distributed.check(settings.schedule.batch)
    holes = masks.load_folder(arguments.masks, size) if arguments.masks else {}
    # kept larger than the network's picture, so that a crop of the smallest zoom is not enlarged
    side = round(size / settings.augment.zoom)
    read = {"data": data.load_pictures(arguments.data, side, smallest=size, keep_grey=grey)}
    pictures = read["data"].pixels
    if arguments.val:
        read["val"] = data.load_pictures(arguments.val, size, smallest=size, keep_grey=grey)
        val = read["val"].pixels
    else:
        pictures, val = data.split(pictures, size, HELD_OUT)
    learnt = dataset.identify(read["data"].names[: len(pictures)], list(holes))
    batches = data.Batches(pictures, settings, list(holes.values()), learnt)
    return _Given(settings, lpips, batches, val, read)


def _report(read: "dict[str, Pictures]", out: Path) -> None:
    """Says on stderr what was left out, and stores every name in skipped.json of the run."""
    from picme_rt import atomic
    from picme_training import pictures

    for name, found in read.items():
        for line in pictures.summary(found.skipped):
            print(f"--{name}: skipped {line}", file=sys.stderr)
        for line in pictures.note(found.transparent):
            print(f"--{name}: {line}", file=sys.stderr)
    (out / "skipped.json").unlink(missing_ok=True)  # a resumed run has read the folder anew
    if any(found.skipped for found in read.values()):
        out.mkdir(parents=True, exist_ok=True)
        table = {name: pictures.as_table(found.skipped) for name, found in read.items()}
        with atomic.file(out / "skipped.json") as fresh:
            fresh.write_text(json.dumps(table, indent=1) + "\n")
        print(f"every name is in {out / 'skipped.json'}", file=sys.stderr)


def _warn_of_precision(settings: "RunConfig", device: str) -> None:
    from picme_training.device import emulates_bf16, named

    if settings.schedule.precision == "bf16" and emulates_bf16(named(device)):
        print(
            "precision 'bf16' is emulated on this CPU, several times slower than 'fp32': set"
            ' precision = "fp32" under [schedule]',
            file=sys.stderr,
        )


def _ended(last: Path, out: Path, given: _Given) -> dict[str, Any]:
    from picme_training import checkpoint

    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    measured = [line for line in lines if any(name.startswith("val_") for name in line)]
    return {
        "checkpoint": str(last),
        "step": checkpoint.describe(last).step,
        "pictures": len(given.batches.pictures),
        "skipped": len(given.read["data"].skipped),
        "val": measured[-1] if measured else None,
    }

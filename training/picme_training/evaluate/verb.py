"""`picme evaluate ENGINE|CHECKPOINT --data DIR --masks centre|random|DIR`."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to import: what needs it is imported where it is used
    from picme_training.evaluate.comparison import Comparison, Item, Options
    from picme_training.perceptual import Lpips

DOWNLOAD = "download"
PAGES = ("sheet", "latents", "primitives")
OWN = {"report.json", "report.md", *(f"{page}.png" for page in PAGES)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "model", type=Path, metavar="ENGINE|CHECKPOINT",
        help="an engine, a checkpoint, or a run (its newest checkpoint)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, required=True,
        help="held-out pictures: a folder, without its subfolders, or a file of picme pack; of an "
        "engine of one picture (picme internal) that picture, and --masks its mask",
    )  # fmt: skip
    parser.add_argument(
        "--masks", default="centre",
        help="centre (the square of half the side), random (as training draws them), or a folder "
        "of masks: by the pictures' names, then of their sizes, else in turn; of an engine of one "
        "picture the file that it was trained with (default: centre)",
    )  # fmt: skip
    parser.add_argument(
        "--holes", type=int, default=1,
        help="holes a picture, of random masks or of a folder's in turn (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=int,
        help="side in pixels at which pictures are completed and measured (default: the model's)",
    )  # fmt: skip
    parser.add_argument(
        "-k", "--samples", type=int, default=5, help="results a picture (default: 5)"
    )
    parser.add_argument(
        "--per-primitive", type=int, default=2,
        help="results of each primitive and picture, to compare primitives; 0 or 1 leaves that "
        "out (default: 2)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0,
        help="of the holes; picture n, from 0, is completed with seed + n, of several holes hole j "
        "with seed + HOLES n + j (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--baselines", default="",
        help="measured the same way: telea (OpenCV's), mean (the model's own mode mean), or "
        "telea,mean (default: none)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, help="measure the first LIMIT pictures only")
    parser.add_argument(
        "--lpips-weights", metavar="FILE",
        help="LPIPS-squeeze as safetensors, for LPIPS, FID and KID; `download` fetches what is "
        "published (default: leave these out)",
    )  # fmt: skip
    parser.add_argument(
        "--patch-distance", action="store_true",
        help="measure the bidirectional patch distance too: seconds a result (default: no)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-grey", action="store_true", help="measure with pictures without colour too"
    )
    parser.add_argument(
        "-o", "--out", type=Path,
        help="folder for report.json, report.md, sheet.png, latents.png and primitives.png",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace a report that exists")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Measures, writes OUT if it is asked for, and prints the report."""
    from picme_rt.engine import MANIFEST, kind_of
    from picme_training.evaluate import comparison, distances, models, report

    _check(arguments)
    options = _options(arguments)
    lpips = _lpips(arguments.lpips_weights)
    if (arguments.model / MANIFEST).exists() and kind_of(arguments.model) == "idc":
        _run_diversity(arguments, options, lpips)
        return
    features = None if lpips is None else distances.SqueezeNetFeatures(lpips)
    model = models.open_model(arguments.model)
    size = arguments.size or model.size
    items = _items(arguments, size)
    found = comparison.compare(model, items, options, lpips=lpips, features=features)
    about = {
        "model": model.about,
        "data": str(arguments.data),
        "pictures": len(items) // arguments.holes,
        "masks": arguments.masks,
        "holes": arguments.holes,
        "size": size,
        "samples": options.samples,
        "per_primitive": options.per_primitive,
        "seed": options.seed,
        "feature_space": None if features is None else features.name,
    }
    try:
        if arguments.out is not None:
            with comparison.one_thread():
                _write(arguments.out, found, about, force=arguments.force)
    finally:  # what took minutes to measure is not lost with a disk that is full
        if arguments.json:
            print(json.dumps(report.as_json(found, about), indent=1))
        else:
            print(report.as_markdown(found, about), end="")


_OF_SEVERAL = {
    "size": None, "limit": None, "holes": 1, "baselines": "", "per_primitive": 2,
    "patch_distance": False, "keep_grey": False,
}  # fmt: skip
"""Options that an engine of one picture has no use for, and what each is unless it is given."""


def _run_diversity(
    arguments: argparse.Namespace, options: "Options", lpips: "Lpips | None"
) -> None:
    """The same of an engine of one picture: at low, mid and high diversity."""
    from picme_rt import files
    from picme_rt.errors import InputError
    from picme_rt.session import Session
    from picme_training.evaluate import comparison, diversity, report

    for name, plain in _OF_SEVERAL.items():
        if (got := getattr(arguments, name)) != plain:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be left out for an engine of one picture, got {got!r}")
    masks = Path(arguments.masks)
    if not masks.is_file():
        raise InputError(
            f"--masks must be the mask that {arguments.model} was trained with, a file, got {masks}"
        )
    photograph, hole = files.read_pair(arguments.data, masks)
    img = photograph.pixels
    with comparison.one_thread(), Session(arguments.model) as session:
        found = diversity.compare(
            session, img, hole, k=options.samples, seed=options.seed, lpips=lpips
        )
        digests = session.info.sha256
    about = {
        "engine": str(arguments.model),
        "sha256": digests,
        "data": str(arguments.data),
        "masks": str(masks),
        "samples": options.samples,
        "seed": options.seed,
    }
    table = report.of_diversity(found, about)
    content = json.dumps({"format": report.FORMAT, **about, "measures": found}, indent=1)
    try:
        if arguments.out is not None:
            from picme_rt import atomic

            with atomic.directory(arguments.out, force=arguments.force) as fresh:
                (fresh / "report.json").write_text(content + "\n", encoding="utf-8")
                (fresh / "report.md").write_text(table, encoding="utf-8")
    finally:
        print(content if arguments.json else table, end="\n" if arguments.json else "")


def _check(arguments: argparse.Namespace) -> None:
    """Refuses what can be refused before anything is read."""
    from picme_rt.errors import InputError

    for name in ("holes", "limit", "size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    least = 17 if arguments.lpips_weights else 16  # SqueezeNet's last pooling needs one more
    if arguments.size is not None and arguments.size < least:
        raise InputError(f"--size must be at least {least} pixels, got {arguments.size}")
    if arguments.out is not None:
        _check_out(arguments.out, force=arguments.force)


def _check_out(out: Path, *, force: bool) -> None:
    """Refuses to replace what is no report, and a place where nothing can be written.

    Raises:
        InputError: OUT exists and is no report, or is one and `force` is not set.
        OSError: Nothing can be written beside it.
    """
    from picme_rt.errors import InputError

    if out.exists():
        if not out.is_dir() or (other := {one.name for one in out.iterdir()} - OWN):
            held = f"holds {min(other)}" if out.is_dir() else "is no folder"
            raise InputError(f"{out} is no report, for it {held}; pass another --out")
        if not force:
            raise InputError(f"{out} exists; pass --force to replace it, or another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent):
        pass


def _options(arguments: argparse.Namespace) -> "Options":
    from picme_training.evaluate.comparison import Options

    names = tuple(name for name in arguments.baselines.split(",") if name)
    if "telea" in names:
        import cv2  # noqa: F401  # missing, it is missed before the work, not after
    return Options(
        arguments.samples, arguments.per_primitive, arguments.seed, names, arguments.patch_distance
    )


def _lpips(given: str | None) -> "Lpips | None":
    from picme_training import perceptual

    if given is None:
        print(
            "without --lpips-weights FILE (or download) LPIPS, FID and KID are left out",
            file=sys.stderr,
        )
        return None
    return perceptual.download() if given == DOWNLOAD else perceptual.load(Path(given))


def _items(arguments: argparse.Namespace, size: int) -> "list[Item]":
    from picme_training import data, pictures
    from picme_training.evaluate import holes
    from picme_training.evaluate.comparison import Item

    read = data.load_pictures(arguments.data, size, smallest=size, keep_grey=arguments.keep_grey)
    for line in pictures.summary(read.skipped):
        print(f"--data: skipped {line}", file=sys.stderr)
    names, each = read.names[: arguments.limit], arguments.holes
    chosen = holes.choose(
        arguments.masks, arguments.data, names, size, each=each, seed=arguments.seed
    )
    pixels = read.pixels[: arguments.limit].permute(0, 2, 3, 1).contiguous().numpy()
    return [
        Item(names[place // each], pixels[place // each], hole) for place, hole in enumerate(chosen)
    ]


def _write(out: Path, found: "Comparison", about: dict[str, Any], *, force: bool) -> None:
    from picme_rt import atomic, files
    from picme_training.evaluate import plots, report

    made = (
        plots.sheet(found.shown),
        plots.latents(found.shown, about["seed"]),
        plots.rows_of_primitives(found.shown),
    )
    pages = dict(zip(PAGES, made, strict=True))
    content = json.dumps(report.as_json(found, about), indent=1) + "\n"
    with atomic.directory(out, force=force) as fresh:
        (fresh / "report.json").write_text(content, encoding="utf-8")
        (fresh / "report.md").write_text(report.as_markdown(found, about), encoding="utf-8")
        for name, page in pages.items():
            files.write_picture(fresh / f"{name}.png", files.Photograph(page, None, None))

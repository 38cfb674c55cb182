"""`picme complete IMAGE MASK -o OUT`: k results and a sheet."""

import argparse
import json
import time
from pathlib import Path

from picme_rt import files, sheet
from picme_rt.encoded import check_size
from picme_rt.errors import InputError
from picme_rt.session import Session
from picme_rt.verbs import DEFAULT_ENGINE


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that say which engine runs where."""
    parser.add_argument("--device", default="auto", help="auto or cpu (default: auto)")
    parser.add_argument("--backend", default="auto", help="auto or onnxruntime (default: auto)")
    parser.add_argument(
        "--precision", default="auto", help="auto or a variant of the engine (default: auto)"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="the picture, 8 bits a channel")
    parser.add_argument(
        "mask", type=Path, metavar="MASK", help="of the picture's size; grey over 127 is hole"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("-k", type=int, default=6, help="number of results (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="0 to 2**64 - 1 (default: 0)")
    parser.add_argument(
        "--engine", type=Path, default=DEFAULT_ENGINE,
        help=f"the engine's directory (default: {DEFAULT_ENGINE})",
    )  # fmt: skip
    parser.add_argument(
        "--mode", default="categorical", choices=("categorical", "per_primitive", "mean"),
        help="how each result's primitive is chosen (default: categorical)",
    )  # fmt: skip
    parser.add_argument("--primitive", type=int, help="draw every result from this primitive")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="factor on the spread (default: 1)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite results that exist")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Completes one picture and writes OUT/NAME_00.png ... and OUT/NAME_sheet.png."""
    img, hole = files.read_picture(arguments.image), files.read_mask(arguments.mask)
    check_size(img.shape, arguments.k)  # before k paths are made
    name = arguments.image.stem
    paths = [arguments.out / f"{name}_{i:02d}.png" for i in range(max(arguments.k, 0))]
    page = arguments.out / f"{name}_sheet.png"
    if not arguments.force and (there := [p for p in (*paths, page) if p.exists()]):
        raise InputError(f"{there[0]} exists; pass --force to overwrite, or another --out")
    with Session(
        arguments.engine,
        device=arguments.device,
        backend=arguments.backend,
        precision=arguments.precision,
    ) as session:
        began = time.perf_counter()
        done = session.complete(
            img,
            hole,
            k=arguments.k,
            seed=arguments.seed,
            mode=arguments.mode,
            primitive=arguments.primitive,
            temperature=arguments.temperature,
        )
        seconds = time.perf_counter() - began
        info = session.info
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path, picture in zip(paths, done.images, strict=True):
        files.write_picture(path, picture)
    files.write_picture(page, sheet.sheet(img, hole, done.images))
    if arguments.json:
        report = {
            "engine": info.name,
            "backend": info.backend,
            "device": info.device,
            "precision": info.precision,
            "seed": arguments.seed,
            "seconds": round(seconds, 4),
            "sheet": str(page),
            "results": [
                {
                    "path": str(path),
                    "index": int(done.indices[i]),
                    "primitive": None if done.primitives is None else int(done.primitives[i]),
                    "log_prob": None if done.log_prob is None else float(done.log_prob[i]),
                }
                for i, path in enumerate(paths)
            ],
        }
        print(json.dumps(report, indent=1))
        return
    for path in paths:
        print(path)
    print(page)

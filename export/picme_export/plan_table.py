"""What TensorRT-RTX makes of every engine and preset, without a GPU: a table for docs/gpu.md.

    python -m picme_export.plan_table engines/cats128 --presets picme,pic,cats --size 256

Weights of presets are random: layers and bytes do not depend on them, pictures are not made.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import onnx
import torch

from picme_export import calibrate, device_decoder, export, half_weights, plan_builder, quantise
from picme_rt import engine as engines
from picme_rt import plans
from picme_rt.backends import tensorrt_library
from picme_rt.backends.tensorrt_library import Library
from picme_rt.engine import Engine
from picme_rt.errors import EngineError
from picme_rt.plans import Options
from picme_training.config import NetworkConfig, Preset
from picme_training.networks import Picme

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class Row(NamedTuple):
    """One plan; `layers` is 0 and `note` says why where it was refused."""

    engine: str
    precision: str
    role: str
    layers: int
    bytes: int
    seconds: float
    note: str


def int8_decoder(engine: Engine) -> onnx.ModelProto:
    """A decoder for plans, every layer in int8 with made-up ranges: to be built, not run."""
    model = half_weights.widened(engine.read(engine.variants["fp32"]["decoder"]))
    ranges = calibrate.prepare(model, lambda names: {n: 1.0 + i for i, n in enumerate(names)})
    done = quantise.quantise(model, quantise.layers(model), ranges)
    return device_decoder.rewrite(done, engine.tables.decoder)


def rows(library: Library, engine: Engine, name: str, gpu: str) -> Iterator[Row]:
    """Every plan of an engine; int8 has the encoder of fp32, and is made up where there is none."""
    for precision in PRECISIONS:
        made_up = precision == "int8" and "int8" not in engine.variants
        graphs = plan_builder.graphs(engine, "fp32" if made_up else precision)
        for role, (model, table) in graphs.items():
            if precision == "int8" and role == "encoder":
                continue
            model = int8_decoder(engine) if made_up else model
            begin, layers, size, note = time.process_time(), 0, 0, ""
            try:
                built = plan_builder.build(
                    library, model, table, options=Options(precision), gpu=gpu, title=role
                )
                layers, size = built.layers, len(built.content)
            except EngineError as exc:
                note = str(exc)
            yield Row(name, precision, role, layers, size, time.process_time() - begin, note)


def preset(kind: Preset, size: int, folder: Path) -> Engine:
    """An engine of a preset with random weights."""
    torch.manual_seed(0)
    model = Picme(NetworkConfig(kind, size, 1 if kind == "pic" else 6)).eval()
    export.write(model, folder / kind, name=kind)
    return engines.load(folder / kind)


def main() -> None:
    """Prints the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("engines", nargs="*", type=Path, help="engines")
    parser.add_argument("--presets", default="", help=f"of {', '.join(get_args(Preset))}")
    parser.add_argument("--size", type=int, default=256, help="of presets, pixels (default: 256)")
    parser.add_argument("--gpu", default=plans.PORTABLE, help="as in picme export")
    arguments = parser.parse_args()
    library = tensorrt_library.load("tensorrt-rtx")
    print(f"tensorrt-rtx {library.version}, {arguments.gpu}\n")
    print("| engine | precision | graph | layers | plan, bytes | CPU s to build |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        found = [(path.name, engines.load(path)) for path in arguments.engines]
        asked = arguments.presets.split(",")
        for kind in (each for each in get_args(Preset) if each in asked):
            name = f"`{kind}` {arguments.size}, random weights"
            found.append((name, preset(kind, arguments.size, Path(folder))))
        for name, engine in found:
            for row in rows(library, engine, name, arguments.gpu):
                what = f"{row.layers} | {row.bytes:,}" if row.layers else f"{row.note} | none"
                print(
                    f"| {name} | {row.precision} | {row.role} | {what} | {row.seconds:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

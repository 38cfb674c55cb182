"""What a result of an engine of kind `idc` takes, of a pyramid that nobody trained.

    taskset -c 1 python tests/benchmarks/pyramids.py --size 193x256 --preset paper

Prints the processor's time a result, which other work on the machine hardly changes, and with
--table that of `picme bench`. Weights are random: they take as long as trained ones.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import picme_rt
from picme_export import internal
from picme_rt import pyramid_frame
from picme_rt.images import Hole, Image
from picme_rt.pyramid import fingerprint
from picme_rt.speed import pyramids
from picme_training.internal import masked, presets, pyramid
from picme_training.internal.cascade import Frozen
from picme_training.internal.presets import Preset
from picme_training.internal.stack import REACH, Stack


def scales(hole: Hole, preset: Preset) -> list[Frozen]:
    """A pyramid of a preset's widths for a hole (H, W), trained at its size."""
    random = torch.Generator().manual_seed(0)
    found: list[Frozen] = []
    for place, size in enumerate(pyramid.sizes(*hole.shape, max(hole.shape))):
        stack = Stack(preset.width_of(place), 3)
        stack.initialise(random)
        weights = [weight.contiguous() for weight in stack.weights]
        before = found[-1].size if found else (0, 0)
        up = pyramid.upscaling(before, size) if found else [torch.zeros(n, 0) for n in size]
        shape = (1, 3 if found else 1, size[0] + 2 * REACH, size[1] + 2 * REACH)
        found.append(
            Frozen(
                weights,
                [torch.zeros(len(weight)) for weight in weights],
                torch.tensor(0.2 if found else 1.0),
                torch.randn(shape, generator=random),
                masked.depth(pyramid_frame.brought(hole, size)),
                *up,
                torch.ones(1, 1, *before),
                torch.zeros(1, 3, *before),
                torch.zeros(shape[2] * shape[3], 0),
                torch.zeros(0, 3, *size),
            )
        )
    return found


def cpu_seconds(session: picme_rt.Session, img: Image, hole: Hole, rounds: int) -> list[float]:
    """Of one result at high diversity, the picture encoded already, again and again."""
    encoded, taken = session.encode(img, hole), []
    for index in range(1 + rounds):
        began = time.process_time()
        encoded.complete(k=1, first=index, diversity="high")
        taken.append(time.process_time() - began)
    return taken[1:]  # the first one warms up


def main() -> None:
    """Writes the engine, measures it, prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", default="64x96", help="HxW of the picture (default: 64x96)")
    parser.add_argument("--preset", default="fast", choices=presets.PRESETS)
    parser.add_argument("--share", type=float, default=0.1, help="of the hole (default: 0.1)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="of `picme bench` too")
    arguments = parser.parse_args()
    height, width = (int(side) for side in arguments.size.split("x"))
    sides = [round(side * arguments.share**0.5) for side in (height, width)]
    hole = np.zeros((height, width), bool)
    top, left = (height - sides[0]) // 2, (width - sides[1]) // 2
    hole[top : top + sides[0], left : left + sides[1]] = True
    made = scales(hole, presets.find(arguments.preset))
    img = np.zeros((height, width, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / arguments.preset
        internal.write(made, place, hole=hole, fingerprint=fingerprint(img, hole), about={})
        for backend in ("onnxruntime", "openvino"):
            with picme_rt.Session(place, backend=backend, threads=1) as session:
                taken = cpu_seconds(session, img, hole, arguments.rounds)
            print(f"{backend}, one thread, CPU s a result: {min(taken):.4f} to {max(taken):.4f}")
        if arguments.table:
            print(pyramids.text(pyramids.measure(place, rounds=arguments.rounds)))


if __name__ == "__main__":
    main()

"""Six completions, every case alone in a process of its own, all cases in turn.

    python tests/benchmarks/alone.py [--turns 3] [--calibration PICTURES] [--size 256]

In one process the threads of one library spin in the way of the next one's; here nothing else
runs. A picture of 256x256 with a hole in the middle, random weights, bytes in and bytes out:
torch's reference loop, the same with spectral norm folded, a plain export on ONNX Runtime, and
sessions of presets `picme` and `cats`; int8 where there are pictures to calibrate it with.
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

K = 6
sys.path.append(str(Path(__file__).parents[1]))  # cpu_backends.py
TORCH = ("reference loop", "torch, folded", "plain export")
ENGINES: tuple[Literal["picme", "cats"], ...] = ("picme", "cats")


def call_of(case: str, root: Path, size: int) -> Callable[[], object]:
    """What is timed; imports what it needs and no more."""
    if case not in TORCH:
        import picme_rt
        from picme_rt.speed import stages

        rng = np.random.default_rng(0)
        tile = np.ones((size // 16, size // 16, 1))
        image = np.kron(rng.integers(0, 256, (16, 16, 3)), tile).astype(np.uint8)
        hole = np.zeros((size, size), bool)
        hole[size // 4 : -size // 4, size // 4 : -size // 4] = True
        engine, backend, precision = case.split(", ")
        session = picme_rt.Session(root / engine, backend=backend, precision=precision)
        stages.prepare(session)
        return functools.partial(session.complete, image, hole, k=K)
    from contestants import one_by_one, plain_export, random_network, tiles

    from picme_training.networks import fold

    model, given = random_network("picme", size), (*tiles(size), K)
    if case == "reference loop":
        return lambda: one_by_one(model, *given)
    if case == "torch, folded":
        return lambda: one_by_one(fold(model), *given)
    return functools.partial(plain_export(fold(model), root), *given)


def engines(root: Path, size: int, calibration: Path | None) -> list[str]:
    """Writes both presets as engines; every case that they and this machine have."""
    from contestants import random_network, runnable

    from picme_export import export, variant

    for preset in ENGINES:
        export.write(random_network(preset, size), root / preset, name=preset)
    if calibration is not None:
        given = variant.Calibration(calibration)
        variant.extend(root / "picme", root / "picme", given, force=True)
    return [", ".join((preset, *one)) for preset in ENGINES for one in runnable(root / preset)]


def main() -> None:
    """Times and prints a Markdown table, milliseconds of wall time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--calls", type=int, default=9, help="timed calls of a case a turn")
    parser.add_argument(
        "--warm",
        type=float,
        default=3.0,
        help="seconds of calls before the timed ones (default: 3)",
    )
    parser.add_argument("--size", type=int, default=256, choices=(64, 128, 256))
    parser.add_argument("--calibration", type=Path, help="pictures, for int8")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "ENGINES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        call = call_of(arguments.one[0], Path(arguments.one[1]), arguments.size)
        call()
        warm = time.perf_counter() + arguments.warm
        while time.perf_counter() < warm:  # in use, a session comes to go side by side
            call()
        taken = []
        for _ in range(arguments.calls):
            began = time.perf_counter()
            call()
            taken.append(1e3 * (time.perf_counter() - began))
        print(json.dumps(taken))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cases = [*TORCH, *engines(root, arguments.size, arguments.calibration)]
        times: dict[str, list[float]] = {case: [] for case in cases}
        same = ["--calls", str(arguments.calls), "--size", str(arguments.size)]
        same += ["--warm", str(arguments.warm)]
        for _ in range(arguments.turns):
            for case in cases:
                command = [sys.executable, __file__, *same, "--one", case, str(root)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                times[case] += json.loads(done.stdout.splitlines()[-1])
    first = np.median(times[TORCH[0]])
    print("| case | median (quartiles), minimum | reference loop / case |\n|---|---|---|")
    for case, taken in times.items():
        low, middle, high = np.percentile(taken, (25, 50, 75))
        spread = f"{middle:.1f} ({low:.1f} to {high:.1f}), {min(taken):.1f}"
        print(f"| {case} | {spread} | {first / middle:.2f} |")


if __name__ == "__main__":
    main()

"""100 photographs x 6 from a folder, files read and written, against one after the other.

What a run could reach is cores / CPU time a picture of all its stages, which the run of one picture
after the other, with one thread, tells. `extra_info` has the share of that, and the share where the
CPU time that other processes took is not counted as ours to use. OPENBLAS_NUM_THREADS=1 keeps
NumPy's threads from spinning, which would count as work.
"""

import contextlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
from cpu_backends import EVERY
from PIL import Image as Pillow
from pytest_benchmark.fixture import BenchmarkFixture

import picme_rt
from picme_rt import choices, folder
from picme_rt.encoded import Request

skimage_data = pytest.importorskip("skimage.data")
ENGINE = Path(__file__).parents[2] / "engines" / "cats128"
ASKED = Request(k=6, seed=0, first=0, mode="categorical", primitive=None, temperature=1.0)
SIDES = [(256, 256), (384, 256), (320, 240), (512, 384)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 crops of photographs of four sizes, half of them JPEG, each with a hole in the middle."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    names = ("chelsea", "astronaut", "coffee")
    sources = [Pillow.fromarray(getattr(skimage_data, name)()) for name in names]
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for i in range(100):
        source, (width, height) = sources[i % 3], SIDES[i % 4]
        left, top = (int(n) for n in rng.integers(0, 60, 2))
        crop = source.crop((left, top, source.width - left, source.height - top))
        suffix = "jpg" if i % 2 else "png"
        crop.resize((width, height)).save(root / "images" / f"{i:03d}.{suffix}", quality=92)
        hole = np.zeros((height, width), np.uint8)
        hole[height // 4 : -(height // 4), width // 4 : -(width // 4)] = 255
        Pillow.fromarray(hole).save(root / "masks" / f"{i:03d}.png")
    return root


class Clock:
    """Seconds of the wall's clock, of this process and of all others, since it was made."""

    def __init__(self) -> None:
        self._began = self._now()

    def read(self) -> tuple[float, float, float]:
        wall, own, busy = (b - a for a, b in zip(self._began, self._now(), strict=True))
        return wall, own, max(busy - own, 0.0)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        user, nice, system, _, _, *more = map(int, Path("/proc/stat").read_text().split()[1:9])
        busy = (user + nice + system + sum(more)) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), time.process_time(), busy


def complete(
    session: picme_rt.Session, photographs: Path, out: Path, pictures: int, at_once: int
) -> tuple[float, float, float]:
    """Completes the first pictures; seconds as `Clock` has them."""
    out.mkdir()
    found = folder.tasks(photographs / "images", photographs / "masks", out, ASKED.k, "png")
    planned = [task for task in found[:pictures] if isinstance(task, folder.Task)]
    clock = Clock()
    outcomes = folder.complete_all([session], planned, ASKED, keep=False, at_once=at_once)
    with contextlib.closing(outcomes):
        assert all(isinstance(one, folder.Finished) for one in outcomes)
    return clock.read()


@pytest.mark.benchmark(group="a folder of photographs x 6, files in and out")
@pytest.mark.parametrize(("backend", "precision"), EVERY)
def test_a_folder_keeps_the_cores_busy(
    benchmark: BenchmarkFixture, photographs: Path, tmp_path: Path, backend: str, precision: str
) -> None:
    pictures, few, rounds = (100, 20, 3) if benchmark.enabled else (4, 4, 1)
    cores, numbers = choices.cores(), iter(range(100))
    alone: list[float] = []
    together: list[tuple[float, float, float]] = []
    with picme_rt.Session(ENGINE, backend=backend, precision=precision, threads=1) as session:
        session.complete(np.zeros((64, 64, 3), np.uint8), np.eye(64), k=1)  # warms up

        def before() -> None:
            out = tmp_path / f"alone_{next(numbers)}"
            alone.append(complete(session, photographs, out, few, 1)[1] / few)

        def run() -> None:
            out = tmp_path / f"together_{next(numbers)}"
            together.append(complete(session, photographs, out, pictures, cores + 2))

        benchmark.pedantic(run, setup=before, rounds=rounds)
    stages = min(alone)
    shares = [stages * pictures / (cores * wall) for wall, _, _ in together]
    left = [stages * pictures / (cores * wall - others) for wall, _, others in together]
    benchmark.extra_info.update(
        images_a_second=[round(pictures / wall, 2) for wall, _, _ in together],
        cpu_ms_a_picture_alone=[round(1e3 * one, 1) for one in alone],
        cpu_ms_a_picture_together=[round(1e3 * own / pictures, 1) for _, own, _ in together],
        share_of_cores_by_cpu_time=[round(one, 3) for one in shares],
        # apart: how much longer a picture takes beside others, and how long a core had none
        share_of_cpu_time_alone=[round(stages * pictures / own, 3) for _, own, _ in together],
        share_of_cores_that_were_ours=[round(own / (cores * wall), 3) for wall, own, _ in together],
        share_of_what_others_left=[round(one, 3) for one in left],
        cores_of_others=[round(others / wall, 2) for wall, _, others in together],
    )
    first, second = (next(tmp_path.glob(f"{kind}_*")) for kind in ("alone", "together"))
    assert len(list(second.iterdir())) == pictures * (ASKED.k + 1)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()

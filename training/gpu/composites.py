"""The composite's kernels, launched by a program of their own: their bytes against the reference.

As in launches.py: nvcc builds the program on a GPU, a host compiler with CUDA emulated on a CPU.
"""

import dataclasses
import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpu import launches
from picme_rt import composite, framing, resample
from picme_rt.composite import Canvas
from picme_rt.composite_kernel import composite as paste
from picme_rt.packed_canvases import pack

Result = dict[str, Any]
Bytes = npt.NDArray[np.uint8]
Hole = npt.NDArray[np.bool_]
SOURCES = (
    Path(__file__).with_name("launch_composite.cu"),
    launches.KERNELS / "composite_cuda.cu",
)
TYPES = ("float32", "float16", "uint16")
"""Numbered as in kernels/picture_type.h; uint16 holds the bits of bfloat16."""
UNTOUCHED = 0x7B
"""What `out` holds before a launch, where no original is given."""


class Case(NamedTuple):
    """One call: the arguments of `picme_rt.kernels.composite`.

    `before`: bytes by which `out` and `originals` miss a multiple of 256.
    """

    name: str
    pictures: npt.NDArray[Any]
    originals: Bytes | None
    canvases: list[Canvas]
    shape: tuple[int, int]
    before: int = 0

    def out(self) -> Bytes:
        """Room for the results, poisoned."""
        return np.full((*self.pictures.shape[:2], *self.shape, 3), UNTOUCHED, np.uint8)


def build(compiler: list[str], program: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Compiles the program by nvcc, or by a host compiler with CUDA emulated."""
    return launches.compiled(compiler, program, SOURCES, *more)


def launch(program: list[str], case: Case) -> Bytes:
    """What the kernels wrote.

    Raises:
        subprocess.CalledProcessError: The program failed; `stderr` says why.
    """
    packed, out = pack(case.canvases), case.out()
    parts = [case.pictures, case.originals, packed.data, out]
    read, written = (Path(program[-1]).with_suffix(end) for end in (".in", ".out"))
    read.write_bytes(
        b"".join(np.ascontiguousarray(part).tobytes() for part in parts if part is not None)
    )
    numbers = (
        *(*case.pictures.shape[:2], packed.size, packed.grid, *case.shape),
        *(TYPES.index(case.pictures.dtype.name), int(case.originals is not None)),
        *(packed.data.size, case.before),
    )
    subprocess.run(
        [*program, str(read), str(written), *map(str, numbers)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return np.frombuffer(written.read_bytes(), np.uint8).reshape(out.shape)


def truth(case: Case) -> Bytes:
    """The bytes of the NumPy reference."""
    return paste(case.pictures, case.originals, case.canvases, out=case.out(), impl="ref")


def compare(program: list[str], case: Case) -> Result:
    """One check, to the bit."""
    try:
        found = launch(program, case)
    except subprocess.CalledProcessError as exc:
        return {"name": case.name, "pass": False, "said": exc.stderr[-500:]}
    return judged(case, found)


def judged(case: Case, found: Bytes) -> Result:
    """What was written for a case, against the NumPy reference."""
    differ = int((found != truth(case)).sum())
    return {"name": case.name, "pass": differ == 0, "of": found.size, "differ": differ}


def cases() -> list[Case]:
    """Resized or not, every type, odd sizes and addresses, NaN, no originals, no seam."""
    tall = np.ones((75, 30), bool)
    plain = scene("not resized", (150, 150), 150)
    enlarged = scene("enlarged", (150, 331), 16, k=2, seed=1)
    return [
        plain,
        plain._replace(name="no originals", originals=None),
        plain._replace(name="odd addresses", before=3),
        enlarged,
        enlarged._replace(name="enlarged, no originals, odd addresses", originals=None, before=1),
        scene("not resized, rows of whole words", (64, 64), 64, k=2),
        scene("beyond the picture's border", (33, 300), 150),
        scene("shrunk", (20, 23), 64, k=2),
        scene("shrunk a little", (60, 75), 64, k=3),
        scene("a little larger, many rows", (75, 75), 64, hole=np.ones((75, 75), bool)),
        scene("nothing known", (75, 30), 16, hole=tall),
        scene("one pixel", (1, 1), 1, hole=np.ones((1, 1), bool)),
        scene("a grid of its own", (40, 50), 130),
        scene("a grid of more than 128 places", (40, 50), 131),
        *(typed(scene(f"{name}, every special number", (40, 50), 16, k=3), name) for name in TYPES),
        batch("three canvases, two grids", [(40, 50)] * 3, 70),
        known_only("all known", (40, 50), 16),
    ]


def scene(
    name: str,
    shape: tuple[int, int],
    size: int,
    *,
    k: int = 1,
    seed: int = 0,
    hole: Hole | None = None,
) -> Case:
    """Pictures of noise for a noisy original and one region of it."""
    rng = np.random.default_rng([*shape, size, seed])
    img = rng.integers(0, 256, (*shape, 3), np.uint8)
    if hole is None:
        hole = np.zeros(shape, bool)
        hole[shape[0] // 4 : -2, shape[1] // 3 : -1] = True
        hole[:, ::7] = False
    (region, *_) = framing.regions(hole, size, "aligned")
    canvas = composite.canvas(composite.fit(img, hole, region, size), hole, region)
    pictures = rng.uniform(-1.2, 1.2, (1, k, 3, size, size)).astype(np.float32)
    return Case(name, pictures, img[None], [canvas], shape)


def typed(case: Case, dtype: str) -> Case:
    """The pictures in another type, NaN, infinities and denormals among them."""
    pictures = case.pictures.copy()
    special = np.array([np.nan, np.inf, -np.inf, 3e38, 1e-40, -1e-7], np.float32)
    places = (5 + np.arange(len(special)) * (pictures.size // len(special))) % pictures.size
    pictures.reshape(-1)[places] = special
    with np.errstate(over="ignore"):
        changed = (
            (pictures.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
            if dtype == "uint16"
            else pictures.astype(dtype)
        )
    return case._replace(pictures=changed)


def batch(name: str, shapes: list[tuple[int, int]], size: int) -> Case:
    """Several images, the last of them with a coarser grid of its own."""
    found = [scene(name, shape, size, k=2, seed=i) for i, shape in enumerate(shapes)]
    canvases = [one.canvases[0] for one in found]
    grid = next(side for side in range(size // 2, 0, -1) if size % side == 0)
    blur = resample.blur(grid, 1.5)
    canvases[-1] = dataclasses.replace(
        canvases[-1],
        blur=blur,
        pull=np.full((grid, grid), 1.25, np.float32),
        grow=resample.taps(grid, size, "triangle"),
    )
    originals = np.concatenate([one.originals for one in found if one.originals is not None])
    pictures = np.concatenate([one.pictures for one in found])
    return Case(name, pictures, originals, canvases, shapes[0])


def known_only(name: str, shape: tuple[int, int], size: int) -> Case:
    """A canvas that shows the known picture in its hole too."""
    case = scene(name, shape, size)
    canvas = dataclasses.replace(case.canvases[0], known=np.ones((size, size), bool))
    return case._replace(canvases=[canvas])


def golden() -> tuple[Case, list[str]]:
    """The golden case of docs/compositing.md, and the hashes that the page states."""
    page = (launches.ROOT / "docs" / "compositing.md").read_text(encoding="utf-8")
    hashes = re.findall(r"^\| \d, \d \| `([0-9a-f]{64})` \|$", page, re.MULTILINE)
    c, y, x = np.ogrid[:3, :8, :8]
    pictures = np.empty((2, 2, 3, 8, 8))
    pictures[0, 0] = ((3 * c + 7 * y + 5 * x) % 17) / 8 - 1
    pictures[0, 1] = np.where((c + x + y) % 2 == 0, 0.5, -0.5)
    pictures[1, 0], pictures[1, 1] = (51 + 34 * c) / 255 - 1, (153 + 34 * c) / 255 - 1
    up = resample.taps(8, 13, "cubic")
    one = Canvas(
        box=framing.Box(1, 2, 11, 11),
        inside=(3 * np.arange(10)[:, None] + 5 * np.arange(9)) % 7 > 0,
        image=(((c + 2 * y + 3 * x) % 13) / 8 - 0.75).astype(np.float32),
        known=((y + 2 * x) % 5 == 0)[0] & (np.arange(8) > 1),
        blur=resample.Taps(
            np.array([0, 0, 1, 1], np.int32),
            np.array([[3, 1, 1, 0], [1, 2, 2, 1], [0, 1, 1, 3]], np.float32) / np.float32(4),
        ),
        pull=(1 + (np.arange(4) + 2 * np.arange(4)[:, None]) / 8).astype(np.float32),
        grow=resample.taps(4, 8, "triangle"),
        rows=up.part(1, 11),
        columns=up.part(2, 11),
    )
    rows, columns = np.ogrid[:12, :13]
    original = (31 * rows[..., None] + 17 * columns[..., None] + 101 * np.arange(3)) % 256
    originals = np.stack([original.astype(np.uint8)] * 2)
    other = dataclasses.replace(one, known=np.zeros((8, 8), bool))
    case = Case("golden", pictures.astype(np.float32), originals, [one, other], (12, 13))
    return case, hashes


def hashes_of(results: Bytes) -> list[str]:
    """sha256 of the bytes of each result."""
    return [
        hashlib.sha256(one.tobytes()).hexdigest() for one in results.reshape(-1, *results.shape[2:])
    ]

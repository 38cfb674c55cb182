"""Engines of kind `idc`: the generator pyramid of one picture (docs/engine-format.md).

Every scale has a window: the part of it that is computed. The hole is known when the pyramid is
exported, so the windows are too, and nothing outside of them is in the graph.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from picme_rt import engine as engines
from picme_rt import engine_files, tensors
from picme_rt.engine import Bundle
from picme_rt.errors import EngineError
from picme_rt.framing import Box
from picme_rt.images import MAX_SIDE, Hole, Image

KIND = "idc"
REACH = 5
"""Places that a generator's map is padded by on each side: half its receptive field."""
MOST_SCALES = 32
MOST_SIDE = 4096
MOST_PIXELS = 1 << 27
DIVERSITY = {"low": 7.0, "mid": 4.0, "high": 0.0}
"""Places at every scale that the hole is eroded by before noise is new in it."""
DEFAULT = "mid"
_ROLE = "pyramid"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pyramid(Bundle):
    """An engine of kind `idc`; the role of its graph is `pyramid`.

    Attributes:
        picture: (H, W) of the picture that it was trained on.
        sizes: (h, w) of each scale, the coarsest first.
        windows: The places of each scale that its graph makes.
        fingerprint: Of the picture and its hole, see `fingerprint`.
        hole_file: The file of the hole: H W bits, as `numpy.packbits` orders them.
    """

    picture: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    windows: tuple[Box, ...]
    fingerprint: str
    hole_file: str

    @property
    def table(self) -> tensors.Graph:
        """Every tensor that enters or leaves the graph."""
        return table(self.windows)

    @property
    def window(self) -> Box:
        """The places of the finest scale that a result is made of."""
        return self.windows[-1]

    def hole(self) -> Hole:
        """(H, W) bool, the hole that it was trained with.

        Raises:
            EngineError: The file is missing or changed, or no bit is set.
        """
        height, width = self.picture
        bits = np.frombuffer(self.read(self.hole_file), np.uint8)
        hole: Hole = np.unpackbits(bits, count=height * width).view(bool).reshape(height, width)
        if not hole.any():
            raise EngineError(
                f"{self.path / self.hole_file} must hold a hole, got none; train it again"
            )
        return hole


def table(windows: tuple[Box, ...]) -> tensors.Graph:
    """Inputs and outputs of a pyramid's graph that makes these windows, the coarsest first."""
    noises = []
    for i, box in enumerate(windows):
        height, width = (side + 2 * REACH for side in sides(box))
        noises.append(tensors.Tensor(f"noise_{i}", (1 if i == 0 else 3, height, width)))
    return tensors.Graph(
        (tensors.Tensor("erosion", (1,), batched=False), *noises),
        (tensors.Tensor("picture", (3, *sides(windows[-1]))),),
    )


def sides(box: Box) -> tuple[int, int]:
    """Height and width of a box."""
    return box.bottom - box.top, box.right - box.left


def manifest(engine: Pyramid) -> str:
    """The text of `engine.json` for an engine: what `load` reads."""
    content = {
        "format": engines.FORMAT,
        "kind": KIND,
        "name": engine.name,
        "picture": engine.picture,
        "sizes": engine.sizes,
        "windows": engine.windows,
        "fingerprint": engine.fingerprint,
        "hole": engine.hole_file,
        "tensors": _named(engine),
        "variants": engine.variants,
        "files": {name: dataclasses.asdict(file) for name, file in engine.files.items()},
        "provenance": engine.provenance,
    }
    return json.dumps(content, indent=1) + "\n"


def _named(engine: Pyramid) -> dict[str, dict[str, list[int | str]]]:
    """The manifest's entry `tensors`."""
    return {
        way: {t.name: list(t.axes) for t in getattr(engine.table, way)}
        for way in ("inputs", "outputs")
    }


def fingerprint(img: Image, hole: Hole) -> str:
    """sha256 of a picture's shape, its known bytes and its hole; bytes under it count as 0.

    Args:
        img: (H, W, 3) uint8.
        hole: (H, W) bool.
    """
    import hashlib  # 2 ms of `import picme_rt` otherwise

    digest = hashlib.sha256(np.array(img.shape, "<u4").tobytes())
    digest.update(np.where(hole[..., None], np.uint8(0), img).tobytes())
    digest.update(np.packbits(hole).tobytes())
    return digest.hexdigest()


def load(path: Path) -> Pyramid:
    """Reads and checks `engine.json`; the graph is read later, by the backend.

    Raises:
        EngineError: The directory or its manifest is missing, damaged, newer or foreign.
    """
    return engines.parsed(path, KIND, _parse, _named)


def _parse(path: Path, content: dict[str, Any]) -> Pyramid:
    picture = _pair(path, "picture", content["picture"], MAX_SIDE)
    sizes = _rows(path, "sizes", content["sizes"])
    windows = _rows(path, "windows", content["windows"])
    if len(sizes) != len(windows):
        raise EngineError(f"{path} must have a window a scale, got {len(windows)} for {len(sizes)}")
    pairs = [_pair(path, "sizes", one, MOST_SIDE) for one in sizes]
    for smaller, larger in zip(pairs, [*pairs[1:], picture], strict=True):
        if smaller[0] > larger[0] or smaller[1] > larger[1]:
            raise EngineError(f"sizes of {path} must not fall, got {smaller} before {larger}")
    if picture[0] * picture[1] > MOST_PIXELS:
        raise EngineError(f"picture of {path} must have up to {MOST_PIXELS} pixels, got {picture}")
    digest, hole_file = content["fingerprint"], content["hole"]
    for key, expected, right in (
        ("provenance", "an object of entries", type(content["provenance"]) is dict),
        ("name", "a text of up to 255 characters", engines.is_name(content["name"])),
        ("fingerprint", "a sha256", engines.is_sha256(digest)),
        ("hole", "one of the files", type(hole_file) is str and hole_file in content["files"]),
    ):
        if not right:
            got = engine_files.short(content[key])
            raise EngineError(f"{key} of {path} must be {expected}, got {got}")
    files = engines.files_of(path, content["files"])
    if files[hole_file].bytes != (length := -(-picture[0] * picture[1] // 8)):
        raise EngineError(
            f"{hole_file} of {path} must have {length} bytes, a bit a pixel, got "
            f"{files[hole_file].bytes}"
        )
    return Pyramid(
        path=path,
        name=content["name"],
        picture=picture,
        sizes=tuple(pairs),
        windows=tuple(_box(path, one, size) for one, size in zip(windows, pairs, strict=True)),
        fingerprint=digest,
        hole_file=hole_file,
        variants=engines.variants_of(path, content["variants"], content["files"], (_ROLE,)),
        files=files,
        provenance=content["provenance"],
    )


def _rows(path: Path, key: str, entries: object) -> list[Any]:
    if type(entries) is not list or not 1 <= len(entries) <= MOST_SCALES:
        got = engine_files.short(entries)
        raise EngineError(f"{key} of {path} must be 1 to {MOST_SCALES}, got {got}")
    return entries


def _pair(path: Path, key: str, entry: Any, most: int) -> tuple[int, int]:
    right = type(entry) is list and len(entry) == 2
    if not right or not all(type(n) is int and 1 <= n <= most for n in entry):
        got = engine_files.short(entry)
        raise EngineError(f"{key} of {path} must be [H, W] of 1..{most}, got {got}")
    return entry[0], entry[1]


def _box(path: Path, entry: Any, size: tuple[int, int]) -> Box:
    right = type(entry) is list and len(entry) == 4 and all(type(n) is int for n in entry)
    if right:
        box = Box(*entry)
        if 0 <= box.top < box.bottom <= size[0] and 0 <= box.left < box.right <= size[1]:
            return box
    got = engine_files.short(entry)
    raise EngineError(f"a window of {path} must be inside of {size}, got {got}")

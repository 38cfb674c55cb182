"""An engine of kind `idc`, made by hand: two scales of a picture of 24 x 30, two channels each."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from tiny_engines import Files, _Graph

from picme_rt import engine as engines
from picme_rt import pyramid, resample
from picme_rt.framing import Box
from picme_rt.pyramid import Pyramid

HEIGHT, WIDTH = 24, 30
HOLE = Box(8, 10, 16, 20)
GRAPH, BITS = "fp32/pyramid.onnx", "hole.bits"
SIZES = {False: ((12, 15), (HEIGHT, WIDTH)), True: ((10, 12), (16, 20))}
WINDOWS = {
    False: (Box(0, 0, 12, 15), Box(5, 7, 19, 23)),
    True: (Box(0, 0, 10, 12), Box(2, 3, 13, 17)),
}


def picture():
    """Its picture (24, 30, 3), and the mask of its hole."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    img = np.stack([rows * 9, columns * 8, (rows + columns) % 8 * 30], -1)
    img = (img + np.random.default_rng(0).integers(0, 30, img.shape)).astype(np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[HOLE.top : HOLE.bottom, HOLE.left : HOLE.right] = 255
    return img, mask


def _resized(g, before, window, source, target, box, *, wide):
    """A window of the scale before as this scale's, with a border of zeros where `wide`."""
    reach, sides = pyramid.REACH if wide else 0, []
    for axis in (0, 1):
        matrix = resample.matrix(source[axis], target[axis], "cubic")
        matrix = np.pad(matrix, [(reach, reach), (0, 0)])
        first, last = box[axis], box[2 + axis] + 2 * reach
        sides.append(matrix[first:last, window[axis] : window[2 + axis]])
    rows, columns = g.keep(sides[0].copy()), g.keep(sides[1].T.copy())
    return g.put("MatMul", g.put("MatMul", rows, before), columns)


def _scale(g, place, box, depth, before):
    noise, bounds = f"noise_{place}", (g.real(0.0), g.real(1.0))
    inside = g.keep(depth)
    new = g.put("Clip", g.put("Sub", inside, g.put("Mul", "erosion", g.real(8192.0))), *bounds)
    new = g.put("Mul", new, g.put("Clip", inside, *bounds))
    channels = 1 if place == 0 else 3
    fixed = g.normal(1, channels, *(side + 2 * pyramid.REACH for side in pyramid.sides(box)))
    drawn = g.put("Add", fixed, g.put("Mul", new, g.put("Sub", noise, fixed)))
    x = drawn if before is None else g.put("Add", before[0], drawn)
    for into, out in ((channels, 2), (2, 2), (2, 2), (2, 2)):
        x = g.put("LeakyRelu", g.conv(x, into, out, 3), alpha=0.2)
    x = g.put("Tanh", g.conv(x, 2, 3, 3))
    return x if before is None else g.put("Add", x, before[1])


def _graph(engine, hole):
    g, found = _Graph(5), None
    for place, (size, box) in enumerate(zip(engine.sizes, engine.windows, strict=True)):
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, hole.shape, strict=True))
        depth = np.pad(hole[rows][:, columns] * np.float32(8192 * 4), pyramid.REACH)
        more = 2 * pyramid.REACH
        depth = depth[box.top : box.bottom + more, box.left : box.right + more][None, None]
        before = None
        if found is not None:
            ways = engine.windows[0], engine.sizes[0], size, box
            before = [_resized(g, found, *ways, wide=wide) for wide in (True, False)]
        found = _scale(g, place, box, depth, before)
    g.put("Clip", found, g.real(-1.0), g.real(1.0), out="picture")
    return g.bytes(engine.table)


def make(*, larger: bool = False) -> Files:
    """The engine; `larger`: its picture is larger than what was trained."""
    img, mask = picture()
    engine = Pyramid(
        path=Path("tiny"), name="tiny", picture=(HEIGHT, WIDTH), sizes=SIZES[larger],
        windows=WINDOWS[larger], fingerprint=pyramid.fingerprint(img, mask > 0), hole_file=BITS,
        variants={"fp32": {"pyramid": GRAPH}}, files={}, provenance={"data": "none"},
    )  # fmt: skip
    contents = {GRAPH: _graph(engine, mask > 0), BITS: np.packbits(mask > 0).tobytes()}
    return Files({**contents, engines.MANIFEST: signed(engine, contents)}, engine)


def signed(engine: Pyramid, contents: dict[str, bytes]) -> bytes:
    """The manifest of an engine whose files have these bytes, with their right digests."""
    files = {
        name: engines.File(hashlib.sha256(content).hexdigest(), len(content))
        for name, content in contents.items()
    }
    return pyramid.manifest(dataclasses.replace(engine, files=files)).encode()


def write(place: Path, files: dict[str, bytes]) -> Path:
    """Puts an engine on disk."""
    (place / "fp32").mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place

"""W1, the engine that everything is measured with: the paper's network at 256, random weights.

A machine with a GPU seldom has what exports an engine. So its graphs lie in the folder w1 as the
exporter wrote them, rewrites included, with their large weights taken out, which `write` puts back
as random numbers: time does not depend on them, and pictures of noise compare as well as others.

    python training/gpu/w1.py ENGINE      # writes the folder anew from an exported engine
"""

import gzip
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from picme_rt import onnx_file
from picme_rt.onnx_file import Weight

FOLDER = Path(__file__).parent / "w1"
ROLES = ("encoder", "decoder")
_SMALL = 64  # numbers; bounds, factors and shapes stay as they are


def write(target: Path) -> Path:
    """Writes the engine into a new folder, the same bytes each time, and gives it back."""
    (target / "fp32").mkdir(parents=True)
    manifest = json.loads((FOLDER / "engine.json").read_text(encoding="utf-8"))
    for place, role in enumerate(ROLES):
        content = bytearray(gzip.decompress((FOLDER / f"{role}.onnx.gz").read_bytes()))
        random = np.random.default_rng(place)
        for weight in _large(content):
            deep = len(weight.shape) > 1  # else a bias, or the scale of a norm
            spread = (weight.shape[0] / np.prod(weight.shape)) ** 0.5 if deep else 0.2
            drawn = random.standard_normal(int(np.prod(weight.shape)), np.float32)
            numbers = drawn * np.float32(spread) + np.float32(0.0 if deep else 0.3)
            weight.content[:] = numbers.astype("<f4").tobytes()
        name = f"fp32/{role}.onnx"
        (target / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"sha256": digest, "bytes": len(content)}
    (target / "engine.json").write_text(json.dumps(manifest), encoding="utf-8")
    return target


def take(engine: Path) -> None:
    """Keeps an engine's graphs without their large weights."""
    FOLDER.mkdir(exist_ok=True)
    manifest = json.loads((engine / "engine.json").read_text(encoding="utf-8"))
    manifest["provenance"] = {"data": "none: random weights", "licence": "Apache-2.0"}
    manifest["name"] = "w1"
    for role in ROLES:
        content = bytearray((engine / "fp32" / f"{role}.onnx").read_bytes())
        for weight in _large(content):
            weight.content[:] = bytes(len(weight.content))
        packed = gzip.compress(bytes(content), 9, mtime=0)
        (FOLDER / f"{role}.onnx.gz").write_bytes(packed)
    text = json.dumps(manifest, indent=1) + "\n"
    (FOLDER / "engine.json").write_text(text, encoding="utf-8")


def _large(content: bytearray) -> list[Weight]:
    """The weights that are taken out; their contents are views that may be written."""
    model = onnx_file.parse(content)
    kinds = [weight for weight in model.weights if weight.kind == "float32"]
    return [weight for weight in kinds if len(weight.content) > 4 * _SMALL]


if __name__ == "__main__":
    take(Path(sys.argv[1]))

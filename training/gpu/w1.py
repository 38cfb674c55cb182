"""W1, the engine that everything is measured with: the paper's network at 256, random weights.

A machine with a GPU seldom has what exports an engine. So its graphs lie in the folder w1 as the
exporter wrote them, with their large weights taken out, which `write` puts back as random numbers:
time does not depend on them, and pictures of noise compare as well as others. The decoder is there
twice: plain, and with the rewrites of `picme export`, which were chosen for CPUs.

    PYTHONPATH=.:training:export python training/gpu/w1.py      # exports the folder anew
"""

import gzip
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from picme_rt import onnx_file
from picme_rt.onnx_file import Weight

FOLDER = Path(__file__).parent / "w1"
Decoder = Literal["plain", "rewritten"]
_SMALL = 64  # numbers; bounds, factors and shapes stay as they are


def write(target: Path, decoder: Decoder = "plain") -> Path:
    """Writes the engine into a new folder, the same bytes each time, and gives it back."""
    (target / "fp32").mkdir(parents=True)
    manifest = json.loads((FOLDER / "engine.json").read_text(encoding="utf-8"))
    sources = {"encoder": "encoder", "decoder": f"decoder_{decoder}"}
    for place, (role, source) in enumerate(sources.items()):
        content = bytearray(gzip.decompress((FOLDER / f"{source}.onnx.gz").read_bytes()))
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


def make() -> None:
    """Exports the network, and keeps its graphs without their large weights."""
    import torch

    from picme_export import export, graphs
    from picme_training.config import NetworkConfig
    from picme_training.networks import Picme

    torch.manual_seed(0)
    model = Picme(NetworkConfig("picme", 256, 6)).eval()
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        engine, plain = Path(folder) / "w1", Path(folder) / "plain.onnx"
        export.write(model, engine, name="w1", about={"data": "none: random weights"})
        table = graphs.tables_of(model).decoder
        graphs.to_onnx(graphs.DecoderGraph(model, z_m=True), table, plain, rewrite=False)
        _keep("encoder", engine / "fp32" / "encoder.onnx")
        _keep("decoder_rewritten", engine / "fp32" / "decoder.onnx")
        _keep("decoder_plain", plain)
        manifest = json.loads((engine / "engine.json").read_text(encoding="utf-8"))
    manifest["provenance"] = {"data": "none: random weights"}
    text = json.dumps(manifest, indent=1) + "\n"
    (FOLDER / "engine.json").write_text(text, encoding="utf-8")


def _keep(name: str, path: Path) -> None:
    content = bytearray(path.read_bytes())
    for weight in _large(content):
        weight.content[:] = bytes(len(weight.content))
    (FOLDER / f"{name}.onnx.gz").write_bytes(gzip.compress(bytes(content), 9, mtime=0))


def _large(content: bytearray) -> list[Weight]:
    """The weights that are taken out; their contents are views that may be written."""
    model = onnx_file.parse(content)
    kinds = [weight for weight in model.weights if weight.kind == "float32"]
    return [weight for weight in kinds if len(weight.content) > 4 * _SMALL]


if __name__ == "__main__":
    make()

"""An engine: a directory with `engine.json` and the files it names (docs/engine-format.md)."""

import dataclasses
import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from picme_rt import tensors
from picme_rt.errors import EngineError
from picme_rt.framing import Framing

FORMAT = 1
MANIFEST = "engine.json"
_MANIFEST_BYTES = 1 << 20
_FILE_BYTES = 1 << 32
_LIMITS = {"size": (16, 4096), "primitives": (1, 4096), "latent": (1, 1 << 20)}


@dataclasses.dataclass(frozen=True)
class File:
    """A file of an engine.

    Attributes:
        sha256: Hexadecimal digest of its bytes.
        bytes: Its length.
    """

    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Engine:
    """What `engine.json` says, checked.

    Attributes:
        path: The engine's directory.
        name: What people call it.
        framing: How a picture of any size is brought to the engine's: `aligned` or `free`.
        size: S, side of the network's square picture in pixels.
        primitives: P of the mixture.
        latent: D of z_c.
        features: (C, h, w) of each map that goes from the encoder to the decoder.
        z_m: Whether the decoder takes z_m.
        variants: Precision -> role (`encoder`, `decoder`) -> file name.
        files: Every file by its name inside the directory.
        provenance: Training data, licence, commit, measures: for people, not for the runtime.
    """

    path: Path
    name: str
    framing: Framing
    size: int
    primitives: int
    latent: int
    features: list[tuple[int, ...]]
    z_m: bool
    variants: dict[str, dict[str, str]]
    files: dict[str, File]
    provenance: dict[str, Any]

    @property
    def tables(self) -> tensors.Tables:
        """Every tensor that enters or leaves the engine's graphs."""
        return tensors.tables(
            size=self.size,
            primitives=self.primitives,
            latent=self.latent,
            features=self.features,
            z_m=self.z_m,
        )

    def read(self, name: str) -> bytes:
        """The bytes of one file, its length and digest checked.

        Raises:
            EngineError: The file is missing, of another length, or changed since it was exported.
        """
        path, expected = self.path / name, self.files[name]
        if path.is_symlink() or not path.is_file():
            raise EngineError(f"engine {self.path} lacks the file {name}; export it again")
        if (got := path.stat().st_size) != expected.bytes:
            raise EngineError(
                f"{path} must have {expected.bytes} bytes, got {got}; export it again"
            )
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != expected.sha256:
            raise EngineError(f"{path} was changed: its sha256 is not the one in {MANIFEST}")
        return content


def manifest(engine: Engine) -> str:
    """The text of `engine.json` for an engine: what `load` reads."""
    content = {
        "format": FORMAT,
        "kind": "picme",
        "name": engine.name,
        "framing": engine.framing,
        "size": engine.size,
        "primitives": engine.primitives,
        "latent": engine.latent,
        "features": engine.features,
        "z_m": engine.z_m,
        "tensors": {
            role: {
                way: {t.name: ["B", *t.shape] for t in getattr(graph, way)}
                for way in ("inputs", "outputs")
            }
            for role, graph in engine.tables._asdict().items()
        },
        "variants": engine.variants,
        "files": {name: dataclasses.asdict(file) for name, file in engine.files.items()},
        "provenance": engine.provenance,
    }
    return json.dumps(content, indent=1) + "\n"


def load(path: Path) -> Engine:
    """Reads and checks `engine.json`; the graphs are read later, by the backend.

    Raises:
        EngineError: The directory or its manifest is missing, damaged, newer or foreign.
    """
    content = _manifest(path)
    if content.get("format") != FORMAT:
        raise EngineError(
            f"{path} has engine format {content.get('format')!r}, this picme_rt reads {FORMAT}; "
            "update picme_rt, or export the checkpoint again"
        )
    if content.get("kind") != "picme":
        raise EngineError(f"{path} has kind {content.get('kind')!r}, this picme_rt runs 'picme'")
    try:
        engine = _parse(path, content)
    except (KeyError, TypeError, AttributeError) as exc:
        raise EngineError(f"{path / MANIFEST} lacks or garbles an entry: {exc!r}") from exc
    if content.get("tensors") != json.loads(manifest(engine))["tensors"]:
        raise EngineError(f"{path / MANIFEST} names other tensors than its sizes give")
    return engine


def _manifest(path: Path) -> dict[str, Any]:
    place = path / MANIFEST
    if not place.is_file():
        raise EngineError(
            f"{path} is not an engine: it has no {MANIFEST}; `picme export` makes one, "
            "the repository ships some in engines/"
        )
    if place.stat().st_size > _MANIFEST_BYTES:
        raise EngineError(f"{place} is longer than {_MANIFEST_BYTES} bytes: not a manifest of ours")
    try:
        content = json.loads(place.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise EngineError(f"{place} is damaged: {exc}") from exc
    if not isinstance(content, dict):
        raise EngineError(f"{place} must hold one JSON object, got {type(content).__name__}")
    return content


def _parse(path: Path, content: dict[str, Any]) -> Engine:
    for key, (low, high) in _LIMITS.items():
        value = content[key]
        if type(value) is not int or not low <= value <= high:
            raise EngineError(f"{key} of {path} must be in {low}..{high}, got {value!r}")
    if content["framing"] not in ("aligned", "free"):
        raise EngineError(f"framing of {path} must be aligned or free, got {content['framing']!r}")
    if type(content["z_m"]) is not bool:
        raise EngineError(f"z_m of {path} must be true or false, got {content['z_m']!r}")
    if type(content["provenance"]) is not dict:
        raise EngineError(f"provenance of {path} must be an object of entries")
    features = [tuple(shape) for shape in content["features"]]
    for shape in features:
        if len(shape) != 3 or not all(type(n) is int and 1 <= n <= 4096 for n in shape):
            raise EngineError(f"features of {path} must be [C, h, w] of 1..4096, got {shape}")
    files = {name: File(str(f["sha256"]), f["bytes"]) for name, f in content["files"].items()}
    for name, file in files.items():
        parts = PurePosixPath(name).parts
        if name.startswith("/") or not parts or ".." in parts or "\\" in name or ":" in name:
            raise EngineError(f"{path} names the file {name!r}, which is not inside the engine")
        if type(file.bytes) is not int or not 0 < file.bytes <= _FILE_BYTES:
            raise EngineError(f"{path} gives {name} a length of {file.bytes!r} bytes")
    variants: dict[str, dict[str, str]] = {}
    for precision, roles in content["variants"].items():
        if set(roles) != {"encoder", "decoder"} or not set(roles.values()) <= set(files):
            raise EngineError(f"variant {precision} of {path} needs an encoder and a decoder file")
        variants[str(precision)] = dict(roles)
    if not variants:
        raise EngineError(f"{path} has no variant; export it again")
    return Engine(
        path=path,
        name=str(content["name"]),
        framing=content["framing"],
        size=content["size"],
        primitives=content["primitives"],
        latent=content["latent"],
        features=features,
        z_m=content["z_m"],
        variants=variants,
        files=files,
        provenance=content["provenance"],
    )

"""An engine: a directory with `engine.json` and the files it names (docs/engine-format.md)."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from picme_rt import quality, tensors
from picme_rt.engine_files import MANIFEST as MANIFEST
from picme_rt.engine_files import manifest_of, read_file, short
from picme_rt.errors import EngineError, one_line
from picme_rt.framing import Framing
from picme_rt.quality import Quality
from picme_rt.windows import Crop

FORMAT = 2
"""A decoder with a box has format 2; without one it is written as 1, which older readers know."""
KINDS = ("picme", "idc")
"""The second is read by `picme_rt.pyramid`."""
_FILE_BYTES = 1 << 29
_LIMITS = {"size": (16, 4096), "primitives": (1, 4096), "latent": (1, 1 << 20)}
_FEATURES, _VARIANTS, _FILES, _NAME, _CROPS = 64, 16, 64, 255, 16
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", re.ASCII)
_PRECISION = re.compile(r"[a-z0-9_]{1,32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class File:
    """A file of an engine.

    Attributes:
        sha256: Hexadecimal digest of its bytes.
        bytes: Its length.
    """

    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """What `engine.json` says of an engine of any kind, checked.

    Attributes:
        path: The engine's directory.
        name: What people call it.
        variants: Precision -> role of a graph -> file name.
        files: Every file by its name inside the directory.
        provenance: Training data, licence, commit, measures: for people, not for the runtime.
        quality: Precision -> how near its pictures come to those of fp32, where it was measured.
    """

    path: Path
    name: str
    variants: dict[str, dict[str, str]]
    files: dict[str, File]
    provenance: dict[str, Any]
    quality: dict[str, Quality] = dataclasses.field(default_factory=dict)

    def read(self, name: str) -> bytes:
        """The bytes of one file, its length and digest checked.

        Raises:
            EngineError: The file is missing, of another length, or changed since it was exported.
        """
        import hashlib  # 2 ms of `import picme_rt` otherwise

        path, expected = self.path / name, self.files[name]
        content = read_file(self.path, name, expected.bytes, expected.bytes)
        if hashlib.sha256(content).hexdigest() != expected.sha256:
            raise EngineError(f"{path} was changed: its sha256 is not the one in {MANIFEST}")
        return content


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine(Bundle):
    """An engine of kind `picme`; the roles of its graphs are `encoder` and `decoder`.

    Attributes:
        framing: How a picture of any size is brought to the engine's: `aligned` or `free`.
        size: S, side of the network's square picture in pixels.
        primitives: P of the mixture.
        latent: D of z_c.
        features: (C, h, w) of each map that goes from the encoder to the decoder.
        z_m: Whether the decoder takes z_m.
        crops: Where the decoder crops its maps to a box; none if it makes whole pictures alone.
    """

    framing: Framing
    size: int
    primitives: int
    latent: int
    features: list[tuple[int, ...]]
    z_m: bool
    crops: tuple[Crop, ...] = ()

    @property
    def tables(self) -> tensors.Tables:
        """Every tensor that enters or leaves the engine's graphs."""
        return tensors.tables(
            size=self.size,
            primitives=self.primitives,
            latent=self.latent,
            features=self.features,
            z_m=self.z_m,
            crops=len(self.crops),
        )


def manifest(engine: Engine) -> str:
    """The text of `engine.json` for an engine: what `load` reads."""
    content = {
        "format": FORMAT if engine.crops else 1,
        "kind": "picme",
        "name": engine.name,
        "framing": engine.framing,
        "size": engine.size,
        "primitives": engine.primitives,
        "latent": engine.latent,
        "features": engine.features,
        "z_m": engine.z_m,
        **({"crops": [crop._asdict() for crop in engine.crops]} if engine.crops else {}),
        "tensors": {
            role: {
                way: {t.name: list(t.axes) for t in getattr(graph, way)}
                for way in ("inputs", "outputs")
            }
            for role, graph in engine.tables._asdict().items()
        },
        "variants": engine.variants,
        "files": {name: dataclasses.asdict(file) for name, file in engine.files.items()},
        "quality": {p: dataclasses.asdict(found) for p, found in engine.quality.items()},
        "provenance": engine.provenance,
    }
    return json.dumps(content, indent=1) + "\n"


def load(path: Path) -> Engine:
    """Reads and checks `engine.json`; the graphs are read later, by the backend.

    Raises:
        EngineError: The directory or its manifest is missing, damaged, newer or foreign.
    """

    def named(engine: Engine) -> Any:
        return json.loads(manifest(engine))["tensors"]

    return parsed(path, "picme", _parse, named)


def kind_of(path: Path) -> str:
    """The kind of an engine, one of `KINDS`; its format is checked too, and nothing else.

    Raises:
        EngineError: The directory or its manifest is missing, damaged, newer or foreign.
    """
    return _kind(path, manifest_of(path))


Held = TypeVar("Held", bound=Bundle)


def parsed(
    path: Path,
    kind: str,
    parse: Callable[[Path, dict[str, Any]], Held],
    named: Callable[[Held], Any],
) -> Held:
    """The manifest of an engine of a kind.

    Args:
        path: The engine's directory.
        kind: One of `KINDS`.
        parse: Makes it of the manifest's entries.
        named: Gives the entry `tensors` that follows from it.

    Raises:
        EngineError: As `load` says, or it is of another kind.
    """
    content = manifest_of(path)
    if (got := _kind(path, content)) != kind:
        raise EngineError(f"{path} has kind {got!r}, kind {kind!r} is needed here")
    try:
        engine = parse(path, content)
    except (KeyError, TypeError, AttributeError) as exc:
        raise EngineError(
            f"{path / MANIFEST} lacks or garbles an entry: {type(exc).__name__}: {one_line(exc)}"
        ) from exc
    if content.get("tensors") != named(engine):
        raise EngineError(f"{path / MANIFEST} names other tensors than its sizes give")
    return engine


def _kind(path: Path, content: dict[str, Any]) -> str:
    if content.get("format") not in (1, FORMAT) or type(content["format"]) is not int:
        raise EngineError(
            f"{path} has engine format {short(content.get('format'))}, "
            f"this picme_rt reads 1 and {FORMAT}; update picme_rt, or export the checkpoint again"
        )
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        known = " and ".join(map(repr, KINDS))
        raise EngineError(f"{path} has kind {short(kind)}, this picme_rt runs {known}")
    return kind


def _parse(path: Path, content: dict[str, Any]) -> Engine:
    for key, (low, high) in _LIMITS.items():
        value = content[key]
        if type(value) is not int or not low <= value <= high:
            raise EngineError(f"{key} of {path} must be in {low}..{high}, got {short(value)}")
    for key, expected, right in (
        ("framing", "aligned or free", content["framing"] in ("aligned", "free")),
        ("z_m", "true or false", type(content["z_m"]) is bool),
        ("provenance", "an object of entries", type(content["provenance"]) is dict),
        ("name", f"a text of up to {_NAME} characters", is_name(content["name"])),
    ):
        if not right:
            raise EngineError(f"{key} of {path} must be {expected}, got {short(content[key])}")
    return Engine(
        path=path,
        name=content["name"],
        framing=content["framing"],
        size=content["size"],
        primitives=content["primitives"],
        latent=content["latent"],
        features=_features(path, content["features"]),
        z_m=content["z_m"],
        variants=variants_of(path, content["variants"], content["files"], ("encoder", "decoder")),
        files=files_of(path, content["files"]),
        provenance=content["provenance"],
        crops=_crops(path, content["crops"], content["size"]) if content["format"] > 1 else (),
        quality=_quality(path, content.get("quality", {})),
    )


def is_name(value: object) -> bool:
    """Whether it may be an engine's name."""
    return isinstance(value, str) and len(value) <= _NAME and value.isprintable()


def is_sha256(value: object) -> bool:
    """Whether it is a digest as manifests have it."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _features(path: Path, entries: list[Any]) -> list[tuple[int, ...]]:
    if type(entries) is not list or len(entries) > _FEATURES:
        raise EngineError(f"features of {path} must be up to {_FEATURES}, got {short(entries)}")
    for shape in entries:
        right = type(shape) is list and len(shape) == 3
        if not right or not all(type(n) is int and 1 <= n <= 4096 for n in shape):
            raise EngineError(
                f"features of {path} must be [C, h, w] of 1..4096, got {short(shape)}"
            )
    return [tuple(shape) for shape in entries]


def _crops(path: Path, entries: list[Any], size: int) -> tuple[Crop, ...]:
    if type(entries) is not list or not 1 <= len(entries) <= _CROPS:
        raise EngineError(f"crops of {path} must be 1 to {_CROPS}, got {short(entries)}")
    sides = [*(entry["side"] for entry in entries), size]
    for entry, finer in zip(entries, sides[1:], strict=True):
        right = set(entry) == set(Crop._fields) and all(type(n) is int for n in entry.values())
        if not right or not all(0 <= entry[name] <= 64 for name in ("before", "after", "halo")):
            raise EngineError(f"a crop of {path} must be a side and reaches, got {short(entry)}")
        if type(finer) is not int or entry["side"] < 1 or finer % entry["side"]:
            raise EngineError(f"crops of {path} must divide one another and {size}, got {sides}")
    return tuple(Crop(**entry) for entry in entries)


def files_of(path: Path, entries: dict[str, Any]) -> dict[str, File]:
    """The manifest's entry `files`, checked."""
    if len(entries) > _FILES:
        raise EngineError(f"files of {path} must be up to {_FILES}, got {len(entries)}")
    for name, file in entries.items():
        if len(name) > _NAME or not _FILE_NAME.fullmatch(name):
            raise EngineError(
                f"{path} names the file {short(name)}, which is not inside the engine"
            )
        if type(file["bytes"]) is not int or not 0 < file["bytes"] <= _FILE_BYTES:
            raise EngineError(f"{path} gives {name} a length of {short(file['bytes'])} bytes")
        if not is_sha256(file["sha256"]):
            raise EngineError(f"{path} gives {name} the sha256 {short(file['sha256'])}")
    return {name: File(file["sha256"], file["bytes"]) for name, file in entries.items()}


def variants_of(
    path: Path, entries: dict[str, Any], files: dict[str, Any], roles: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """The manifest's entry `variants`, checked: each has a file for each of `roles`."""
    if not 1 <= len(entries) <= _VARIANTS:
        raise EngineError(f"{path} must have 1 to {_VARIANTS} variants, got {len(entries)}")
    for precision, names in entries.items():
        if not _PRECISION.fullmatch(precision):
            raise EngineError(f"{path} has a variant {short(precision)}; export it again")
        if set(names) != set(roles) or not set(names.values()) <= set(files):
            needed = " and ".join(roles)
            raise EngineError(f"variant {precision} of {path} needs the files of {needed}")
    return {precision: dict(names) for precision, names in entries.items()}


def _quality(path: Path, entries: dict[str, Any]) -> dict[str, Quality]:
    if len(entries) > _VARIANTS:
        raise EngineError(f"quality of {path} must be of up to {_VARIANTS}, got {len(entries)}")
    found = {}
    for precision, entry in entries.items():
        if not _PRECISION.fullmatch(precision):
            raise EngineError(f"{path} has the quality of {short(precision)}; export it again")
        try:
            found[precision] = quality.parse(entry)
        except EngineError as exc:
            raise EngineError(f"quality of {precision} in {path}: {exc}") from exc
    return found

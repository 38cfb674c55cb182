"""Plans: an engine's graphs compiled by TensorRT for one kind of GPU, beside its ONNX files.

    ENGINE/plans/tensorrt-rtx-1.7.1.116-portable-fp16/
        encoder.plan  decoder.plan
        plan.json     what they were made of, by what, for what, with which options

A plan holds for the very version of the library and the GPU that it was made for, and says neither:
the directory's name and `plan.json` do. A plan is a program, not data: build your own, and delete
`plans/` from an engine that you were given (docs/engine-format.md).
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from picme_rt.engine import Engine, File
from picme_rt.errors import EngineError, InputError, UnavailableError, one_line
from picme_rt.tensors import Graph, Tensor

FOLDER, RECORD, ROLES = "plans", "plan.json", ("encoder", "decoder")
FORMAT = 1
"""Raised whenever a graph is made for a plan in another way: older plans are stale then."""
PORTABLE = "portable"
"""TensorRT-RTX's default: one plan for every GPU from compute capability 8.0 on that it knows."""
RTX_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
MOST = 4096
"""Largest number of pictures or of latents that a plan may be built for."""
_RECORD_BYTES = 1 << 16
_MADE_OF_FP32 = ("fp32", "fp16", "bf16")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a plan is built for, besides the library and the GPU.

    Attributes:
        precision: fp32, fp16 or bf16, made of the engine's fp32; or int8, of its own int8.
        max_batch: Most pictures a run.
        max_k: Most latents a picture and run.
    """

    precision: str
    max_batch: int = 8
    max_k: int = 16


@dataclasses.dataclass(frozen=True)
class Plans:
    """Both plans of an engine, as `plan.json` says.

    Attributes:
        path: Their directory.
        library: `tensorrt` or `tensorrt-rtx`.
        version: Of the library.
        gpu: What they run on: `portable`, `sm86`, or with TensorRT one model, `sm90-NVIDIA_H100`.
        options: What they were built for.
        sources: Digests of the ONNX files that they were made of, by role.
        files: Of the two plans, by role.
        layers: How many layers the parser made of each graph, by role.
    """

    path: Path
    library: str
    version: str
    gpu: str
    options: Options
    sources: dict[str, str]
    files: dict[str, File]
    layers: dict[str, int]

    def read(self, role: str) -> bytes:
        """The bytes of one plan.

        Raises:
            EngineError: It is missing, or changed since it was built.
        """
        import hashlib  # as everywhere in picme_rt: 2 ms of its import

        path = self.path / f"{role}.plan"
        try:
            content = path.read_bytes()
        except OSError as exc:
            raise EngineError(f"{path} cannot be read: {exc.strerror}; build it again") from exc
        if hashlib.sha256(content).hexdigest() != self.files[role].sha256:
            raise EngineError(f"{path} was changed: its sha256 is not the one in {RECORD}")
        return content


def name(library: str, version: str, gpu: str, precision: str) -> str:
    """The directory's name inside `plans/`."""
    return f"{library}-{version}-{gpu}-{precision}"


def offered(engine: Engine) -> tuple[str, ...]:
    """The precisions of plans that can be made of an engine."""
    made = _MADE_OF_FP32 if "fp32" in engine.variants else ()
    return made + (("int8",) if "int8" in engine.variants else ())


def sources(engine: Engine, precision: str) -> dict[str, str]:
    """The files that plans of this precision are made of, by role.

    Raises:
        InputError: The engine has none.
    """
    if precision not in offered(engine):
        cure = "; `picme export ENGINE --precision int8 --calibration DIR` adds int8"
        raise InputError(
            f"precision of a plan for {engine.path} must be one of {offered(engine)}, "
            f"got {precision!r}{cure if precision == 'int8' else ''}"
        )
    return engine.variants["int8" if precision == "int8" else "fp32"]


def decoder_table(graph: Graph) -> Graph:
    """Inputs and outputs of a decoder as plans have it, from those of the engine's.

    It makes k whole pictures of each of B: `z` and `picture` have an axis of k, `box` is gone.
    """
    (picture,) = graph.outputs
    return Graph(
        tuple(t._replace(repeated=t.name == "z") for t in graph.inputs if t.name != "box"),
        (picture._replace(cropped=False, repeated=True),),
    )


def ranges(tensor: Tensor, options: Options) -> tuple[tuple[int, ...], ...]:
    """Least, usual and largest shape of an input: its optimization profile.

    One picture with six results is what is asked most.
    """
    wanted = ((1, 1), (1, min(6, options.max_k)), (options.max_batch, options.max_k))
    return tuple(
        (*(batch,) * tensor.batched, *(k,) * tensor.repeated, *tensor.shape) for batch, k in wanted
    )


def gpus(library: str, capability: tuple[int, int], model: str) -> tuple[str, ...]:
    """For which GPUs a plan may have been built to run here, the best first.

    Args:
        library: `tensorrt` or `tensorrt-rtx`.
        capability: Of the GPU, (8, 6).
        model: What CUDA calls it.

    Raises:
        UnavailableError: The library builds nothing for such a GPU.
    """
    here = f"sm{capability[0]}{capability[1]}"
    if library == "tensorrt":
        return (f"{here}-{re.sub('[^A-Za-z0-9]+', '_', model)}",)
    if here not in RTX_TARGETS:
        raise UnavailableError(
            f"TensorRT-RTX builds for {', '.join(RTX_TARGETS)}, this GPU is {here} ({model}): "
            "use TensorRT (pip install 'picme_rt[tensorrt]')"
        )
    return (here,) if here == "sm75" else (here, PORTABLE)


def command(engine: Path, library: str, options: Options, gpu: str | None = None) -> str:
    """What builds such plans."""
    words = [f"picme export {engine} --target {library} --precision {options.precision}"]
    if library == "tensorrt-rtx" and gpu not in (None, PORTABLE):
        words.append(f"--gpu {gpu}")
    if options.max_batch != Options.max_batch:
        words.append(f"--max-batch {options.max_batch}")
    if options.max_k != Options.max_k:
        words.append(f"--max-k {options.max_k}")
    return " ".join([*words, "--force"])


def find(
    engine: Engine, *, library: str, version: str, gpus: Sequence[str], precision: str
) -> Plans:
    """The plans that run here.

    Args:
        engine: The engine.
        library: As in `Plans`, and so is the next.
        version: Of the library that is installed.
        gpus: As the function of that name gives them.
        precision: Of the plans.

    Raises:
        InputError: No plan has this precision.
        EngineError: There are none, or they are stale or foreign: the message has the command that
            builds them.
    """
    sources(engine, precision)
    cure = command(engine.path, library, Options(precision), gpus[0])
    root = engine.path / FOLDER
    for gpu in gpus:
        place = root / name(library, version, gpu, precision)
        if not place.exists():
            continue
        found = load(place)
        said = (found.library, found.version, found.gpu, found.options.precision)
        if said != (library, version, gpu, precision):
            raise EngineError(f"{place} holds plans for {' '.join(said)}; run `{cure}`")
        if found.sources != made_of(engine, precision):
            cure = command(engine.path, library, found.options, gpu)
            raise EngineError(
                f"the plans in {place} are stale: {engine.path} was exported anew since; "
                f"run `{cure}`"
            )
        return found
    others = sorted(path.name for path in root.glob("*") if path.is_dir())
    raise EngineError(
        f"{engine.path} has no plans for {library} {version} on {gpus[0]} in {precision}"
        f"{', only ' * bool(others)}{', '.join(others)}; run `{cure}`"
    )


def load(place: Path) -> Plans:
    """Reads and checks `plan.json`.

    Raises:
        EngineError: It is missing, damaged, or of plans that this picme_rt would make otherwise.
    """
    path = place / RECORD
    try:
        with path.open("rb") as file:
            text = file.read(_RECORD_BYTES + 1)
        if len(text) > _RECORD_BYTES:
            raise ValueError(f"it has more than {_RECORD_BYTES} bytes")
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"it has format {content['format']!r}, this picme_rt reads {FORMAT}")
        return Plans(
            path=place,
            library=str(content["library"]),
            version=str(content["version"]),
            gpu=str(content["gpu"]),
            options=_options(content["options"]),
            sources={role: str(content["sources"][role]) for role in ROLES},
            files={role: File(**content["files"][role]) for role in ROLES},
            layers={role: int(content["layers"][role]) for role in ROLES},
        )
    except OSError as exc:
        raise EngineError(f"{path} cannot be read: {exc.strerror}; build it again") from exc
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        raise EngineError(
            f"{path} is stale or damaged: {type(exc).__name__}: {one_line(exc)}; "
            "build the plans again with `picme export ENGINE --target ... --force`"
        ) from exc


def record(plans: Plans) -> str:
    """The text of `plan.json`: what `load` reads."""
    content = dataclasses.asdict(plans)
    del content["path"]
    return json.dumps({"format": FORMAT, **content}, indent=1) + "\n"


def made_of(engine: Engine, precision: str) -> dict[str, str]:
    """Digests of the ONNX files of a precision, by role."""
    return {role: engine.files[file].sha256 for role, file in sources(engine, precision).items()}


def _options(entry: dict[str, Any]) -> Options:
    found = Options(**entry)
    if not all(type(n) is int and 1 <= n <= MOST for n in (found.max_batch, found.max_k)):
        raise ValueError(f"it has the ranges {found}")
    return found

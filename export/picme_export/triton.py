"""A model repository for Triton Inference Server: the stages, their ensemble, the whole pipeline.

REPO/NAME_encoder, NAME_sampler, NAME_decoder    one ONNX graph each
REPO/NAME                                        the ensemble of these three
REPO/NAME_pipeline                               the same way as one graph
"""

import re
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import TensorProto

from picme_export.pipeline import export, stages
from picme_export.pipeline.export import Difference
from picme_rt import atomic
from picme_rt import engine as engines
from picme_rt.errors import InputError

CONFIG, MADE_BY = "config.pbtxt", "# written by picme export"
VERSION = "1"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_TYPES: dict[int, str] = {
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT: "TYPE_FP32",
}
_PARTS = stages.Stages._fields[:3]


def write(
    source: Path, target: Path, *, name: str | None = None, force: bool = False
) -> Difference:
    """Writes the models of an engine into a repository; others that are there stay.

    Each model appears whole or not at all, the ensemble after those that it calls.

    Args:
        source: The engine's directory.
        target: The repository.
        name: What the models' names begin with; the engine's name by default.
        force: Replace models of these names that were written here, by their first line.

    Returns:
        What the pipeline's pictures differ by from a session's.

    Raises:
        InputError: A model exists, or the name is none for a directory.
        EngineError: `source` is no engine.
        ParityError: The pipeline does not give what a session gives; nothing is written.
    """
    engine = engines.load(source)
    name = name or engine.name
    if not _NAME.fullmatch(name):
        raise InputError(f"name must be letters, digits, _, . and -, got {name!r}; pass --name")
    places = [target / name, *(target / f"{name}_{part}" for part in (*_PARTS, "pipeline"))]
    for place in places:
        if place.exists() and not (force and _is_ours(place / CONFIG)):
            cure = "pass --force to replace models" if not force else "it is no model of picme's"
            raise InputError(f"{place} exists; {cure}, or another --name")
    found = stages.of(engine)
    models = {part: stages.alone(found, getattr(found, part)) for part in _PARTS}
    models["pipeline"] = stages.whole(found)
    difference = export.difference(models["pipeline"], source)
    target.mkdir(parents=True, exist_ok=True)
    for part, model in models.items():
        with atomic.directory(target / f"{name}_{part}", force=force) as fresh:
            (fresh / VERSION).mkdir()
            (fresh / VERSION / "model.onnx").write_bytes(model.SerializeToString())
            (fresh / CONFIG).write_text(model_config(f"{name}_{part}", model))
    with atomic.directory(target / name, force=force) as fresh:
        (fresh / VERSION).mkdir()  # an ensemble has no file, but a version
        (fresh / CONFIG).write_text(ensemble_config(name, models))
    return difference


def _is_ours(config: Path) -> bool:
    """Whether a model's configuration is one that was written here, changed since or not."""
    if not config.is_file():
        return False
    with config.open("rb") as opened:
        return opened.read(len(MADE_BY)) == MADE_BY.encode()


def model_config(name: str, model: onnx.ModelProto) -> str:
    """The configuration of one graph: its own names, types and shapes, -1 where a side is free."""
    return "\n".join(
        [
            MADE_BY,
            f'name: "{name}"',
            'backend: "onnxruntime"',
            "max_batch_size: 0",
            *_tensors("input", model.graph.input),
            *_tensors("output", model.graph.output),
            "",
        ]
    )


def ensemble_config(name: str, models: dict[str, onnx.ModelProto]) -> str:
    """The configuration of the ensemble: a tensor has one name in all stages.

    Args:
        name: Of the ensemble.
        models: The stages by name, and `pipeline`, whose inputs and outputs are the ensemble's.
    """
    lines = [
        MADE_BY,
        f'name: "{name}"',
        'platform: "ensemble"',
        "max_batch_size: 0",
        *_tensors("input", models["pipeline"].graph.input),
        *_tensors("output", models["pipeline"].graph.output),
        "ensemble_scheduling {",
    ]
    for part in _PARTS:
        graph = models[part].graph
        lines += ["  step {", f'    model_name: "{name}_{part}"', "    model_version: -1"]
        for field, tensors in (("input_map", graph.input), ("output_map", graph.output)):
            lines += [f'    {field} {{ key: "{one.name}" value: "{one.name}" }}' for one in tensors]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _tensors(field: str, values: Iterable[onnx.ValueInfoProto]) -> list[str]:
    found = []
    for value in values:
        kind = value.type.tensor_type
        axes = ", ".join(
            str(d.dim_value if d.HasField("dim_value") else -1) for d in kind.shape.dim
        )
        about = f'name: "{value.name}" data_type: {_TYPES[kind.elem_type]} dims: [ {axes} ]'
        found.append(f"{field} {{ {about} }}")
    return found

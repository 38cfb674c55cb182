"""An engine's whole way as three stages: each a graph by itself, or all of them one.

encoder: image, mask                  -> fitted, missing, region, log_alpha, mu, ..., f_0, ...
sampler: the mixture, uniforms, normals -> z, primitives
decoder: z, what the encoder gave, image, mask -> pictures
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import DTypeLike

from picme_export import half_weights
from picme_export.pipeline import fit, paste, region, sampler
from picme_export.pipeline.steps import Axes, Steps, Value
from picme_rt import windows
from picme_rt.backends import graphs
from picme_rt.engine import Engine
from picme_rt.errors import InputError
from picme_rt.framing import Box

Values = dict[str, Value]


class Tensor(NamedTuple):
    """One tensor between the stages; free sides of its shape have names."""

    dtype: DTypeLike
    axes: Axes


class Stage(NamedTuple):
    """A part of the way: the names that go in and come out, and what writes its nodes."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    write: Callable[[Steps, Values], Values]


class Stages(NamedTuple):
    """All stages in their order, and every tensor by its name."""

    encoder: Stage
    sampler: Stage
    decoder: Stage
    tensors: dict[str, Tensor]
    about: dict[str, str]


REQUEST = ("image", "mask", "uniforms", "normals")
RESULTS = ("pictures", "primitives")
_MIXTURE = ("log_alpha", "mu", "log_sigma")


def of(engine: Engine) -> Stages:
    """The stages of an engine in fp32.

    Raises:
        InputError: The engine has no fp32.
        EngineError: A graph is damaged.
    """
    if "fp32" not in engine.variants:
        raise InputError(f"{engine.path} must have fp32, got {list(engine.variants)}")
    found, size = graphs.read(engine, "fp32"), engine.size
    encoder = half_weights.widened(found.encoder.content)
    decoder = half_weights.widened(found.decoder.content)
    table = engine.tables
    encoded = tuple(tensor.name for tensor in table.encoder.outputs)
    kept = tuple(name for name in encoded if name not in _MIXTURE)
    every = windows.windows(size, found.crops, Box(0, 0, size, size)).rows

    def encode(steps: Steps, given: Values) -> Values:
        image, hole = given["image"], given["mask"].cast(np.bool_)
        square = region.region(steps, hole, size=size, framing=engine.framing)
        fitted, missing = fit.fit(image, hole, square, size)
        outputs = steps.inline(encoder, {"image": fitted, "hole": missing})
        return {**outputs, "fitted": fitted, "missing": missing, "region": square.packed()}

    def sample(steps: Steps, given: Values) -> Values:
        mixture = [given[name] for name in _MIXTURE]
        z, chosen = sampler.sample(mixture, given["uniforms"], given["normals"])
        return {"z": z, "primitives": chosen}

    def decode(steps: Steps, given: Values) -> Values:
        k = given["z"].size(0)
        inputs = {name: given[name].expand(k) for name in kept}
        inputs |= {"z": given["z"], "hole": given["missing"].expand(k)}
        if found.crops:
            inputs["box"] = steps.constant(every)
        pictures = steps.inline(decoder, inputs)["picture"]
        square, hole = region.unpacked(given["region"]), given["mask"].cast(np.bool_)
        canvas = given["fitted"], given["missing"], given["image"], hole
        return {"pictures": paste.paste(pictures, *canvas, square, size)}

    canvas = ("fitted", "missing", "region")
    return Stages(
        Stage(("image", "mask"), (*canvas, *encoded), encode),
        Stage((*_MIXTURE, "uniforms", "normals"), ("z", "primitives"), sample),
        Stage(("z", *kept, *canvas, "image", "mask"), ("pictures",), decode),
        _tensors(engine),
        {
            "engine": engine.name,
            "licence": str(engine.provenance.get("licence", "")),
            **{role: engine.files[name].sha256 for role, name in engine.variants["fp32"].items()},
        },
    )


def _tensors(engine: Engine) -> dict[str, Tensor]:
    size, float32 = engine.size, np.float32
    own = {one.name: Tensor(float32, (1, *one.shape)) for one in engine.tables.encoder.outputs}
    return own | {
        "image": Tensor(np.uint8, ("H", "W", 3)),
        "mask": Tensor(np.uint8, ("H", "W")),
        "uniforms": Tensor(float32, ("k",)),
        "normals": Tensor(float32, ("k", engine.latent)),
        "fitted": Tensor(float32, (1, 3, size, size)),
        "missing": Tensor(float32, (1, 1, size, size)),
        "region": Tensor(np.int64, (7,)),
        "z": Tensor(float32, ("k", engine.latent)),
        "primitives": Tensor(np.int64, ("k",)),
        "pictures": Tensor(np.uint8, ("k", "H", "W", 3)),
    }


def alone(stages: Stages, stage: Stage) -> onnx.ModelProto:
    """One stage as a graph of its own."""
    return _graph(stages, stage.inputs, stage.outputs, (stage,))


def whole(stages: Stages) -> onnx.ModelProto:
    """All stages as one graph: image, mask, uniforms, normals -> pictures, primitives."""
    return _graph(stages, REQUEST, RESULTS, stages[:3])


def _graph(
    stages: Stages, inputs: tuple[str, ...], outputs: tuple[str, ...], parts: tuple[Stage, ...]
) -> onnx.ModelProto:
    steps, tensors = Steps(), stages.tensors
    known: Values = {name: steps.input(name, *tensors[name]) for name in inputs}
    for stage in parts:
        known |= stage.write(steps, {name: known[name] for name in stage.inputs})
    for name in outputs:
        steps.output(name, known[name], tensors[name].axes)
    return steps.model(stages.about)

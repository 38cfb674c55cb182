"""A lower precision for an engine: calibrated on pictures, measured on others, in its manifest."""

import dataclasses
import functools
import hashlib
import shutil
from pathlib import Path

from picme_export import calibrate, half_weights, quality, quantise
from picme_rt import atomic, graph_shapes, plans
from picme_rt import engine as engines
from picme_rt.errors import InputError
from picme_rt.images import Hole, Image
from picme_training.perceptual import Lpips

_CALIBRATED, _ALONE, _MEASURED = 32, 12, 48  # pictures at most; a layer alone is tried on a few
_BUDGET = 255**2 / 10 ** (40 / 10)
"""40 dB for the sum of the layers' own errors; all together come to a decibel more or less."""
_DECODER = "int8/decoder.onnx"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What int8 is made and lower precisions are measured with.

    Attributes:
        pictures: A folder, or a file of `picme pack`; a third of it, at most 48, is measured with.
        lpips: Measures LPIPS too, without which `auto` takes no lower precision.
        int8: Whether an int8 variant is written; else only what there is is measured.
        seed: Of the order of the pictures and of their holes.
    """

    pictures: Path
    lpips: Lpips | None = None
    int8: bool = True
    seed: int = 0


def extend(source: Path, target: Path, given: Calibration, *, force: bool = False) -> None:
    """Writes an engine again with lower precisions; `target` may be `source`, with `force`.

    Then plans that were built beside its graphs stay; what they were made of says which are whose.

    Raises:
        InputError: `target` exists and is no engine, or there are too few pictures.
        EngineError: `source` is no engine.
    """
    engine = engines.load(source)
    if target.exists() and not (target / engines.MANIFEST).is_file():
        raise InputError(f"{target} exists and is no engine; export to another place")
    with atomic.directory(target, force=force) as fresh:
        for name in engine.files:
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_bytes(engine.read(name))
        if target.exists() and target.samefile(source) and (source / plans.FOLDER).is_dir():
            shutil.copytree(source / plans.FOLDER, fresh / plans.FOLDER)
        _write(dataclasses.replace(engine, path=fresh))
        add(fresh, given)


def add(root: Path, given: Calibration) -> None:
    """Adds lower precisions to an engine that nobody reads yet.

    Raises:
        InputError: It has no fp32, there are too few pictures, or int8 would be seen everywhere.
    """
    engine = engines.load(root)
    if "fp32" not in engine.variants:
        raise InputError(f"{root} must have fp32 to make int8 of, got {list(engine.variants)}")
    pictures = calibrate.read(given.pictures, engine, seed=given.seed)
    measured = min(_MEASURED, len(pictures) // 3)
    if given.int8:
        engine = _int8(engine, pictures[measured:][:_CALIBRATED])
        _write(engine)
    found = quality.measure(root, pictures[:measured], given.lpips)
    _write(dataclasses.replace(engine, quality=found))
    engines.load(root)  # what is written must be what the runtime reads


def _int8(engine: engines.Engine, pictures: list[tuple[Image, Hole]]) -> engines.Engine:
    """Writes int8/decoder.onnx; the encoder is that of fp32, so that the latents are the same."""
    roles, table = engine.variants["fp32"], engine.tables.decoder
    model = half_weights.widened(engine.read(roles["decoder"]))
    feeds = calibrate.decoder_feeds(engine, pictures)
    top = calibrate.prepare(model, functools.partial(calibrate.largest, model, feeds))
    cost = graph_shapes.check(model.SerializeToString(), table, engine.crops)
    macs = quantise.multiplications(model, cost.shapes)
    tried = calibrate.alone(model, table, feeds[:_ALONE], top)
    chosen = calibrate.choose(tried, macs, budget=_BUDGET)
    if not chosen:
        raise InputError(
            f"the decoder of {engine.path} has no layer that int8 would not change visibly, "
            f"the least error is {min(one.error for one in tried):.2f} squared levels; use bf16"
        )
    layers = [one.layer for one in chosen]
    ranges = calibrate.joint(chosen)
    done = quantise.quantise(model, layers, ranges).SerializeToString()
    graph_shapes.check(done, table, engine.crops)  # what a reader would refuse is not written
    (engine.path / _DECODER).parent.mkdir(exist_ok=True)
    (engine.path / _DECODER).write_bytes(done)
    about = {
        "calibrated_on": len(pictures),
        "share": sum(macs[one.name] for one in layers) / cost.macs,
        "float32": [one.layer.name for one in tried if one not in chosen],
        "errors": {one.layer.name: one.error for one in tried},
    }
    return dataclasses.replace(
        engine,
        files=engine.files | {_DECODER: engines.File(hashlib.sha256(done).hexdigest(), len(done))},
        variants=engine.variants | {"int8": {**roles, "decoder": _DECODER}},
        provenance=engine.provenance | {"int8": about},
    )


def _write(engine: engines.Engine) -> None:
    (engine.path / engines.MANIFEST).write_text(engines.manifest(engine), encoding="utf-8")

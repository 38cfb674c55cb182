"""From a checkpoint to an engine directory that appears whole or not at all."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch

from picme_export import graphs, half_weights, rewrites, variant, verify
from picme_export.variant import Calibration
from picme_rt import atomic
from picme_rt import engine as engines
from picme_rt.errors import InputError
from picme_rt.framing import Framing
from picme_training import checkpoint
from picme_training.networks import Picme, fold

Stored = Literal["fp32", "fp16"]


def export(
    source: Path,
    target: Path,
    *,
    name: str | None = None,
    card: Path | None = None,
    provenance: dict[str, Any] | None = None,
    calibration: Calibration | None = None,
    rewritten_for: rewrites.Target = "cpu",
    weights: Stored = "fp32",
    force: bool = False,
) -> dict[str, dict[str, float]]:
    """Exports the averaged weights of a checkpoint and compares both graphs with torch.

    Args:
        source: A checkpoint, or a run (its newest checkpoint).
        target: The engine's directory.
        name: The engine's name; the directory's by default.
        card: A model card (Markdown) to be copied into the engine as MODEL_CARD.md.
        provenance: Entries about data, licence and commit.
        calibration: Adds lower precisions.
        rewritten_for: What the graphs are rewritten for; they run everywhere either way.
        weights: How large weights lie in the files; fp16 rounds them, for half the size.
        force: Replace an engine that exists.

    Returns:
        Largest error against torch by graph and batch size.

    Raises:
        InputError: There is no good checkpoint, or `target` exists.
        ParityError: A graph does not give what torch gives; nothing is written.
    """
    place = checkpoint.find(source)
    said = checkpoint.describe(place)
    config = said.config
    model = Picme(config.network)
    checkpoint.load_module(place, "ema", model)
    about = {
        "checkpoint_step": said.step,
        "pictures_seen": said.pictures,
        "config": config.to_dict(),
        "torch": torch.__version__,
        **(provenance or {}),
    }
    return write(
        model, target, name=name or target.name, framing=config.framing, card=card, about=about,
        calibration=calibration, rewritten_for=rewritten_for, weights=weights, force=force,
    )  # fmt: skip


def write(
    model: Picme,
    target: Path,
    *,
    name: str,
    framing: Framing = "aligned",
    card: Path | None = None,
    about: dict[str, Any] | None = None,
    calibration: Calibration | None = None,
    rewritten_for: rewrites.Target = "cpu",
    weights: Stored = "fp32",
    force: bool = False,
) -> dict[str, dict[str, float]]:
    """Writes a model, of any weights, as an engine; it is folded, and rounded, in place."""
    tables = graphs.tables_of(model)
    takes_z_m = tables.decoder.inputs[1].name == "z_m"
    modules = {
        "encoder": graphs.EncoderGraph(model),
        "decoder": graphs.DecoderGraph(model, z_m=takes_z_m),
    }
    if target.exists() and not (target / engines.MANIFEST).is_file():
        raise InputError(f"{target} exists and is no engine; export to another place")
    with atomic.directory(target, force=force) as fresh:
        fold(model)
        if weights == "fp16":
            half_weights.round_(model)
        (fresh / "fp32").mkdir()
        errors, done = {}, {}
        for role, module in modules.items():
            path, graph = fresh / "fp32" / f"{role}.onnx", getattr(tables, role)
            done[role] = graphs.to_onnx(
                module, graph, path, target=rewritten_for, half=weights == "fp16"
            )
            errors[role] = verify.parity(model, module, graph, path)
        if card is not None:
            (fresh / "MODEL_CARD.md").write_bytes(card.read_bytes())
        files = {
            path.relative_to(fresh).as_posix(): engines.File(
                hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
            )
            for path in sorted(fresh.rglob("*"))
            if path.is_file()
        }
        engine = engines.Engine(
            path=target,
            name=name,
            framing=framing,
            size=model.config.size,
            primitives=model.config.primitives,
            latent=model.latent_dim,
            features=[tuple(shape) for shape in model.encoder.shapes],
            z_m=takes_z_m,
            variants={"fp32": {role: f"fp32/{role}.onnx" for role in modules}},
            files=files,
            provenance={
                **(about or {}),
                "parity": errors,
                "graphs": done,
                "rewritten_for": rewritten_for,
                "weights": weights,
            },
            crops=graphs.crops_of(model),
        )
        (fresh / engines.MANIFEST).write_text(engines.manifest(engine), encoding="utf-8")
        engines.load(fresh)  # what is written must be what the runtime reads
        if calibration is not None:
            variant.add(fresh, calibration)
    return errors

"""A run on disk: one directory a scale, whole or not there, so that a kill loses the running scale.

RUN/run.json                 format, settings, digest of the picture and its hole
RUN/naive/                   the naive completion
RUN/scales/00/ 01/ ...       a scale that is done
    scale.json               sha256 of the tensors
    scale.safetensors        generator, discriminator, and what results are made by
    preview.png              the real picture, the reconstruction, completions
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from picme_rt import atomic, files
from picme_rt.errors import InputError
from picme_rt.images import Image
from picme_training import checkpoint
from picme_training.internal.cascade import Frozen
from picme_training.internal.scale import Trained
from picme_training.internal.stack import BLOCKS, Stack

FORMAT = 3
_PARTS = ("amplitude", "fixed", "depth", "rows", "columns", "open", "kept", "chooser", "bank")


def begin(run: Path, about: dict[str, Any], *, resume: bool, force: bool) -> None:
    """Makes a run's folder, or takes up the one that is there.

    Args:
        run: The folder.
        about: What decides the result: settings and fingerprint.
        resume: Go on with its finished scales.
        force: Begin anew where there is one.

    Raises:
        InputError: There is a run and neither is set, or none to go on with, or another one.
    """
    content, place = {"format": FORMAT, **about}, run / "run.json"
    atomic.sweep(run)
    atomic.sweep(run / "scales")
    if resume:
        try:
            found = json.loads(place.read_text())
        except FileNotFoundError as exc:
            raise InputError(f"{run} holds no run to go on with; leave out --resume") from exc
        except ValueError as exc:
            raise InputError(f"{place} is damaged: {exc}; pass --force to begin anew") from exc
        if found != content:
            other = sorted(k for k in content if found.get(k) != content[k])
            raise InputError(
                f"{run} was begun with another {' and '.join(other)}; --resume needs the same "
                "picture, mask and options, --force begins anew"
            )
        return
    if place.exists() and not force:
        raise InputError(f"{run} holds a run; pass --resume to go on, --force to begin anew")
    for old in (run / "scales", run / "naive"):
        if old.exists():
            atomic.remove(old)
    run.mkdir(parents=True, exist_ok=True)
    with atomic.file(place) as fresh:
        fresh.write_text(json.dumps(content, indent=1) + "\n")


def save(run: Path, index: int, trained: Trained, preview: Image) -> None:
    """Writes a finished scale."""
    frozen = trained.frozen
    tensors = {name: getattr(frozen, name) for name in _PARTS}
    tensors |= {f"weight_{i}": w for i, w in enumerate(frozen.weights)}
    tensors |= {f"bias_{i}": b for i, b in enumerate(frozen.biases)}
    tensors |= {"generator": trained.generator.flat, "discriminator": trained.discriminator.flat}
    with atomic.directory(_place(run, index), force=True) as fresh:
        _write(fresh, "scale", tensors)
        files.write_picture(fresh / "preview.png", files.Photograph(preview, None, None))


def load(run: Path, index: int, width: int, device: torch.device) -> Trained | None:
    """A finished scale; None if it is not there.

    Raises:
        InputError: It is damaged.
    """
    tensors = _read(_place(run, index), "scale", device)
    if tensors is None:
        return None
    stacks = Stack(width, 3, device), Stack(width, 1, device)
    for stack, name in zip(stacks, ("generator", "discriminator"), strict=True):
        stack.flat.copy_(tensors[name])
    frozen = Frozen(
        [tensors[f"weight_{i}"] for i in range(BLOCKS)],
        [tensors[f"bias_{i}"] for i in range(BLOCKS)],
        *(tensors[name] for name in _PARTS),
    )
    return Trained(*stacks, frozen)


def save_naive(run: Path, filled: Tensor, preview: Image) -> None:
    """Writes the naive completions (n, 3, h, w)."""
    with atomic.directory(run / "naive", force=True) as fresh:
        _write(fresh, "naive", {"naive": filled})
        files.write_picture(fresh / "naive.png", files.Photograph(preview, None, None))


def load_naive(run: Path) -> Tensor | None:
    """The naive completions; None if they are not there.

    Raises:
        InputError: It is damaged.
    """
    found = _read(run / "naive", "naive", torch.device("cpu"))
    return None if found is None else found["naive"]


def _place(run: Path, index: int) -> Path:
    return run / "scales" / f"{index:02d}"


def _write(place: Path, name: str, tensors: dict[str, Tensor]) -> None:
    path = place / f"{name}.safetensors"
    checkpoint.write({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (place / f"{name}.json").write_text(json.dumps({"sha256": digest}) + "\n")


def _read(place: Path, name: str, device: torch.device) -> dict[str, Tensor] | None:
    if not place.exists():
        return None
    path = place / f"{name}.safetensors"
    try:
        expected = json.loads((place / f"{name}.json").read_text())["sha256"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise InputError(f"{path} is damaged: its sha256 is not the one in {name}.json")
        return {k: v.to(device) for k, v in load_file(path).items()}
    except (OSError, ValueError, KeyError, SafetensorError) as exc:
        if isinstance(exc, InputError):
            raise
        raise InputError(f"{path} cannot be read: {exc!r}") from exc

"""Checkpoints: safetensors and one JSON in a directory that appears whole or not at all.

RUN/checkpoints/step_00012000/
checkpoint.json             format, step, configuration, dataset, sha256 of each file
model.safetensors           live weights of f, the mixture and g
ema.safetensors             their exponential moving average: what is exported
discriminator.safetensors   D
optimizer.safetensors       Adam's moments of both optimisers
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from picme_rt import atomic
from picme_rt.errors import InputError
from picme_training import config as configuration
from picme_training.config import RunConfig
from picme_training.dataset import Dataset

FORMAT = 1
KEPT = 2  # checkpoints of a run that stay on disk


class State(NamedTuple):
    """All that a run needs to go on: its random draws follow from configuration and step."""

    model: nn.Module
    ema: nn.Module
    discriminator: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]


class Description(NamedTuple):
    """What checkpoint.json says.

    Attributes:
        config: The run.
        step: Steps of it so far.
        pictures: Pictures that the weights have seen.
        dataset: What the run learns from; None where that has no names, and of older checkpoints.
    """

    config: RunConfig
    step: int
    pictures: int
    dataset: Dataset | None = None


def save(run: Path, said: Description, state: State) -> Path:
    """Writes the checkpoint of a step and deletes all but the newest two; gives its directory.

    Args:
        run: The run's folder.
        said: What it says of itself.
        state: What is stored.

    Raises:
        OSError: It cannot be written; the older ones stay.
    """
    place = run / "checkpoints" / f"step_{said.step:08d}"
    with atomic.directory(place, force=True) as fresh:
        modules = {"model": state.model, "ema": state.ema, "discriminator": state.discriminator}
        for name, module in modules.items():
            tensors = {k: v.contiguous() for k, v in module.state_dict().items()}
            write(tensors, fresh / f"{name}.safetensors")
        write(_moments(state.optimizers), fresh / "optimizer.safetensors")
        seal(fresh, said)
    prune(run)
    return place


def prune(run: Path) -> None:
    """Deletes all but the newest two; a run that is killed after a checkpoint leaves three."""
    for old in _all(run)[:-KEPT]:
        atomic.remove(old)


def save_weights(run: Path, said: Description, model: nn.Module) -> Path:
    """Writes a checkpoint of one network alone, to be exported or measured; gives its directory.

    Args:
        run: The folder of the new checkpoint, without any.
        said: What it says of itself.
        model: Its averaged weights.

    Raises:
        InputError: `run` has a checkpoint, or a weight is not finite.
    """
    check_fresh(run)
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise InputError(f"weights must be finite, got {name} with NaN or infinity; lower lr")
    place = run / "checkpoints" / f"step_{said.step:08d}"
    with atomic.directory(place) as fresh:
        write({k: v.contiguous() for k, v in model.state_dict().items()}, fresh / "ema.safetensors")
        seal(fresh, said)
    return place


def check_fresh(run: Path) -> None:
    """Refuses a folder that holds a run.

    Raises:
        InputError: It does.
    """
    if _all(run):
        raise InputError(f"{run} holds a run; name another folder")


def check_writable(run: Path) -> None:
    """Makes a folder for checkpoints before there is one to write.

    Raises:
        OSError: Nothing can be written there.
    """
    place = run / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=place):
        pass


def is_weights_alone(place: Path) -> bool:
    """Whether a checkpoint holds averaged weights and nothing to go on with (`save_weights`)."""
    try:
        return set(_sums(place)) == {"ema.safetensors"}
    except (OSError, ValueError):  # it is damaged, which who reads its files says
        return False


def find(path: Path) -> Path:
    """The checkpoint directory that `path` names: itself, or the newest one of a run.

    Raises:
        InputError: There is no checkpoint.
    """
    if (path / "checkpoint.json").is_file():
        return path
    if not (found := _all(path)):
        raise InputError(f"{path} is neither a checkpoint nor a run with checkpoints")
    return found[-1]


def describe(place: Path) -> Description:
    """What the checkpoint.json of a checkpoint says.

    Raises:
        InputError: It is missing, damaged or of a newer format.
    """
    content = _said(place)
    form, tables, step, pictures = (content[name] for name in _ENTRIES)
    if form != FORMAT:
        raise InputError(f"{place} has checkpoint format {form}, this version reads {FORMAT}")
    named = content["dataset"]
    dataset = None if named is None else Dataset(*(named[name] for name in _OF_DATASET))
    return Description(configuration.from_dict(tables), step, pictures, dataset)


def check(place: Path, names: Iterable[str]) -> None:
    """Refuses a checkpoint of which a file (`model`, ...) is not what was written.

    Raises:
        InputError: One is missing or damaged.
    """
    for name in names:
        _whole(place, name)


_ENTRIES = {"format": int, "config": dict, "step": int, "pictures": int}
_OF_DATASET = {"pictures": int, "masks": int, "sha256": str}


def _said(place: Path) -> dict[str, Any]:
    """checkpoint.json, its entries of the right types."""
    try:
        content = json.loads((place / "checkpoint.json").read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise _unusable(place, f"{place} has no checkpoint.json") from exc
    except ValueError as exc:
        raise _unusable(place, f"{place}/checkpoint.json is damaged: {exc}") from exc
    if not isinstance(content, dict):
        raise _unusable(place, f"{place}/checkpoint.json is damaged: it is no table")
    _check_types(place, "", content, _ENTRIES)
    if content.setdefault("dataset", None) is not None:
        _check_types(place, "", content, {"dataset": dict})
        _check_types(place, "dataset.", content["dataset"], _OF_DATASET)
    return content


def _check_types(place: Path, table: str, content: dict[str, Any], types: dict[str, type]) -> None:
    for name, kind in types.items():
        if type(content.get(name)) is not kind:
            found = f"{table}{name} must be of type {kind.__name__}, got {content.get(name)!r}"
            raise _unusable(place, f"{place}/checkpoint.json is damaged: {found}")


def _unusable(place: Path, why: str) -> InputError:
    """The error of a damaged checkpoint, with its cure: the newest whole one that is older."""
    place = place.resolve()
    for older in reversed(_all(place.parent.parent)):
        if older.parent == place.parent and older.name < place.name and _is_whole(older):
            return InputError(f"{why}; delete {place.name} to go on from {older.name}")
    return InputError(
        f"{why}; no whole checkpoint that is older lies beside it: copy it anew from where it is "
        "whole, or begin another run"
    )


def _is_whole(place: Path) -> bool:
    try:
        sums = _sums(place)
        return bool(sums) and all(_sha256(place / name) == one for name, one in sums.items())
    except (OSError, ValueError):
        return False


def _sums(place: Path) -> dict[str, str]:
    """The sha256 of each file, as checkpoint.json says; ValueError where it does not."""
    content = json.loads((place / "checkpoint.json").read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("sha256"), dict):
        raise ValueError("checkpoint.json has no sha256")
    sums: dict[str, str] = content["sha256"]
    return sums


def load_module(place: Path, name: str, module: nn.Module) -> None:
    """Loads one network of a checkpoint, every key and shape checked.

    Raises:
        InputError: The file is missing, damaged (hash) or belongs to another network.
    """
    try:
        module.load_state_dict(tensors(place, name), strict=True)
    except RuntimeError as exc:
        raise InputError(f"{place}/{name}.safetensors does not fit the network: {exc}") from exc


def load(place: Path, state: State) -> None:
    """Loads everything into `state`, in place."""
    for name in ("model", "ema", "discriminator"):
        load_module(place, name, getattr(state, name))
    stored = tensors(place, "optimizer")
    for name, optimizer in state.optimizers.items():
        _restore(name, optimizer, stored)


def seal(fresh: Path, said: Description) -> None:
    """Writes checkpoint.json into a directory whose other files are there, with their sums."""
    content = {
        "format": FORMAT,
        "step": said.step,
        "pictures": said.pictures,
        "config": said.config.to_dict(),
        "dataset": None if said.dataset is None else said.dataset._asdict(),
        "sha256": {path.name: _sha256(path) for path in sorted(fresh.iterdir())},
    }
    (fresh / "checkpoint.json").write_text(json.dumps(content, indent=2) + "\n")


def write(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes tensors as safetensors, with the modes of the folder.

    Raises:
        OSError: They cannot be written; its filename is `path`.
    """
    try:
        save_file(tensors, path)
    except SafetensorError as exc:
        # its text alone says which of the system's errors it was
        if (found := re.search(r"\(os error (\d+)\)", str(exc))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from exc
    # save_file lets nobody but the owner read; the new directory has the modes of the umask
    path.chmod(path.parent.stat().st_mode & 0o666)


def _all(run: Path) -> list[Path]:
    return sorted(path for path in (run / "checkpoints").glob("step_*") if path.is_dir())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors(place: Path, name: str) -> dict[str, Tensor]:
    """The state of one network of a checkpoint (or of its optimizers), its hash checked.

    Raises:
        InputError: The file is missing or damaged.
    """
    path = _whole(place, name)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as exc:
        raise _unusable(place, f"{path} cannot be read: {exc}") from exc


def _whole(place: Path, name: str) -> Path:
    """The file of one network, its hash checked."""
    path = place / f"{name}.safetensors"
    try:
        if _sha256(path) == _sums(place)[path.name]:
            return path
        why = "is damaged: its sha256 is not the one in checkpoint.json"
    except FileNotFoundError:
        why = "cannot be read: there is no such file"
        if is_weights_alone(place):
            raise InputError(
                f"{path} cannot be read: {place} holds averaged weights alone; name a checkpoint "
                "of picme train"
            ) from None
    except KeyError:
        why = "cannot be read: checkpoint.json has no sha256 of it"
    except (OSError, ValueError) as exc:
        why = f"cannot be read: {exc}"
    raise _unusable(place, f"{path} {why}")


def _moments(optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    return {
        f"{name}.{index}.{key}": value.contiguous()
        for name, optimizer in optimizers.items()
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def _restore(name: str, optimizer: torch.optim.Optimizer, stored: dict[str, Tensor]) -> None:
    """Fills an optimizer, its moments laid out as their weights, as a fresh one has them."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in stored.items():
        owner, index, moment = key.split(".")
        if owner == name:
            if moment != "step":  # Adam's count, a number on the CPU
                value = torch.empty_like(weights[int(index)]).copy_(value)
            state.setdefault(int(index), {})[moment] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})

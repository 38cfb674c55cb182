"""The weights of an engine as the beginning of a run: fine-tuning without a checkpoint.

An engine holds f, the mixture and g, under the names of the checkpoint that it was exported from.
It holds neither D nor the statistics that whiten z_c: a run that begins here draws D afresh.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from picme_rt import engine as engines
from picme_rt import onnx_file
from picme_rt.errors import InputError
from picme_training import checkpoint, grow
from picme_training import config as configuration
from picme_training.config import NetworkConfig, RunConfig
from picme_training.networks import Picme

_WIDEST = 4
"""Places a side of the largest kernel of `cats`, as it is trained."""
_OWNER = "model."  # of the graphs' wrappers (picme_export.graphs)


class Weights(NamedTuple):
    """What an engine knows of the run behind it.

    Attributes:
        config: The run.
        step: Of its checkpoint; 0 where the engine does not say.
        pictures: That the weights have seen.
        state: The weights.
    """

    config: RunConfig
    step: int
    pictures: int
    state: dict[str, Tensor]


def is_engine(path: Path) -> bool:
    """Whether a path names an engine rather than a run or a checkpoint."""
    return (path / engines.MANIFEST).is_file()


def read(path: Path) -> Weights:
    """The float32 weights of an engine, by the names that `Picme` gives them.

    Raises:
        EngineError: The engine is damaged.
        InputError: It does not say which network it is, or has no fp32 weights to begin with.
    """
    engine = engines.load(path)
    try:
        config = configuration.from_dict(engine.provenance["config"])
        step = int(engine.provenance.get("checkpoint_step", 0))
        pictures = int(engine.provenance["pictures_seen"])
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(
            f"{path} does not say which network it is ({exc!r}); start from its checkpoint"
        ) from exc
    if config.network.preset != "cats" or "fp32" not in engine.variants:
        raise InputError(
            "a run starts from an engine of preset cats with fp32 weights, got preset "
            f"{config.network.preset!r} with {sorted(engine.variants)}: others hold no weights as "
            "they were trained; start from the checkpoint"
        )
    state = {}
    for name in engine.variants["fp32"].values():
        for weight in onnx_file.parse(engine.read(name)).weights:
            if weight.kind in ("float32", "float16") and weight.name.startswith(_OWNER):
                numbers = torch.from_numpy(weight.numbers.astype(np.float32))
                state[weight.name.removeprefix(_OWNER)] = _as_trained(numbers)
    return Weights(config, step, pictures, state)


def _as_trained(weight: Tensor) -> Tensor:
    """Undoes the exporter's wide strides: 3x3 behind a pixel-unshuffle lies as 3 r x 3 r."""
    if weight.ndim != 4 or weight.shape[-1] <= _WIDEST:
        return weight
    outputs, channels, _, wide = weight.shape
    block = wide // 3
    places = weight.view(outputs, channels, 3, block, 3, block).permute(0, 1, 3, 5, 2, 4)
    return places.reshape(outputs, -1, 3, 3)


def averaged(
    source: Path, network: NetworkConfig | None = None
) -> tuple[checkpoint.Description, Picme]:
    """The averaged weights of a checkpoint, a run or an engine, as a network of its own size.

    Args:
        source: Where they are.
        network: What a configuration says of them, if one does.

    Raises:
        InputError: `source` has no such weights, or is of another network.
    """
    stored = read(source) if is_engine(source) else None
    if stored:
        said = checkpoint.Description(stored.config, stored.step, stored.pictures, None)
    else:
        said = checkpoint.describe(checkpoint.find(source))
    if network not in (None, said.config.network):
        raise InputError(
            f"{source} has another network than the configuration: it is {said.config.network}; "
            "write that as [network]"
        )
    model = Picme(said.config.network)
    if stored:
        model.load_state_dict(grow.grown(stored.state, model.state_dict()))
    else:
        checkpoint.load_module(checkpoint.find(source), "ema", model)
    return said, model

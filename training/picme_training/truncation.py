"""Primitives that fail drawn nearer to primitives that do not, in the weights of a trained network.

StyleGAN's truncation trick (Karras et al. 2019, section B) for single primitives of a mixture: rare
primitives are trained on few pictures, and their completions fail more often than those of others.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from picme_rt.errors import InputError
from picme_training import checkpoint, engine_weights
from picme_training.networks import Picme, VectorLatent


def truncate(model: Picme, keep: Sequence[float], towards: Sequence[int]) -> None:
    """mu_i becomes a + keep_i (mu_i - a), a the mean of mu_j over `towards`, for every picture.

    The last layer of mu is linear, so its weights can say this exactly. alpha and sigma stay.

    Args:
        model: Changed in place.
        keep: Of each of the P primitives, from 0 (it is a) to 1 (it stays).
        towards: Numbers of primitives, from 0.

    Raises:
        InputError: There is no mixture, or an argument is not as above.
    """
    latent = model.latent
    if not isinstance(latent, VectorLatent) or latent.primitives < 2:
        raise InputError("truncation is for a mixture of two primitives or more, got one Gaussian")
    count = latent.primitives
    if len(keep) != count or not all(0 <= one <= 1 for one in keep):
        raise InputError(f"keep must be {count} numbers from 0 to 1, got {list(keep)}")
    if not towards or len(set(towards)) < len(towards) or not set(towards) <= set(range(count)):
        raise InputError(
            f"towards must be different primitives from 0 to {count - 1}, got {list(towards)}"
        )
    last = latent.mu[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        for numbers in (last.weight, last.bias):
            rows = numbers.view(count, latent.latent, -1)
            factor = rows.new_tensor(keep)[:, None, None]
            rows.copy_(torch.lerp(rows[list(towards)].mean(0, keepdim=True), rows, factor))


def write(run: Path, source: Path, keep: Sequence[float], towards: Sequence[int]) -> Path:
    """Writes the truncated averaged weights as a checkpoint to be exported; gives its directory.

    Args:
        run: The folder of the new checkpoint, without any.
        source: A checkpoint, a run or an engine of preset `cats`.
        keep: See `truncate`.
        towards: See `truncate`.

    Raises:
        InputError: As `truncate`, or `source` has no such weights, or `run` holds a run.
    """
    said, model = engine_weights.averaged(source)
    truncate(model, keep, towards)
    return checkpoint.save_weights(run, said, model)

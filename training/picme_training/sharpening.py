"""The likelier primitives of a trained mixture drawn oftener, in the weights.

Temperature scaling (Guo et al. 2017) of the mixture's alpha: L_F fits it to which primitive is the
best for a picture's latent, not to which makes pictures like those of the data.
"""

import math
from pathlib import Path

import torch
from torch import nn

from picme_rt.errors import InputError
from picme_training import checkpoint, engine_weights
from picme_training.networks import Picme, VectorLatent


def sharpen(model: Picme, power: float) -> None:
    """alpha_i becomes alpha_i^power / sum_j alpha_j^power, for every picture.

    The last layer before the softmax is linear, so its weights can say this exactly. mu and sigma
    stay, and so does which primitive is the likeliest: the mode `mean` is as before.

    Args:
        model: Changed in place.
        power: Above 0; above 1 sharper, below 1 flatter.

    Raises:
        InputError: There is no mixture, or `power` is not as above.
    """
    latent = model.latent
    if not isinstance(latent, VectorLatent) or latent.primitives < 2:
        raise InputError("sharpening is for a mixture of two primitives or more, got one Gaussian")
    if not 0 < power < math.inf:  # what NaN is compared with is False
        raise InputError(f"power must be a number above 0, got {power}")
    last = latent.alpha[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(power)
        last.bias.mul_(power)


def write(run: Path, source: Path, power: float) -> Path:
    """Writes the sharpened averaged weights as a checkpoint to be exported; gives its directory.

    Args:
        run: The folder of the new checkpoint, without any.
        source: A checkpoint, a run or an engine of preset `cats`.
        power: See `sharpen`.

    Raises:
        InputError: As `sharpen`, or `source` has no such weights, or `run` holds a run.
    """
    said, model = engine_weights.averaged(source)
    sharpen(model, power)
    return checkpoint.save_weights(run, said, model)

"""Model soups: one checkpoint of the weighted means of the weights of several."""

from pathlib import Path

import torch
from torch import Tensor

from picme_rt import atomic
from picme_rt.errors import InputError
from picme_training import checkpoint

_COUNT = "num_batches_tracked"  # of the statistics of a batch norm


def average(run: Path, places: list[Path], shares: list[float]) -> Path:
    """Writes one checkpoint of the weighted means of the weights of several; gives its directory.

    A model soup (Wortsman et al. 2022): runs that began with the same weights lie in one valley,
    and a point between them may have what each is best at. D, moments, step and configuration are
    those of the last one, so that a run may begin with it; where one of them holds averaged weights
    alone (`checkpoint.save_weights`), so does the mean.

    Args:
        run: The folder of the new checkpoint, without any.
        places: Checkpoints of the same network.
        shares: Of each, summing to 1.

    Raises:
        InputError: `run` has a checkpoint, a share is missing or out of its range, or the
            checkpoints are damaged, of different networks, or under spectral norm.
    """
    if len(places) != len(shares) or len(places) < 2:
        raise InputError(f"an average takes two checkpoints or more, a share each, got {places}")
    # what NaN is compared with is False
    if not (all(share >= 0 for share in shares) and abs(sum(shares) - 1) <= 1e-6):
        raise InputError(f"shares must be 0 or more and sum to 1, got {shares}")
    checkpoint.check_fresh(run)
    *_, last = said = [checkpoint.describe(place) for place in places]
    for place, one in zip(places, said, strict=True):
        if one.config.network != last.config.network:
            raise InputError(f"{place} is of another network than {places[-1]}")
        checkpoint.check(place, ["ema"])
    if last.config.network.preset != "cats":
        # sigma is u' W v of the stored u and v, which are no mean of others'
        raise InputError(
            f"an average is of networks without spectral norm, preset 'cats', got preset "
            f"{last.config.network.preset!r}"
        )
    place = run / "checkpoints" / places[-1].name
    alone = any(map(checkpoint.is_weights_alone, places))
    with atomic.directory(place) as fresh:
        for name in ("ema",) if alone else ("model", "ema"):
            parts = [checkpoint.tensors(one, name) for one in places]
            checkpoint.write(_means(parts, shares), fresh / f"{name}.safetensors")
        for name in () if alone else ("discriminator", "optimizer"):
            checkpoint.write(checkpoint.tensors(places[-1], name), fresh / f"{name}.safetensors")
        checkpoint.seal(fresh, last)
    return place


def _means(parts: list[dict[str, Tensor]], shares: list[float]) -> dict[str, Tensor]:
    found = {key: _mean([part[key] for part in parts], shares) for key in parts[-1]}
    for key in [key for key in found if key.endswith(_COUNT)]:
        if any(part[key] == 0 for part in parts):  # one of them has seen nothing: no more has this
            norm = key.removesuffix(_COUNT)
            found[key].zero_()
            found[f"{norm}running_mean"].zero_()
            found[f"{norm}running_var"].fill_(1)
    return found


def _mean(values: list[Tensor], shares: list[float]) -> Tensor:
    if not values[-1].is_floating_point():
        return values[-1]  # a count of batches
    return torch.stack([v * share for v, share in zip(values, shares, strict=True)]).sum(0)

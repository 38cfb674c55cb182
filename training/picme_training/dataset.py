"""Which pictures and masks a run learns from, so that it does not go on with others unnoticed."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from picme_rt.errors import InputError


class Dataset(NamedTuple):
    """What tells two sets of pictures and masks apart: how many, and their names in order.

    Names, not pixels: a pack of a folder has the folder's names, and another machine's libraries
    may read a JPEG one level brighter.
    """

    pictures: int
    masks: int
    sha256: str


def identify(pictures: Sequence[str], masks: Sequence[str]) -> Dataset:
    """The dataset of the files that are learnt from, by their names."""
    names = json.dumps([list(pictures), list(masks)])
    return Dataset(len(pictures), len(masks), hashlib.sha256(names.encode()).hexdigest())


def check_same(place: Path, before: Dataset | None, now: Dataset | None) -> None:
    """Refuses to go on from a checkpoint with other pictures or masks.

    Args:
        place: The checkpoint.
        before: What it has learnt from; None where it does not know, as older ones.
        now: What the run is to go on with; None of tensors that have no names.

    Raises:
        InputError: Both are known, and they are not the same.
    """
    if before is None or now is None or before == now:
        return
    raise InputError(
        f"{place} has learnt from {_said(before)}, --data and --masks are {_said(now)}"
        f"{' of other names' if before[:2] == now[:2] else ''}; resume with the same, or begin "
        "another run with --start-from"
    )


def _said(dataset: Dataset) -> str:
    return f"{dataset.pictures} pictures and {dataset.masks} masks"

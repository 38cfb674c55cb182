"""A model and its baselines, measured side by side on the same pictures and holes."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from picme_rt.encoded import Encoding, Mixture
from picme_rt.errors import InputError
from picme_rt.images import Hole, Image
from picme_training.evaluate import distances, measures, models, patches, primitives
from picme_training.evaluate.distances import Features
from picme_training.evaluate.models import Model
from picme_training.perceptual import Lpips

BASELINES = ("telea", "mean")
LEAST = 4  # pictures: KID takes subsets of half of them
SHOWN, MIXED, IN_ROWS = 8, 4, 2  # pictures of the sheet, of the latents, of the rows
IN_ROW = 6  # results of one primitive in a row, as in Fig. 12


@dataclasses.dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        samples: k, results a picture; at least 2, for diversity is of pairs.
        per_primitive: Results of each primitive and picture; below 2 there are no contrasts.
        seed: Item n, from 0, is completed with seed + n.
        baselines: Of `BASELINES`: `telea` is OpenCV's, `mean` the model's own mode `mean`.
        patches: Whether the bidirectional patch distance is measured: seconds a result.
    """

    samples: int = 5
    per_primitive: int = 2
    seed: int = 0
    baselines: tuple[str, ...] = ()
    patches: bool = False

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise InputError(
                f"samples must be at least 2, got {self.samples}: diversity is measured in pairs"
            )
        if self.per_primitive < 0:
            raise InputError(f"per_primitive must be 0 or more, got {self.per_primitive}")
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed must be 0 to 2**63 - 1, got {self.seed}")
        if unknown := set(self.baselines) - set(BASELINES):
            raise InputError(f"baselines must be of {', '.join(BASELINES)}, got {sorted(unknown)}")


class Item(NamedTuple):
    """One picture to measure with, with one hole.

    Attributes:
        name: Of its file; items of one name are one picture with several holes.
        picture: (S, S, 3) uint8.
        hole: (S, S) bool, neither empty nor full.
    """

    name: str
    picture: Image
    hole: Hole


class Value(NamedTuple):
    """A measure.

    Attributes:
        mean: Over the pictures, of each over its holes, or over the sets of results.
        spread: The mean's standard error over pictures; of FID and DIV-FID the deviation over sets
            of results, of KID over its subsets; None of a single number.
    """

    mean: float
    spread: float | None


class Shown(NamedTuple):
    """What the pictures of the report are made of.

    Attributes:
        item: The picture.
        results: By column, (k, S, S, 3) uint8.
        mixture: For the first pictures: what the latents are drawn from.
        rows: For the first pictures: (P, r, S, S, 3) uint8, results of each primitive.
    """

    item: Item
    results: dict[str, np.ndarray]
    mixture: Mixture | None
    rows: np.ndarray | None


class Comparison(NamedTuple):
    """All that was measured.

    Attributes:
        columns: By completer (`original`, `model` and the baselines), then by measure.
        gaps: By baseline: its KID less the model's over all pairs of pictures, and its error.
        scalars: What the primitives do.
        shares: Of each primitive.
        shown: The first pictures.
    """

    columns: dict[str, dict[str, Value]]
    gaps: dict[str, Value]
    scalars: dict[str, float]
    shares: dict[str, list[float]]
    shown: list[Shown]


class _Column:
    """The measures of one completer, gathered picture by picture."""

    def __init__(self) -> None:
        self.numbers: dict[str, list[float]] = {}
        self.places: list[Tensor] = []  # in the feature space, (k, D) a picture

    def add(self, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.numbers.setdefault(name, []).append(value)

    def table(self, real: Tensor | None, owners: Sequence[str], seed: int) -> dict[str, Value]:
        found = {name: average(values, owners) for name, values in self.numbers.items()}
        if real is None:
            return found
        made = torch.stack(self.places)  # (N, k, D)
        count = made.shape[1]
        fids = [distances.frechet(real, made[:, i]) for i in range(count)]
        found["FID"] = _over_sets(fids)
        kernels = distances.kernel(real, made, owners, seed)
        found["KID"] = Value(float(kernels.mean()), float(kernels.std()))
        if count > 1:
            pairs = [
                distances.frechet(made[:, i], made[:, j]) for i in range(count) for j in range(i)
            ]
            found["DIV_FID"] = _over_sets(pairs)
        return found


@torch.no_grad()
def compare(
    model: Model,
    items: Sequence[Item],
    options: Options,
    *,
    lpips: Lpips | None = None,
    features: Features | None = None,
) -> Comparison:
    """Completes every picture and measures the results.

    Args:
        model: An engine or a checkpoint.
        items: Pictures with holes; of at least `LEAST` names.
        options: How much is measured.
        lpips: Adds the perceptual measures.
        features: Adds FID, KID and DIV-FID in this space.

    Raises:
        InputError: There are too few pictures, or a hole leaves no patches to compare.
    """
    if (count := len({item.name for item in items})) < LEAST:
        raise InputError(f"an evaluation takes at least {LEAST} pictures, got {count}")
    for item in items if options.patches else ():  # all of them before an hour of work
        try:
            patches.places(item.hole)
        except InputError as exc:
            raise InputError(f"{item.name}: {exc}; leave out --patch-distance") from exc
    columns = {name: _Column() for name in ("original", "model", *options.baselines)}
    study = primitives.Study(model.primitives, options.per_primitive, lpips)
    shown = []
    with one_thread():
        for place, item in enumerate(tqdm(items, unit="img", disable=None)):
            hole, seed = torch.from_numpy(item.hole), options.seed + place
            encoded = model.encode(item.picture, item.hole)
            results = encoded.complete(k=options.samples, seed=seed)
            assert results.primitives is not None  # no hole is empty
            made = {"model": results.images}
            made |= {name: _baseline(name, encoded, item) for name in options.baselines}
            _measure(columns, {"original": item.picture[None], **made}, hole, lpips, features)
            if options.patches:
                for name, images in {"original": item.picture[None], **made}.items():
                    each = torch.from_numpy(images).permute(0, 3, 1, 2)
                    columns[name].add({"patches": measures.patches(each, hole)})
            best = model.best(item.picture, item.hole)
            study.add(encoded, hole, results.primitives, best, seed)
            if place < SHOWN:
                shown.append(_shown(place, item, made, encoded, model.primitives, seed))
        real = None if features is None else torch.cat(columns["original"].places)
        owners = [item.name for item in items]
        tables = {n: column.table(real, owners, options.seed) for n, column in columns.items()}
    return Comparison(tables, _gaps(columns, real, owners), study.scalars(), study.shares(), shown)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch keeps to one core: a team of its threads beside the engine's spins (decisions.md)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _measure(
    columns: dict[str, _Column],
    made: dict[str, np.ndarray],
    hole: Tensor,
    lpips: Lpips | None,
    features: Features | None,
) -> None:
    """Adds one picture to every column; networks see the original and all results in one batch."""
    pictures = torch.from_numpy(np.concatenate(list(made.values()))).permute(0, 3, 1, 2)
    taps = None if lpips is None else lpips.taps(measures.in_network(pictures))
    places = None if features is None else features(pictures)
    first = 0
    for name, results in made.items():
        own = slice(first, first := first + len(results))
        if places is not None:
            columns[name].places.append(places[own])
        if name == "original":
            columns[name].add({"seam": measures.seam_jump(pictures[own], hole)})
            continue
        columns[name].add(measures.of_pixels(pictures[own], pictures[0], hole))
        if lpips is not None and taps is not None:
            both = [tap[own] for tap in taps], [tap[:1] for tap in taps]
            columns[name].add(measures.perceptual(*both, hole, lpips))


def average(values: Sequence[float], owners: Sequence[str]) -> Value:
    """The mean over pictures, of each the mean over its holes, and its standard error."""
    by_picture: dict[str, list[float]] = {}
    for owner, value in zip(owners, values, strict=True):
        by_picture.setdefault(owner, []).append(value)
    means = [np.mean(each) for each in by_picture.values()]
    return Value(float(np.mean(means)), float(np.std(means, ddof=1) / math.sqrt(len(means))))


def relative(columns: dict[str, dict[str, Value]], name: str) -> dict[str, float]:
    """A measure of the model as a share of each baseline's that has it above 0."""
    own, found = columns["model"][name].mean, {}
    for other in BASELINES:
        value = columns.get(other, {}).get(name)
        if value is not None and value.mean > 0:
            found[other] = own / value.mean
    return found


def _gaps(
    columns: dict[str, _Column], real: Tensor | None, owners: Sequence[str]
) -> dict[str, Value]:
    if real is None:
        return {}
    made = {name: torch.stack(column.places) for name, column in columns.items()}
    return {
        name: Value(*distances.kernel_gap(real, made["model"], made[name], owners))
        for name in BASELINES
        if name in made
    }


def _over_sets(values: Iterable[float]) -> Value:
    found = list(values)
    return Value(float(np.mean(found)), float(np.std(found)) if len(found) > 1 else None)


def _baseline(name: str, encoded: Encoding, item: Item) -> np.ndarray:
    if name == "telea":
        return models.telea(item.picture, item.hole)[None]
    return encoded.complete(k=1, mode="mean").images


def _shown(
    place: int, item: Item, made: dict[str, np.ndarray], encoded: Encoding, count: int, seed: int
) -> Shown:
    rows = primitives.rows(encoded, count, IN_ROW, seed) if place < IN_ROWS else None
    return Shown(item, made, encoded.mixture if place < MIXED else None, rows)

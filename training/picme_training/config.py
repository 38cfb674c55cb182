"""What a training run is, read from a TOML file: every key known, every value checked."""

import dataclasses
import math
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

from picme_rt.errors import InputError
from picme_rt.framing import Framing

Preset = Literal["picme", "pic", "cats"]
Direction = Literal["reverse", "forward"]
Decoded = Literal["best", "draw", "both"]


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Which network: everything that fixes the shape of its weights.

    Attributes:
        preset: `picme` (the paper's layout), `pic` (PIC's spatial latent, one Gaussian) or `cats`
            (arithmetic spent where the picture is small; docs/method.md lists its departures).
        size: Side of the square picture in pixels: 64, 128 or 256.
        primitives: P, number of Gaussians of the mixture, 1 to 4096; `pic` has one.
        mask_channel: Whether the encoder sees the hole as a fourth channel (method.md 17).
        judge_hole: Whether the discriminator of `cats` sees the hole too.
        judge_features: Whether the discriminator of `cats` also judges features of SqueezeNet.
        whiten: Whether mu_c is whitened over the batch in training, so that z_c does not collapse;
            `cats` whitens it in any case (see `whitened`).
        detail: Whether the decoder of `cats`, above 64x64, also sees the known pixels at 64x64.
        push_pull: Whether it also sees a smooth filling of the hole there; needs `detail`.
    """

    preset: Preset
    size: int
    primitives: int = 6
    mask_channel: bool = True
    judge_hole: bool = False
    judge_features: bool = False
    whiten: bool = False
    detail: bool = False
    push_pull: bool = False

    def __post_init__(self) -> None:
        if self.preset not in get_args(Preset):
            raise InputError(f"preset must be one of {get_args(Preset)}, got {self.preset!r}")
        if self.size not in (64, 128, 256):
            raise InputError(f"size must be 64, 128 or 256, got {self.size}")
        if not 1 <= self.primitives <= 4096:  # what an engine may have (docs/engine-format.md)
            raise InputError(f"primitives must be 1 to 4096, got {self.primitives}")
        if self.preset == "pic" and self.primitives != 1:
            raise InputError(f"preset pic has one Gaussian, got primitives = {self.primitives}")
        for name in ("judge_hole", "judge_features"):
            if getattr(self, name) and self.preset != "cats":
                raise InputError(
                    f"{name} belongs to the discriminator of cats, got preset {self.preset!r}"
                )

        if self.detail and (self.preset != "cats" or self.size == 64):
            raise InputError(
                "detail belongs to preset cats above 64x64, got preset "
                f"{self.preset!r} at size {self.size}"
            )
        if self.push_pull and not self.detail:
            raise InputError("push_pull needs detail = true, got false")

    @property
    def whitened(self) -> bool:
        """Whether mu_c is whitened: where it is asked for, and in `cats`."""
        return self.whiten or self.preset == "cats"


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the losses (docs/method.md); the defaults are the paper's, with its corrections.

    Attributes:
        gmm: Weight of L_BM (Eq. 5), the mean over dimensions of a KL in nats.
        frequency: Weight of L_F (Eq. 4).
        elbo: Weight of KL(q(z_m|I_m), N(0, I)), mean over dimensions.
        posterior: Weight of KL(q(z_c|I_c), N(0, I)), mean over dimensions; without it sigma_c
            falls to the clamp.
        match: Weight of KL(q(z_c|I_c), N_j) with the primitive standing still, so that z_c says
            what I_m leaves open; 0 is the paper, in which the statistics of z_c stand still.
        direction: `reverse` is the paper's KL(N_j, N_c), `forward` is KL(N_c, N_j).
        losers: Share of Eq. 5 that goes to the primitives that did not win; 0 is the paper.
        adversarial: lambda_A of Eq. 8.
        perceptual: Weight of LPIPS between the reconstruction and the picture; 0 is the paper.
        drawn: Weight of LPIPS between inferred pictures, as D sees them, and the picture: what a
            primitive makes should fit the head around the hole (`settling`); 0 is the paper.
        rim: Weight of the L1 of inferred pictures in the hole, falling with the distance to what is
            known (`losses.rim_reconstruction`); 0 is the paper.
        shift: Most pixels by which a picture is moved before D and LPIPS see it, below the
            network's size; 0 moves none.
        decoded: Which inferred z_c is decoded for the known-pixel and adversarial terms: the `best`
            primitive (the paper), one `draw` from alpha, or `both` (method.md 12).
        composite: The discriminator sees composites (known pixels of the original) rather than g's
            raw output.
        hole_scores: The discriminator's scores count by the share of hole under them: elsewhere a
            composite and an original are the same picture.
    """

    gmm: float = 1.0
    frequency: float = 1.0
    elbo: float = 0.01
    posterior: float = 0.1
    match: float = 0.0
    direction: Direction = "reverse"
    losers: float = 0.05
    adversarial: float = 0.05
    perceptual: float = 0.0
    drawn: float = 0.0
    rim: float = 0.0
    shift: int = 0
    decoded: Decoded = "both"
    composite: bool = False
    hole_scores: bool = False

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise InputError(f"direction must be 'reverse' or 'forward', got {self.direction!r}")
        if self.decoded not in get_args(Decoded):
            raise InputError(f"decoded must be one of {get_args(Decoded)}, got {self.decoded!r}")
        if not 0 <= self.losers < 1:
            raise InputError(f"losers must be in [0, 1), got {self.losers}")
        for name in (
            "gmm",
            "frequency",
            "elbo",
            "posterior",
            "match",
            "adversarial",
            "perceptual",
            "drawn",
            "rim",
            "shift",
        ):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """How often each kind of hole is drawn (relative weights) in training.

    Attributes:
        centre: The centred square of half the side.
        rectangles: One to three random rectangles.
        strokes: Random irregular brush strokes.
        folder: A mask of the folder given on the command line.
    """

    centre: float = 1.0
    rectangles: float = 1.0
    strokes: float = 1.0
    folder: float = 0.0

    def __post_init__(self) -> None:
        weights = dataclasses.astuple(self)
        if min(weights) < 0 or sum(weights) <= 0:
            raise InputError(f"mask weights must be 0 or more with a positive sum, got {weights}")


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random views of a picture.

    Attributes:
        flip: Mirror left to right half of the time.
        zoom: Smallest side of the random square crop, as a share of the picture; 1 crops nothing.
        colour: Largest change, as a share, of the brightness, of the saturation and of each
            channel's gain; 0 changes none.
        turn: Largest angle, in degrees, by which half of the crops are turned, either way; 0 turns
            none. A turned square is smaller, for its corners lie in the picture.
    """

    flip: bool = True
    zoom: float = 0.9
    colour: float = 0.0
    turn: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.zoom <= 1:
            raise InputError(f"zoom must be in (0, 1], got {self.zoom}")
        if not 0 <= self.colour < 1:
            raise InputError(f"colour must be in [0, 1), got {self.colour}")
        if not 0 <= self.turn <= 45:
            raise InputError(f"turn must be in [0, 45] degrees, got {self.turn}")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How long and how fast.

    Attributes:
        steps: Optimiser steps of the whole run.
        batch: Pictures a step.
        lr: Adam's learning rate of the encoder, the mixture and the decoder.
        lr_discriminator: Adam's learning rate of the discriminator.
        beta1: Adam's first moment (PIC: 0).
        beta2: Adam's second moment (PIC: 0.999).
        decay: Share of the steps, at the end, over which both rates fall to zero along a cosine.
        ema: Decay of the exponential moving average of the weights, per step.
        evaluate_every: Steps between evaluations (grid, primitives used) and checkpoints.
        precision: `fp32` or `bf16` (autocast).
        seed: Of the initial weights and of every random draw.
        clip: Largest step of a tensor of weights, as its RMS, in learning rates (`diverging`);
            Adam's are about 1. A larger one is scaled down to it; 0 bounds none.
    """

    steps: int
    batch: int = 16
    lr: float = 1e-4
    lr_discriminator: float = 1e-4
    beta1: float = 0.0
    beta2: float = 0.999
    decay: float = 0.0
    ema: float = 0.999
    evaluate_every: int = 1000
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    clip: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.precision not in ("fp32", "bf16"):
            raise InputError(f"precision must be 'fp32' or 'bf16', got {self.precision!r}")
        for name in ("lr", "lr_discriminator"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("ema", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.clip < 0:
            raise InputError(f"clip must be 0 or more, got {self.clip}")
        if not 0 <= self.decay <= 1:
            raise InputError(f"decay must be in [0, 1], got {self.decay}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be in [0, 2**32), got {self.seed}")

    def rate(self, step: int) -> float:
        """Share of the learning rate at `step`: 1, then a cosine to 0 over the last `decay`."""
        start = self.steps * (1 - self.decay)
        if step <= start:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - start) / (self.steps - start)))


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole training run, as its TOML file says it."""

    network: NetworkConfig
    schedule: ScheduleConfig
    loss: LossConfig = LossConfig()
    masks: MaskConfig = MaskConfig()
    augment: AugmentConfig = AugmentConfig()
    framing: Framing = "aligned"

    def __post_init__(self) -> None:
        if self.network.whitened and self.schedule.batch < 2:
            raise InputError(
                "batch must be at least 2 where z_c is whitened (network.whiten, or preset cats), "
                "got 1"
            )
        if self.loss.shift >= self.network.size:
            raise InputError(
                f"shift must be 0 to size - 1 = {self.network.size - 1}, got {self.loss.shift}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain tables, as `from_dict` reads them."""
        return dataclasses.asdict(self)


_TABLES = {
    "network": NetworkConfig,
    "schedule": ScheduleConfig,
    "loss": LossConfig,
    "masks": MaskConfig,
    "augment": AugmentConfig,
}


def from_dict(tables: dict[str, Any]) -> RunConfig:
    """A run from plain tables.

    Raises:
        InputError: A table or key is missing or unknown, or a value is out of its range.
    """
    parts: dict[str, Any] = {}
    for name, value in tables.items():
        if name == "framing":
            if value not in get_args(Framing):
                raise InputError(f"framing must be 'aligned' or 'free', got {value!r}")
            parts[name] = value
            continue
        if name not in _TABLES or not isinstance(value, dict):
            known = ", ".join(["framing", *(f"[{table}]" for table in _TABLES)])
            raise InputError(f"configuration has an unknown entry {name!r}; known are {known}")
        kind = _TABLES[name]
        fields = {field.name: field for field in dataclasses.fields(kind)}
        for key, got in value.items():
            if key not in fields:
                raise InputError(f"[{name}] has an unknown key {key!r}; known are {list(fields)}")
            _check_type(f"[{name}] {key}", fields[key].type, got)
        required = {key for key, field in fields.items() if field.default is dataclasses.MISSING}
        if missing := required - set(value):
            raise InputError(f"[{name}] lacks {sorted(missing)}")
        parts[name] = kind(**value)
    if missing := {"network", "schedule"} - set(parts):
        raise InputError(f"configuration lacks the tables {sorted(missing)}")
    return RunConfig(**parts)


def check_same(place: Path, made: RunConfig, given: RunConfig) -> None:
    """Refuses to go on from a checkpoint with another configuration.

    Raises:
        InputError: `made`, that of `place`, is not `given`.
    """
    before, now = _flat(made), _flat(given)
    if changed := [name for name in before if before[name] != now[name]]:
        said = ", ".join(f"{name} = {before[name]!r}, not {now[name]!r}" for name in changed)
        raise InputError(
            f"{place} was made with another configuration: {said}; resume with the same TOML, or "
            "begin another run with --start-from"
        )


def _flat(config: RunConfig) -> dict[str, Any]:
    """Every value by `table.key`, and what stands in no table by its name."""
    found: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            found[name] = value
    return found


def _check_type(where: str, expected: Any, got: object) -> None:
    if expected is float:
        good = isinstance(got, (int, float)) and not isinstance(got, bool) and _is_finite(got)
    elif expected in (int, bool):
        good = type(got) is expected
    else:
        good = isinstance(got, str)
    if not good:
        if expected is float and isinstance(got, (int, float)) and not isinstance(got, bool):
            raise InputError(f"{where} must be a finite number, got {got!r}")
        name = expected.__name__ if isinstance(expected, type) else "string"
        raise InputError(f"{where} must be of type {name}, got {got!r}")


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer of more than 308 digits
        return False


def load(path: Path) -> RunConfig:
    """The run that the TOML file at `path` describes.

    Raises:
        InputError: The file is missing, a folder or no TOML, or has an unknown key or a bad value.
    """
    if path.is_dir():
        raise InputError(f"CONFIG must be a TOML file, got the folder {path}")
    try:
        return from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as exc:
        raise InputError(f"there is no configuration file {path}") from exc
    except ValueError as exc:  # tomllib's, of its text, or of a number of thousands of digits
        raise InputError(f"{path} is not valid TOML: {exc}") from exc

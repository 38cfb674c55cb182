"""LPIPS on SqueezeNet 1.1 (Zhang et al. 2018), as a measure and as a training loss.

The weights come from a file (torchvision's SqueezeNet under its own keys, LPIPS v0.1's linear
layers as `lin0..6.model.1.weight`); `download` alone reaches for the network.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from picme_rt.errors import InputError

_FIRE = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
_FIRE |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}
TAPS = (1, 4, 7, 9, 10, 11, 12)


def _lengths(x: Tensor) -> Tensor:
    """|x| over channels, (B, 1, h, w), as float32 at least; of bfloat16 on a CPU to 0.2 %."""
    exact = torch.promote_types(x.dtype, torch.float32)
    if x.is_cpu and x.dtype == torch.bfloat16:  # of which the norm would make a copy in float32
        return (x * x).sum(1, keepdim=True).to(exact).sqrt()
    return torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=exact)


class _Unit(torch.autograd.Function):
    """x / |x| over channels, 0 where x is 0; its pass back in fewer passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        inverse = (1 / _lengths(x).clamp_min(1e-10)).to(x.dtype)
        unit = x * inverse
        ctx.save_for_backward(unit, inverse)
        return unit

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        unit, inverse = ctx.saved_tensors
        along = (grads[0] * unit).sum(1, keepdim=True)
        return torch.addcmul(grads[0], unit, along, value=-1).mul_(inverse)


class _Distance(torch.autograd.Function):
    """Sum over channels, mean over places of (root (a - b))^2, (B,); b stands still."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, root: Tensor) -> Tensor:
        error = (a - b).mul_(root)
        ctx.save_for_backward(error, root)
        return _lengths(error).square().mean((1, 2, 3))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        error, root = ctx.saved_tensors
        places = error.shape[2] * error.shape[3]
        factor = (2 * grads[0] / places)[:, None, None, None].to(error.dtype)
        return (error * factor).mul_(root), None, None


_unit = cast(Callable[[Tensor], Tensor], _Unit.apply)
_distance = cast(Callable[[Tensor, Tensor, Tensor], Tensor], _Distance.apply)


class _Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.squeeze(x))
        return torch.cat([F.relu_(self.expand1x1(x)), F.relu_(self.expand3x3(x))], dim=1)


class Lpips(nn.Module):
    """Distance (B,) between pictures (B, 3, H, W) in [-1, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(inplace=True)]
        for index in range(2, 13):
            pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
            layers.append(_Fire(*_FIRE[index]) if index in _FIRE else pool)
        self.features = nn.Sequential(*layers)
        widths = (64, 128, 256, 384, 384, 512, 512)
        self.lins = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in widths)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("mean", mean.view(1, 3, 1, 1))
        self.register_buffer("std", std.view(1, 3, 1, 1))

    def _normalised(self, image: Tensor) -> Tensor:
        return ((image + 1) / 2 - self.mean) / self.std

    def taps(self, image: Tensor, layers: tuple[int, ...] = TAPS) -> list[Tensor]:
        """Features after these layers, channels of unit length."""
        x = self._normalised(image)
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in layers:
                found.append(_unit(x))
        return found

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        """LPIPS: weighted squared differences, mean over places, summed over layers.

        Differentiable in `image` alone.
        """
        with torch.no_grad():
            others = self.taps(other)
        return self.between(self.taps(image), others)

    def between(self, taps: list[Tensor], others: list[Tensor]) -> Tensor:
        """LPIPS (B,) of pictures whose `taps` are at hand; `others` stand still."""
        both = zip(taps, others, self.lins, strict=True)
        # the published weights are not negative
        parts = [_distance(a, b, lin.detach().sqrt().to(a.dtype)) for a, b, lin in both]
        return torch.stack(parts).sum(0)

    def maps(self, taps: list[Tensor], others: list[Tensor], size: tuple[int, int]) -> Tensor:
        """LPIPS before the mean over places, (B, H, W): each layer's map enlarged to the picture's.

        Enlarging is bilinear, as in the published package's `spatial`; a mean over some places of
        it is the distance there.

        Args:
            taps: Of B pictures.
            others: Of B pictures, or of one.
            size: (H, W).
        """
        total = torch.zeros(())
        for a, b, lin in zip(taps, others, self.lins, strict=True):
            layer = ((a - b) ** 2 * lin).sum(1, keepdim=True)
            total = total + F.interpolate(layer, size, mode="bilinear", align_corners=False)
        return total[:, 0]

    def embedding(self, taps: list[Tensor]) -> Tensor:
        """(B, M), squared distances between which are LPIPS: for all pairs of many pictures."""
        parts = []
        for tap, lin in zip(taps, self.lins, strict=True):
            parts.append((tap * (lin / tap[0, 0].numel()).sqrt()).flatten(1))
        return torch.cat(parts, dim=1)

    def pooled(self, image: Tensor) -> Tensor:
        """SqueezeNet's last features, means over places, (B, 512)."""
        found: Tensor = self.features(self._normalised(image))
        return found.mean((2, 3))


DOWNLOAD = "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"


def load(path: Path) -> Lpips:
    """The measure with the weights of a file, frozen.

    Raises:
        InputError: The file is missing or is not LPIPS-squeeze.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as exc:
        raise InputError(f"lpips weights must be a safetensors file, got {path}: {exc}") from exc
    return _filled(stored, str(path))


def download() -> Lpips:
    """The measure with torchvision's published SqueezeNet and the layers that torchmetrics ships.

    SqueezeNet is fetched once, its hash checked, and kept where torch keeps what it downloads.

    Raises:
        InputError: The network does not give it.
        ModuleNotFoundError: torchmetrics is not installed.
    """
    found = importlib.util.find_spec("torchmetrics")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'torchmetrics'", name="torchmetrics")
    lins = Path(found.origin).parent / "functional/image/lpips_models/squeeze.pth"
    try:
        stored = torch.hub.load_state_dict_from_url(
            DOWNLOAD, map_location="cpu", check_hash=True, weights_only=True
        )
        stored |= torch.load(lins, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as exc:  # no network (URLError), no such file, another hash
        raise InputError(
            f"the weights of LPIPS could not be fetched from {DOWNLOAD}: {exc}; fetch them "
            "elsewhere and pass --lpips-weights FILE"
        ) from exc
    return _filled(stored, DOWNLOAD)


def _filled(stored: dict[str, Tensor], source: str) -> Lpips:
    state = {k: v.float() for k, v in stored.items() if k.startswith("features.")}
    state |= {f"lins.{i}": stored[k] for i in range(7) if (k := f"lin{i}.model.1.weight") in stored}
    model = Lpips()
    expected = {k for k in model.state_dict() if k not in ("mean", "std")}
    if set(state) != expected:
        missing = sorted(expected ^ set(state))[:3]
        raise InputError(f"{source} is not LPIPS-squeeze: keys differ, for instance {missing}")
    if any((lin < 0).any() for name, lin in state.items() if name.startswith("lins.")):
        raise InputError(f"{source} is not LPIPS-squeeze: its linear layers have negative weights")
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as exc:
        raise InputError(f"{source} is not LPIPS-squeeze: {exc}") from exc
    return model.eval().requires_grad_(False)

"""LPIPS on SqueezeNet 1.1 (Zhang et al. 2018), as a measure and as a training loss.

The weights come from a file (torchvision's SqueezeNet under its own keys, LPIPS v0.1's linear
layers as `lin0..6.model.1.weight`); nothing is downloaded.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from picme_rt.errors import InputError

_FIRE = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
_FIRE |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}
_TAPS = (1, 4, 7, 9, 10, 11, 12)


class _Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], dim=1)


class Lpips(nn.Module):
    """Distance (B,) between pictures (B, 3, H, W) in [-1, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()]
        for index in range(2, 13):
            pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
            layers.append(_Fire(*_FIRE[index]) if index in _FIRE else pool)
        self.features = nn.Sequential(*layers)
        widths = (64, 128, 256, 384, 384, 512, 512)
        self.lins = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in widths)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("mean", mean.view(1, 3, 1, 1))
        self.register_buffer("std", std.view(1, 3, 1, 1))

    def taps(self, image: Tensor, layers: tuple[int, ...] = _TAPS) -> list[Tensor]:
        """Features after these layers, channels of unit length."""
        x = ((image + 1) / 2 - self.mean) / self.std
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in layers:
                found.append(F.normalize(x.float(), dim=1, eps=1e-10))
        return found

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        """LPIPS: weighted squared differences, mean over places, summed over layers."""
        # apart, so that nothing is sent back through the one that needs no gradient
        both = zip(self.taps(image), self.taps(other), self.lins, strict=True)
        parts = [((a - b) ** 2 * lin).sum(1).mean((1, 2)) for a, b, lin in both]
        return torch.stack(parts).sum(0)


def load(path: Path) -> Lpips:
    """The measure with the weights of a file, frozen.

    Raises:
        InputError: The file is missing or is not LPIPS-squeeze.
    """
    try:
        stored = load_file(path)
    except (FileNotFoundError, SafetensorError) as exc:
        raise InputError(f"lpips weights must be a safetensors file, got {path}: {exc}") from exc
    state = {k: v.float() for k, v in stored.items() if k.startswith("features.")}
    state |= {f"lins.{i}": stored[k] for i in range(7) if (k := f"lin{i}.model.1.weight") in stored}
    model = Lpips()
    expected = {k for k in model.state_dict() if k not in ("mean", "std")}
    if set(state) != expected:
        missing = sorted(expected ^ set(state))[:3]
        raise InputError(f"{path} is not LPIPS-squeeze: keys differ, for instance {missing}")
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as exc:
        raise InputError(f"{path} is not LPIPS-squeeze: {exc}") from exc
    return model.eval().requires_grad_(False)

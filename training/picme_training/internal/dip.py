"""The deep image prior, as it is and with the colour-consistency loss.

An encoder-decoder without skips learns to give the known pixels, and what it gives in the hole on
the way there is the completion (Ulyanov et al. 2018). At low resolution it is better with a loss
that pulls each colour in the hole to the nearest known one (Internal Diverse Completion).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picme_training.internal.pyramid import Level

ITERATIONS = 1000
RATE = 1e-3
COLOUR = 0.05  # weight of the colour-consistency loss
WIDTH, INPUTS = 128, 32
_DEPTHS = ((64, 5), (32, 4), (0, 3))  # least shorter side: halvings
_PAIRS = 1 << 24  # of a pixel in the hole and a known one that are compared at once


class EncoderDecoder(nn.Module):
    """(1, 32, h, w) to (1, 3, h, w) in [-1, 1]."""

    def __init__(self, depth: int):
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(*_block(INPUTS if i == 0 else WIDTH, stride=2), *_block(WIDTH))
            for i in range(depth)
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(WIDTH), *_block(WIDTH), *_block(WIDTH, side=1))
            for _ in range(depth)
        )
        self.last = nn.Conv2d(WIDTH, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The picture of a map of noise."""
        shapes = []
        for down in self.down:
            shapes.append(x.shape[2:])
            x = down(x)
        for up in self.up:
            x = up(F.interpolate(x, size=shapes.pop(), mode="bilinear"))
        return torch.tanh(self.last(x))


def _block(inputs: int, *, stride: int = 1, side: int = 3) -> list[nn.Module]:
    conv = nn.Conv2d(
        inputs, WIDTH, side, stride, padding=side // 2, padding_mode="replicate", bias=False
    )
    return [conv, nn.BatchNorm2d(WIDTH), nn.LeakyReLU(0.2, inplace=True)]


def colour_distance(made: Tensor, known: Tensor) -> Tensor:
    """The mean over `made` (n, 3) of the squared distance to the nearest of `known` (m, 3)."""
    with torch.no_grad():
        rows = max(1, _PAIRS // len(known))
        nearest = torch.cat(
            [torch.cdist(part, known).argmin(1) for part in torch.split(made, rows)]
        )
    return (made - known[nearest]).square().sum(1).mean()


def complete(
    level: Level,
    *,
    seed: int,
    original: bool = False,
    iterations: int | None = None,
    device: torch.device | str = "cpu",
    report: Callable[[int], None] | None = None,
) -> Tensor:
    """The picture with its hole filled, (3, h, w) float32 in [-1, 1]; known pixels as they are.

    Args:
        level: The picture; what is under its hole is not read.
        seed: Of weights and noise.
        original: The deep image prior as it was published: fixed noise, perturbed a little each
            iteration, and no colour-consistency loss. Else noise is drawn afresh each iteration.
        iterations: Steps of Adam; `ITERATIONS` by default.
        device: Where it runs.
        report: Called with the number of each iteration.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shorter = min(level.hole.shape)
        net = EncoderDecoder(next(d for least, d in _DEPTHS if shorter >= least)).to(device)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    real, hole = (torch.from_numpy(part).to(device) for part in level)
    colours = real[:, ~hole].T.contiguous()
    fixed = torch.rand(1, INPUTS, *level.hole.shape, generator=random) * 0.1
    with torch.enable_grad():
        for iteration in range(ITERATIONS if iterations is None else iterations):
            if original:
                noise = fixed + torch.randn(fixed.shape, generator=random) * 0.03
            else:
                noise = torch.rand(fixed.shape, generator=random) * 0.1
            made = net(noise.to(device))[0]
            loss = (made[:, ~hole] - real[:, ~hole]).square().mean()
            if not original:
                loss = loss + COLOUR * colour_distance(made[:, hole].T, colours)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if report is not None:
                report(iteration)
    return torch.where(hole, made.detach(), real).cpu()

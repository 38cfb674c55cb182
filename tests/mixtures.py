"""Untrained networks with a mixture, and what they say of two pictures."""

import torch

from picme_training.config import NetworkConfig
from picme_training.networks import Picme


def network(preset="cats", primitives=3):
    torch.manual_seed(3)
    return Picme(NetworkConfig(preset, 64, primitives)).eval()


def mixture(model):
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    hole = torch.zeros(2, 1, 64, 64)
    hole[..., 16:48, 16:48] = 1
    with torch.no_grad():
        return model.encode(image * (1 - hole), hole)[1]

"""The precisions that are compared: strict fp32, TF32 and bf16 autocast."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def names(device: torch.device) -> tuple[str, ...]:
    """The precisions of a device; TF32 is a GPU's."""
    return ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16")


@contextmanager
def arithmetic(name: str) -> Iterator[None]:
    """Whether float32 convolutions and products may use TF32: by torch's default some do."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def network(name: str, device: torch.device) -> Iterator[None]:
    """`arithmetic`, and autocast for bf16; the network itself keeps its attention in float32."""
    half = torch.autocast(
        device.type,
        torch.bfloat16,
        enabled=name == "bf16",
        cache_enabled=False,  # a cached cast would not be in the graph
    )
    with arithmetic(name), half:
        yield

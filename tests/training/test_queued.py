"""What a step asks a GPU for is queued: nothing of it waits until the work before it is done."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from picme_training import algorithm, compact, push_pull

META = torch.device("meta")  # a device that is not the CPU, everywhere


class Copies(TorchDispatchMode):
    """Notes of each copy to another device or type whether it is only queued."""

    def __init__(self):
        super().__init__()
        self.queued = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default:
            self.queued.append(kwargs["non_blocking"])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "call",
    [
        lambda: push_pull.filled(
            torch.zeros(2, 3, 64, 64, device=META), torch.zeros(2, 1, 64, 64, device=META)
        ),
        lambda: compact._shuffled(torch.zeros(1, 12, 8, 8, device=META), 2),
    ],
    ids=["push_pull", "shuffle"],
)
def test_constants_are_copied_without_waiting(call):
    with Copies() as copies:
        call()
    assert copies.queued == [True]


def test_shifts_are_drawn_on_the_host_as_a_cpu_draws_them_all():
    ours = torch.Generator().manual_seed(3)
    assert algorithm._on_host(ours) is ours
    theirs = SimpleNamespace(device=torch.device("cuda"), initial_seed=lambda: 5)
    made = algorithm._on_host(theirs)
    assert made.device.type == "cpu"
    assert made.initial_seed() == 5


def test_a_cpu_draws_the_numbers_that_it_always_drew():
    noise = algorithm.Noise.draw(2, 4, torch.Generator().manual_seed(3))
    again = torch.Generator().manual_seed(3)
    normal = torch.randn(4, 2, 4, generator=again)
    assert torch.equal(torch.stack(noise[:4]), normal)
    assert torch.equal(noise.choice, torch.rand(2, generator=again))
    assert torch.equal(noise.shift, torch.rand(2, 2, generator=again))

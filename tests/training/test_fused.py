"""Blocks as they are trained against what they say out of training, values and gradients."""

import pytest
import torch
from torch import nn

from picme_training import attention
from picme_training.blocks import Attention, ResidualDown, ResidualUp
from picme_training.discriminator import SelfAttention
from picme_training.instance_norm import LeakyNorm


def both(block, *maps):
    """(result, gradients) in training, then out of it; power iteration stands still."""
    torch.manual_seed(0)
    for module in block.modules():
        if hasattr(module, "n_power_iterations"):
            module.n_power_iterations = 0
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    found = []
    for training in (True, False):
        block.train(training)
        block.zero_grad()
        leaves = [one.clone().requires_grad_() for one in maps]
        result = block(*leaves)
        torch.manual_seed(1)
        result.backward(torch.randn(result.shape, dtype=result.dtype))
        gradients = [one.grad for one in (*leaves, *block.parameters())]
        found.append([result.detach(), *gradients])
    return found


def drawn(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(*shape, generator=generator).to(dtype, memory_format=torch.channels_last)


BLOCKS = {
    "down": lambda: (ResidualDown(6, 10), drawn(2, 6, 16, 16)),
    "first down": lambda: (ResidualDown(3, 10, first=True), drawn(2, 3, 16, 16)),
    "up": lambda: (ResidualUp(35, 8), drawn(2, 35, 8, 8)),
    "norm": lambda: (LeakyNorm(37, 0.1), 3 * drawn(2, 37, 8, 8) + 1),
    "attention of D": lambda: (SelfAttention(8), drawn(5, 8, 12, 12)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_in_training_is_the_block(name):
    torch.manual_seed(0)
    for found, expected in zip(*both(*BLOCKS[name]()), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def test_the_attention_of_g_in_training_is_the_attention():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = Attention(8, 4)
            self.hole = (drawn(3, 1, 24, 24) > 0).float()

        def forward(self, x, f_e):
            return self.attention(x, f_e, self.hole)

    for found, expected in zip(
        *both(Block(), drawn(3, 8, 12, 12), drawn(3, 4, 12, 12)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def test_attention_a_few_pictures_at_a_time_is_that_of_all_at_once(monkeypatch):
    query, values = drawn(5, 4, 6, 6).double(), drawn(5, 7, 6, 6).double()
    results = []
    for at_once in (2 * 36**2, 36**2 - 1, 2**18):  # two pictures, one, all
        monkeypatch.setattr(attention, "AT_ONCE", at_once)
        leaves = [one.clone().requires_grad_() for one in (query, values)]
        (found,) = attention.attended(*leaves)
        found.square().sum().backward()
        results.append([found.detach(), *(one.grad for one in leaves)])
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            torch.testing.assert_close(found, expected)


def test_gradients_of_attention_are_those_of_differences():
    query, values = (drawn(2, c, 3, 3).double().requires_grad_() for c in (2, 3))
    assert torch.autograd.gradcheck(attention.attended, (query, values))


def test_a_step_in_bf16_keeps_bf16_maps():
    block, x = ResidualUp(35, 8), drawn(2, 35, 8, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
        (found,) = attention.attended(y[:, :2], y)
    assert (y.dtype, found.dtype) == (torch.bfloat16,) * 2
    assert found.is_contiguous(memory_format=torch.channels_last)


def answer(norm, x):
    """A result, or what is wrong."""
    try:
        return norm(x)
    except (IndexError, ValueError) as exc:
        return repr(exc)


@pytest.mark.parametrize("shape", [(4, 3, 3), (2, 4, 1, 1), (2, 5, 3, 3), (0, 4, 3, 3)])
def test_maps_that_are_not_the_kernels_get_torchs_answer(shape):
    x, plain = torch.ones(shape).cumsum(-1), nn.InstanceNorm2d(4, affine=True)
    found, expected = answer(LeakyNorm(4, 0.1), x), answer(plain, x)
    if isinstance(expected, str):
        assert found == expected
    else:
        torch.testing.assert_close(found, nn.functional.leaky_relu(expected, 0.1))


def test_a_norm_does_not_ask_for_torchs_default_dtype():
    norm, x = LeakyNorm(4, 0.1), drawn(2, 4, 5, 5)
    expected = norm(x)
    torch.set_default_dtype(torch.float64)
    try:
        found = norm(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_a_second_derivative_of_a_norm_is_refused_in_words():
    norm, x = LeakyNorm(4, 0.1), drawn(2, 4, 5, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(norm(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()

"""Rows of a batch keep their memory layout, back as well as forth."""

import pytest
import torch

from picme_training.rows import parted, repeated

LAST = torch.channels_last


def maps(rows=4, layout=LAST):
    made = torch.randn(rows, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    return made.contiguous(memory_format=layout).requires_grad_()


def is_last(x):
    return x.is_contiguous(memory_format=LAST) and not x.is_contiguous()


@pytest.mark.parametrize("times", [1, 2, 3])
def test_repeated_rows_are_those_of_repeat(times):
    x = maps()
    found = repeated(x, times)
    assert torch.equal(found, x.repeat(times, 1, 1, 1))
    assert is_last(found)
    weight = torch.randn_like(found)
    (grad,) = torch.autograd.grad((found * weight).sum(), x)
    torch.testing.assert_close(grad, weight.view(times, *x.shape).sum(0))
    assert is_last(grad)


@pytest.mark.parametrize("used", ["first", "rest", "both"])
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format])
def test_parts_are_slices_and_their_gradients_one_map_of_the_same_layout(used, layout):
    x = maps(layout=layout)
    first, rest = parted(x, 1)
    assert torch.equal(first, x[:1])
    assert torch.equal(rest, x[1:])
    taken = {"first": [first], "rest": [rest], "both": [first, rest]}[used]
    want = [x[:1]] * (used != "rest") + [x[1:]] * (used != "first")
    (grad,) = torch.autograd.grad(sum((one**2).sum() for one in taken), x)
    (expected,) = torch.autograd.grad(sum((one**2).sum() for one in want), x)
    assert torch.equal(grad, expected)
    assert grad.is_contiguous(memory_format=layout)


def test_all_rows_are_the_batch_itself():
    x = maps()
    first, rest = parted(x, len(x))
    assert first is x
    assert len(rest) == 0


def test_parts_of_vectors_have_gradients_too():
    x = torch.arange(6.0).view(3, 2).requires_grad_()
    _, rest = parted(x, 2)
    rest.sum().backward()
    assert x.grad.tolist() == [[0, 0], [0, 0], [1, 1]]

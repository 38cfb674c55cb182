"""Pixels unshuffled a run at a time: torch's numbers, both ways, whatever moves them."""

import pytest
import torch
from torch.nn import functional as F

from picme_training.unshuffling import unshuffled

KINDS = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def picture(kind=torch.float32, layout=torch.contiguous_format, sides=(8, 24)):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *sides, generator=generator, dtype=torch.float64).to(kind)
    return x.contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("factor", "sides"), [(1, (8, 24)), (2, (8, 24)), (4, (8, 24)), (8, (8, 24)), (4, (4, 4))]
)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_is_torch_s_to_the_bit_both_ways(kind, factor, sides, layout):
    ours, theirs = picture(kind, layout, sides), picture(kind, layout, sides)
    got, want = unshuffled(ours, factor), F.pixel_unshuffle(theirs, factor)
    assert torch.equal(got, want)
    weight = torch.randn(want.shape, generator=torch.Generator().manual_seed(1)).to(kind)
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_channels_are_last(kind):
    assert unshuffled(picture(kind), 4).is_contiguous(memory_format=torch.channels_last)


def test_second_derivatives_go_through():
    x = picture(torch.float64, sides=(4, 4))
    assert torch.autograd.gradgradcheck(lambda one: unshuffled(one, 2) ** 3, (x,))


def test_in_mixed_precision_it_is_rounded_before():
    with torch.autocast("cpu", torch.bfloat16):
        got = unshuffled(picture(), 4)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, F.pixel_unshuffle(picture().bfloat16(), 4))


def test_float64_stays_float64_in_mixed_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert unshuffled(picture(torch.float64), 4).dtype == torch.float64


def test_a_slice_of_a_batch_is_read_in_place():
    whole = picture()
    assert torch.equal(unshuffled(whole[1:], 4), F.pixel_unshuffle(whole[1:], 4))


def test_a_side_that_is_no_multiple_is_refused():
    with pytest.raises(RuntimeError):
        unshuffled(picture(sides=(8, 6)), 4)

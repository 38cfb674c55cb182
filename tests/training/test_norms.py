"""The compiled norms against torch's operations."""

import numpy as np
import pytest
import torch

from picme_rt import _kernels
from picme_training import norms
from picme_training.norms import Deltas, Norm

LANES = _kernels.lanes()
BATCH, SHAPE = 2, (9, 11)


def case(channels, dtype):
    random = torch.Generator().manual_seed(channels)

    def drawn(*shape):
        return torch.randn(*shape, generator=random)

    def drawn_map():
        found = drawn(BATCH, channels, *SHAPE)
        return found.to(dtype, memory_format=torch.channels_last)

    share = torch.rand(BATCH, 1, SHAPE[0] * SHAPE[1], generator=random)
    share[:, :, 20:40] = 0  # places of a hole
    share /= share.sum(2, keepdim=True)
    norm = Norm(share, 1 + 0.3 * drawn(1, 1, channels), 0.3 * drawn(1, 1, channels))
    return norm, [drawn_map() for _ in range(3)]


def passes(channels, dtype, impl):
    """What all three passes give, in one list."""
    norm, (a, gradient, u) = case(channels, dtype)
    kept = norms.forward(a, 3 * a + 1, norm, impl=impl)
    first = norms.backward(kept, norm, gradient, impl=impl)
    through = norms.tangent(kept, norm, first, u, impl=impl)
    again = Deltas(torch.empty_like(a), gradient, *(torch.empty_like(kept.mean) for _ in range(2)))
    last = norms.backward(kept, norm, a, pull=through.pull, into=again, impl=impl)
    assert last is again
    return [kept.mean, kept.inverse, kept.y, first.before_norm, first.total, first.along,
            *through, last.before_norm, last.total, last.along]  # fmt: skip


@pytest.mark.parametrize("channels", [3, 32, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_passes_are_those_of_torchs_operations(channels, dtype):
    both = [passes(channels, dtype, impl) for impl in ("native", "ref")]
    error = 2e-6 if dtype == torch.float32 else 2.0**-7
    for found, expected in zip(*both, strict=True):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        largest = max(1.0, float(expected.abs().max()))
        assert float((found.float() - expected.float()).abs().max()) <= error * largest


@pytest.mark.parametrize("bits", [False, True])
def test_all_lanes_and_threads_give_the_same_bits(bits):
    norm, (a, gradient, u) = case(70, torch.bfloat16 if bits else torch.float32)
    arrays = norms._arrays(a, gradient, u)
    results = []
    for lanes, threads in [*((name, 1) for name in LANES), (LANES[0], 3)]:
        at, back, tangent = (one.copy(order="K") for one in arrays)
        kept = [np.empty((BATCH, 1, 70), np.float32) for _ in range(5)]
        y = np.empty_like(at)
        how = {"slope": norm.slope, "threads": threads, "lanes": lanes}
        of = norms._arrays(*norm[:3])
        _kernels.norm_forward(at, of, *kept[:2], y, **how)
        out = np.empty_like(at)
        _kernels.norm_back(at, of, *kept[:2], back, *kept[2:4], out, **how)
        _kernels.norm_tangent(at, of, *kept[:2], back, *kept[2:4], back, tangent, tangent,
                              kept[4], **how)  # fmt: skip
        results.append(b"".join(one.tobytes() for one in (*kept, y, out, back, tangent)))
    assert len(set(results)) == 1


def test_arrays_that_do_not_fit_are_refused():
    norm, (a, _, _) = case(5, torch.float32)
    at, of = a.numpy(), norms._arrays(*norm[:3])
    line, y = np.empty((BATCH, 1, 5), np.float32), np.empty_like(a.numpy())
    wrong = {
        "y must have the shape of a, channels last": (at, of, line, line.copy(), y.copy(order="C")),
        "mean must be contiguous and fit": (at, of, line[:1], line, y),
        "inverse has the wrong dtype": (at, of, line, line.astype(np.float64), y),
        "beta must be contiguous and fit": (at, (*of[:2], of[2][..., :3]), line, line, y),
        "a must be": (at[0], of, line, line, y),
    }
    for message, arguments in wrong.items():
        with pytest.raises(ValueError, match=message):
            _kernels.norm_forward(*arguments, slope=0.2, threads=1)
    with pytest.raises(ValueError, match="threads"):
        _kernels.norm_forward(at, of, line, line.copy(), y, slope=0.2, threads=0)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("nan", [0x7FFFFFFF, 0xFFFFFFFF])
def test_a_nan_stays_one_in_bfloat16(lanes, nan):
    norm, (a, _, _) = case(35, torch.bfloat16)
    beta = np.full((1, 1, 35), nan, np.uint32).view(np.float32)
    at, y = norms._arrays(a, torch.empty_like(a))
    kept = [np.empty((BATCH, 1, 35), np.float32) for _ in range(2)]
    of = (*norms._arrays(*norm[:2]), beta)
    _kernels.norm_forward(at, of, *kept, y, slope=norm.slope, threads=1, lanes=lanes)
    assert (y == 0x7FC0).all()


def test_a_dtype_of_another_object_is_the_same_dtype():
    norm, (a, _, _) = case(5, torch.float32)
    other = np.dtype("f4", metadata={"from": "elsewhere"})
    results = []
    for dtype in (np.dtype("f4"), other):
        at, *of = (one.astype(dtype, order="K") for one in norms._arrays(a, *norm[:3]))
        kept = [np.empty((BATCH, 1, 5), dtype) for _ in range(2)]
        y = np.empty_like(at)
        _kernels.norm_forward(at, tuple(of), *kept, y, slope=0.2, threads=1)
        results.append(y.tobytes())
    assert results[0] == results[1]

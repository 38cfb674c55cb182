"""Every instruction set that this processor has, and every number of threads: the same bits."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from picme_rt import _kernels
from picme_rt.kernels import normal, sample_gmm

KERNELS = Path(__file__).parents[1] / "kernels"
LAST_SEED = 2**64 - 1
LANES = _kernels.lanes()
SAMPLE = {"first": 0, "mode": "categorical", "primitive": None, "temperature": 1.0}


def mixture(batch, primitives, dim):
    """Return a random mixture with a dead primitive, wide and narrow sigmas, and its seeds."""
    rng = np.random.default_rng([batch, primitives, dim])
    log_alpha = np.log(rng.dirichlet(np.ones(primitives), batch)).astype(np.float32)
    if primitives > 1:
        log_alpha[:, -1] = -np.inf
    mu, log_sigma = rng.normal(size=(2, batch, primitives, dim)).astype(np.float32)
    log_sigma[..., ::7] *= 60  # beyond both ends of exp_poly, denormal sigmas among them
    return log_alpha, mu, log_sigma, rng.integers(0, LAST_SEED, batch, np.uint64, endpoint=True)


def drawn(arrays, lanes, **options):
    return [part.tobytes() for part in _kernels.sample_gmm(*arrays, lanes=lanes, **options)]


def test_the_fastest_lanes_come_first_and_the_scalar_ones_are_everywhere():
    assert [name for name in ("avx512", "avx2", "scalar") if name in LANES] == LANES
    assert LANES[-1] == "scalar"
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    assert ("avx2" in LANES) == ("avx2" in flags)
    assert ("avx512" in LANES) == ({"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= set(flags))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dim", [1, 3, 4, 15, 16, 17, 31, 63, 64, 65, 257, 511, 512, 513, 1031])
def test_all_lanes_give_the_bits_of_the_reference(dim, dtype, lanes):
    arrays = mixture(2, 5, dim)
    for options in (
        {"k": 3, "first": 2**32 - 3},
        {"k": 17, "mode": "per_primitive"},
        {"k": 2, "temperature": 0.3},
        {"k": 1, "mode": "mean"},
    ):
        done = drawn(arrays, lanes, dtype=dtype, **{**SAMPLE, **options})
        truth = sample_gmm(*arrays, dtype=dtype, impl="ref", **options)
        assert done[:2] == [truth.z.tobytes(), truth.primitive.tobytes()]
        log_prob = np.frombuffer(done[2], np.float32).reshape(truth.log_prob.shape)
        np.testing.assert_allclose(log_prob, truth.log_prob, rtol=1e-5)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(("batch", "k"), [(1, 1), (1, 7), (3, 17), (5, 2)])
def test_neither_threads_nor_lanes_change_a_bit_of_log_prob_either(batch, k, threads, lanes):
    arrays = mixture(batch, 4, 700)
    one = drawn(arrays, "scalar", threads=1, **{**SAMPLE, "k": k})
    assert drawn(arrays, lanes, threads=threads, **{**SAMPLE, "k": k}) == one


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [0, 1, 5, 64, 67, 2**14, 2**15 + 3])
def test_normals_have_the_same_bits_on_all_lanes_and_threads(size, threads, lanes):
    seeds = np.array([1, LAST_SEED], np.uint64)
    options = {"k": 3, "first": 9, "place": 2**32 - 1}
    done = _kernels.normal(seeds, size, threads=threads, lanes=lanes, **options)
    assert done.tobytes() == normal(seeds, (size,), impl="ref", **options).tobytes()


def test_large_work_is_spread_over_threads_without_being_told():
    seeds = np.arange(40, dtype=np.uint64)
    zeros = np.zeros((40, 1, 8192), np.float32)
    many = sample_gmm(zeros[..., 0], zeros, zeros, seeds, k=6)
    one = sample_gmm(zeros[..., 0], zeros, zeros, seeds, k=6, threads=1)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(many, one, strict=True))
    assert (normal(seeds, (8192,), k=6, place=0) == one.z).all()


@pytest.mark.parametrize("lanes", LANES)
def test_a_program_that_flushes_denormals_gets_the_same_bits(lanes):
    arrays = mixture(1, 3, 300)
    arrays[1][:], arrays[2][:] = 0, -95  # exp(-95) is denormal, and so is z
    expected = drawn(arrays, lanes, threads=2, **SAMPLE, k=4)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        found = drawn(arrays, lanes, threads=2, **SAMPLE, k=4)
        still = np.float32(1e-40) * np.ones(1, np.float32)
    finally:
        torch.set_flush_denormal(False)
    assert found == expected
    assert still == 0, "the caller's own setting is left as it was"


@pytest.mark.parametrize("lanes", LANES)
def test_a_number_that_is_not_finite_is_found_wherever_it_stands(lanes):
    for name in (1, 2):
        for dim in (1, 15, 16, 33, 257):
            for place in {0, dim // 2, dim - 1}:
                for value in (np.nan, np.inf, -np.inf):
                    arrays = mixture(1, 1, dim)
                    arrays[name][0, 0, place] = value
                    assert _kernels.sample_gmm(*arrays, lanes=lanes, k=1, **SAMPLE) is None
    largest = np.full((1, 1, 40), np.finfo(np.float32).max, np.float32)
    zero = np.zeros((1, 1), np.float32)
    seeds = np.zeros(1, np.uint64)
    assert _kernels.sample_gmm(zero, -largest, largest, seeds, lanes=lanes, k=1, **SAMPLE)


def test_lanes_that_this_processor_lacks_are_refused():
    with pytest.raises(ValueError, match="no lanes named mmx"):
        _kernels.sample_gmm(*mixture(1, 2, 3), lanes="mmx", k=1, **SAMPLE)


# Rounding of z


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_z_is_rounded_to_nearest_even(impl):
    bits = np.arange(0, 2**31, 9973, dtype=np.uint32)
    numbers = bits.view(np.float32)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (halves[:-1] + halves[1:]) / 2
    largest = np.array([65519.996, 65520, 65536, 3.3895314e38, 3.4e38], np.float32)
    mu = np.concatenate([numbers[np.isfinite(numbers)], ties, largest])
    mu = np.concatenate([mu, -mu])[None, None]
    arrays = np.zeros((1, 1), np.float32), mu, np.zeros_like(mu), np.zeros(1, np.uint64)
    options = {"k": 1, "mode": "mean", "log_prob": False, "impl": impl}
    half, brain = (sample_gmm(*arrays, dtype=t, **options).z for t in ("float16", "bfloat16"))
    exact = torch.from_numpy(mu)
    assert half.dtype == np.float16
    assert half.tobytes() == exact.to(torch.float16).numpy().tobytes()
    assert brain.dtype == np.uint16
    assert (torch.from_numpy(brain).view(torch.bfloat16) == exact.to(torch.bfloat16)).all()


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_log_prob_is_that_of_z_before_rounding_and_only_made_when_asked_for(impl):
    arrays = mixture(2, 3, 20)
    whole = sample_gmm(*arrays, k=4, impl=impl)
    for dtype in ("float16", "bfloat16"):
        rounded = sample_gmm(*arrays, k=4, dtype=dtype, impl=impl)
        assert (rounded.log_prob == whole.log_prob).all()
    without = sample_gmm(*arrays, k=4, log_prob=False, impl=impl)
    assert without.log_prob is None
    assert without.z.tobytes() == whole.z.tobytes()


# The build


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a compiler")
@pytest.mark.parametrize("name", ["avx2", "avx512"])
@pytest.mark.parametrize("loops", ["lanes", "masked_norm"])
def test_no_code_for_wider_registers_can_be_linked_in_for_other_processors(loops, name, tmp_path):
    """Unoptimised, a compiler puts every function that a file calls into the object file."""
    if name not in LANES:
        pytest.skip("not compiled for this processor")
    flags = {"avx2": ["-mavx2"], "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"]}
    made, source = tmp_path / "loops.o", KERNELS / f"{loops}_{name}.cpp"
    command = ["c++", "-std=c++17", "-O0", "-DPICME_X86", *flags[name], "-c", source, "-o", made]
    subprocess.run(command, check=True)
    listed = subprocess.run(
        ["nm", "--defined-only", "--extern-only", "--format=posix", "-C", made],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    only = {"lanes": f"k{name.capitalize()}Kernels", "masked_norm": f"k_norm_{name}"}[loops]
    assert len(listed) == 1
    assert listed[0].startswith(f"picme::{only}")


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a compiler")
def test_where_memory_ends_as_threads_are_made_fewer_do_the_work(tmp_path):
    program = tmp_path / "threads"
    source = Path(__file__).with_name("no_memory_for_threads.cpp")
    command = ["c++", "-std=c++17", "-pthread", f"-I{KERNELS}", source, "-o", program]
    subprocess.run(command, check=True)
    subprocess.run([program], check=True)

"""What the sampler's CUDA kernel computes, without a GPU: its threads emulated on the host.

training/gpu/launches.py holds the cases; `make gpu-check` runs the same ones on a GPU.
"""

import re
from pathlib import Path

import numpy as np
import pytest

TRAINING = Path(__file__).parents[1] / "training"
COMPILER = ["c++", "-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
ORDERS = {"forwards": (), "backwards": ("-DPICME_EMULATED_BACKWARDS",)}

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(TRAINING)
    from gpu import launches
GOLDEN, CASES = launches.golden(), {case.name: case for case in launches.cases()}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The program, with the warps of a block in either order."""
    folder = tmp_path_factory.mktemp("emulated")
    for order, flags in ORDERS.items():
        done = launches.build(COMPILER, folder / order, *flags)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", GOLDEN)
def test_the_kernel_gives_the_golden_hashes(programs, name, order):
    case, golden = GOLDEN[name]
    assert launches.hash_of(launches.launch([str(programs / order)], case).z) == golden


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_equals_the_reference(programs, name, order):
    done = launches.compare([str(programs / order)], CASES[name])
    assert done["pass"], done


def test_log_prob_has_the_same_bits_in_every_batch(programs):
    program = [str(programs / "forwards")]
    case = CASES["P 33, D 131"]
    whole = launches.launch(program, case)
    second = case._replace(arrays=tuple(array[1:2] for array in case.arrays))
    assert (launches.launch(program, second).log_prob == whole.log_prob[1:2]).all()


def test_no_images_are_no_launch(programs):
    case = CASES["mean"]
    none = case._replace(arrays=tuple(array[:0] for array in case.arrays))
    assert launches.launch([str(programs / "forwards")], none).z.shape == (0, 2, 7)


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"first": 2**32}, {"primitive": 5}, {"primitive": -2}]
)
def test_the_launcher_refuses_what_its_kernel_cannot_index(programs, options):
    case = CASES["mean"]
    wrong = case._replace(options={**case.options, **options})
    with pytest.raises(launches.subprocess.CalledProcessError) as raised:
        launches.launch([str(programs / "forwards")], wrong)
    assert "out of range" in raised.value.stderr


@pytest.mark.parametrize(("dtype", "kind"), [("float16", np.float16), ("bfloat16", None)])
def test_a_nan_that_no_check_has_seen_stays_one_when_it_is_rounded(programs, dtype, kind):
    case = CASES["mean"]
    mu = case.arrays[1].copy()
    mu[:, :, 2] = np.nan
    mu[:, :, 3].view(np.uint32)[:] = 0x7FFFFFFF  # as a GPU writes it
    case = case._replace(
        arrays=(case.arrays[0], mu, *case.arrays[2:]),
        options={**case.options, "dtype": dtype},
        density=False,
    )
    z = launches.launch([str(programs / "forwards")], case).z
    if kind is None:
        z = (z.astype(np.uint32) << np.uint32(16)).view(np.float32)
    assert (np.isnan(z) == np.isin(np.arange(7), (2, 3))).all()


@pytest.mark.parametrize("barrier", range(2))
def test_a_barrier_that_is_missing_is_found_out(barrier, tmp_path, monkeypatch):
    main, kernel = launches.SOURCES
    text = kernel.read_text(encoding="utf-8")
    places = [found.start() for found in re.finditer(r"__syncthreads\(\)", text)]
    assert len(places) == 2
    changed = tmp_path / "changed_cuda.cu"
    changed.write_text(text[: places[barrier]] + "//" + text[places[barrier] :])
    monkeypatch.setattr(launches, "SOURCES", (main, changed))
    assert launches.build(COMPILER, tmp_path / "program").returncode == 0
    program = [str(tmp_path / "program")]
    assert not launches.compare(program, CASES["P 70, D 131"])["pass"]

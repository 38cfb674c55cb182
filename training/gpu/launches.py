"""The sampler's kernel, launched by a program of its own: its bits against the NumPy reference.

On a GPU, nvcc builds the program; on a CPU, a host compiler does, with kernels/emulated in place of
CUDA. So what the kernel computes is checked on every machine, and a GPU adds that it is so there.
"""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from picme_rt.kernels import GmmSample, sample_gmm
from picme_rt.sampling_ref import Latents

Result = dict[str, Any]
Arrays = tuple[npt.NDArray[Any], ...]
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KERNELS = ROOT / "kernels"
SOURCES = (HERE / "launch.cu", KERNELS / "sample_gmm_cuda.cu")
MODES = ("categorical", "per_primitive", "mean")  # numbered as in kernels/sample_gmm.h
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}  # likewise
TOLERANCE = 1e-5
"""Of log_prob, relative, and absolute near 0: where its terms cancel, they leave an error."""
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")


class Case(NamedTuple):
    """One launch: log_alpha, mu, log_sigma and seeds, and `sample_gmm`'s options."""

    name: str
    arrays: Arrays
    options: Result
    density: bool = True


def build(compiler: list[str], program: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Compiles the program by nvcc, or by a host compiler with CUDA emulated."""
    return compiled(compiler, program, SOURCES, *more)


def compiled(
    compiler: list[str], program: Path, sources: Sequence[Path], *more: str
) -> subprocess.CompletedProcess[str]:
    """As `build`, of any sources; `more` stands in front of our own folders of headers."""
    emulated = [] if "nvcc" in Path(compiler[0]).name else ["-x", "c++", "-I", KERNELS / "emulated"]
    command = [*compiler, *more, "-I", KERNELS, "-I", HERE, "-o", program, *emulated, *sources]
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, check=False
    )


def launch(program: list[str], case: Case) -> GmmSample:
    """What the kernel drew; log_prob is NaN where the case asks for no density.

    Raises:
        subprocess.CalledProcessError: The program failed; `stderr` says why.
    """
    (batch, primitives, dim), k = case.arrays[1].shape, case.options["k"]
    options, dtype = case.options, case.options.get("dtype", "float32")
    read, written = (Path(program[-1]).with_suffix(end) for end in (".in", ".out"))
    read.write_bytes(b"".join(np.ascontiguousarray(part).tobytes() for part in case.arrays))
    fixed = options.get("primitive")
    numbers = (
        *(batch, primitives, dim, k, options.get("first", 0)),
        *(MODES.index(options.get("mode", MODES[0])), -1 if fixed is None else fixed),
        *(repr(float(options.get("temperature", 1.0))), int(case.density)),
        [*DTYPES].index(dtype),
    )
    subprocess.run(
        [*program, str(read), str(written), *map(str, numbers)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found, rows = written.read_bytes(), batch * k
    z = np.frombuffer(found, DTYPES[dtype], rows * dim).reshape(batch, k, dim)
    primitive = np.frombuffer(found, np.int32, rows, z.nbytes).reshape(batch, k)
    density = np.full(rows, np.nan, np.float32)
    if case.density:
        density = np.frombuffer(found, np.float32, rows, z.nbytes + primitive.nbytes)
    return GmmSample(z, primitive, density.reshape(batch, k))


def compare(program: list[str], case: Case) -> Result:
    """One check: z and primitive to the bit, log_prob to `TOLERANCE`."""
    try:
        found = launch(program, case)
    except subprocess.CalledProcessError as exc:
        return {"name": case.name, "pass": False, "said": exc.stderr[-500:]}
    return judged(case, found)


def judged(case: Case, found: GmmSample) -> Result:
    """What was drawn for a case, against the NumPy reference."""
    truth = sample_gmm(*case.arrays, impl="ref", **case.options)
    bits = np.uint32 if truth.z.itemsize == 4 else np.uint16
    differ = int((found.z.view(bits) != truth.z.view(bits)).sum())
    differ += int((found.primitive != truth.primitive).sum())
    assert found.log_prob is not None  # NaN where the launch has none
    assert truth.log_prob is not None
    near = not case.density or np.allclose(
        found.log_prob, truth.log_prob, rtol=TOLERANCE, atol=TOLERANCE
    )
    checked = {"name": case.name, "pass": differ == 0 and near, "of": truth.z.size}
    error = _error(found.log_prob, truth.log_prob)
    return {**checked, "differ": differ, "log_prob_error": error}


def _error(found: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> float | None:
    """The largest error of log_prob, relative to max(1, |log_prob|)."""
    finite = np.isfinite(truth) & np.isfinite(found)
    if not finite.any():
        return None
    error = np.abs(found[finite] - truth[finite].astype(np.float64))
    return float((error / np.maximum(1, np.abs(truth[finite]))).max())


def sanitized(program: Path, case: Case) -> list[Result]:
    """The launch under each tool of compute-sanitizer; nothing where that is missing."""
    found = sanitizer()
    checks = []
    for tool in SANITIZERS if found else ():
        options = ["--tool", tool, "--error-exitcode", "9"]
        checked = compare([str(found), *options, str(program)], case)
        checks.append({**checked, "name": f"compute-sanitizer {tool}"})
    return checks


def sanitizer() -> str | None:
    """Where compute-sanitizer is."""
    name = "compute-sanitizer"
    return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")


def cases() -> list[Case]:
    """Odd and even shapes, every mode, and the ends of every range."""
    some = mixture(2, 5, 7)
    return [
        *(
            Case(f"P {p}, D {d}", mixture(3, p, d), {"k": 3, "first": 2})
            for p in (1, 2, 32, 33, 70)
            for d in (1, 4, 131)
        ),
        Case("one thread a quad, four warps", mixture(1, 4, 511), {"k": 2}),
        Case("no density", some, {"k": 4}, density=False),
        Case("no density, five blocks a row", mixture(1, 2, 8195), {"k": 1}, density=False),
        Case("channels beyond a block", mixture(1, 1, 2057), {"k": 1}),
        Case("terms of 11,000 that cancel", cancelling(8192), {"k": 3}),
        Case("the last indices", some, {"k": 5, "first": 2**32 - 5}),
        Case("per_primitive", some, {"k": 7, "first": 3, "mode": "per_primitive"}),
        Case("mean", some, {"k": 2, "mode": "mean"}),
        Case("a fixed primitive", some, {"k": 3, "primitive": 4, "temperature": 0.7}),
        *(
            Case(f"{dtype}, {name}", arrays, {"k": 3, "dtype": dtype, **options})
            for dtype in ("float16", "bfloat16")
            for name, arrays, options in (
                ("P 33, D 131", mixture(2, 33, 131), {}),
                ("channels beyond a block", mixture(1, 1, 2057), {}),
                ("terms of 11,000 that cancel", cancelling(8192), {}),
                ("mean", some, {"mode": "mean"}),
                ("small and large", ranging(), {}),
            )
        ),
        Case("bfloat16, no density", some, {"k": 4, "dtype": "bfloat16"}, density=False),
        Case("temperature 0", some, {"k": 3, "temperature": 0.0}),
        *(
            Case(
                f"the ends of the ranges, temperature {t:g}", extreme(), {"k": 9, "temperature": t}
            )
            for t in (0.0, 1.0, 3e38)
        ),
    ]


def mixture(batch: int, primitives: int, dim: int) -> Arrays:
    """A random mixture and its seeds."""
    rng = np.random.default_rng([batch, primitives, dim])
    log_alpha = np.log(rng.dirichlet(np.ones(primitives), batch)).astype(np.float32)
    mu, log_sigma = rng.normal(size=(2, batch, primitives, dim)).astype(np.float32)
    seeds = rng.integers(0, 2**64 - 1, batch, np.uint64, endpoint=True)
    return log_alpha, mu, log_sigma, seeds


def extreme() -> Arrays:
    """A mixture with a dead primitive, means of 1e30 and deviations beyond what exp can give."""
    log_alpha, mu, log_sigma, seeds = mixture(4, 6, 33)
    log_alpha = log_alpha * np.float32(30)
    log_alpha[:, 2] = -np.inf
    mu[:2] *= np.float32(1e30)
    return log_alpha, mu, np.clip(log_sigma * 60, -200, 200).astype(np.float32), seeds


def ranging() -> Arrays:
    """Numbers from denormals of float16 to beyond it, ties among them at temperature 0."""
    log_alpha, mu, log_sigma, seeds = mixture(2, 3, 515)
    mu *= np.float32(2.0) ** np.arange(-28, 18).repeat(12)[:515].astype(np.float32)
    return log_alpha, mu, log_sigma - np.float32(9), seeds


def cancelling(dim: int) -> Arrays:
    """A mixture whose log density is near 0, the sum of terms that grow with D."""
    zeros = np.zeros((1, 1, dim), np.float32)
    log_sigma = zeros - np.float32(0.5 * np.log(2 * np.pi) + 0.5)
    return zeros[..., 0], zeros, log_sigma, np.array([3], np.uint64)


def golden() -> dict[str, tuple[Case, str]]:
    """The golden case of docs/sampling.md: each launch with the hash that the page states."""
    page = (ROOT / "docs" / "sampling.md").read_text(encoding="utf-8")
    hashes = dict(re.findall(r"^\| ([\w=., ]+) \| `([0-9a-f]{64})` \|", page, re.MULTILINE))
    b, p, d = np.ogrid[:2, :3, :257]
    log_alpha = np.broadcast_to(-(p[..., 0] + 1) / 4, (2, 3)).astype(np.float32)
    mu = (((7 * b + 3 * p + d) % 16) / 8 - 1).astype(np.float32)
    log_sigma = (-((5 * b + p + 3 * d) % 8) / 4).astype(np.float32)
    arrays = (log_alpha, mu, log_sigma, np.array([0, 2**64 - 1], np.uint64))
    options: dict[str, Result] = {
        "categorical": {},
        "per_primitive": {"mode": "per_primitive"},
        "mean": {"mode": "mean"},
        "primitive=1, temperature=0.5": {"primitive": 1, "temperature": 0.5},
        "categorical, float16": {"dtype": "float16"},
        "categorical, bfloat16": {"dtype": "bfloat16"},
    }
    return {
        name: (Case(name, arrays, {"k": 8, "first": 5, **chosen}), hashes[name])
        for name, chosen in options.items()
    }


def hash_of(z: Latents) -> str:
    """As docs/sampling.md takes it: sha256 of the little-endian numbers."""
    return hashlib.sha256(z.astype(z.dtype.newbyteorder("<")).tobytes()).hexdigest()

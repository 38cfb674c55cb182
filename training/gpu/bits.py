"""The sampler's bits on this machine: docs/sampling.md's hashes, and its functions on the device.

The device's part is a program of this file around kernels/sample_gmm_math.h. Its counterpart is
picme_rt/sampling_ref.py, compared bit for bit.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gpu import launches, timing
from picme_rt import sampling_ref
from picme_rt.kernels import sample_gmm

Result = dict[str, Any]
ROOT = Path(__file__).parents[2]
SEEDS = (0, 2**64 - 1)
QUADS = 64  # counters an index: channels 0 to 255
FIELDS = ("words", "uniform", "log", "exp", "sine", "cosine", "normals")
"""What the program writes for each counter, four 32-bit words each."""
PROGRAM = r"""
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "sample_gmm_math.h"

struct Row {
    uint32_t words[4];
    float uniform[4], log[4], exp[4], sine[4], cosine[4], normals[4];
};

PICME_HD void fill(uint32_t place, uint64_t seed, Row* row) {
    const picme::Words4 counter = {{picme::kPlace, 1 + place % QUADS, place / QUADS, 0}};
    const picme::Words4 words = picme::philox4x32_10(counter, seed);
    const picme::Floats4 eps = picme::normals(words);
    for (int i = 0; i < 4; ++i) {
        const float u = picme::uniform(words.x[i]);
        row->words[i] = words.x[i];
        row->uniform[i] = u;
        row->log[i] = picme::log_poly(u);
        row->exp[i] = picme::exp_poly(u * 192.0f - 104.0f);
        picme::sincos_poly(u, &row->sine[i], &row->cosine[i]);
        row->normals[i] = eps.x[i];
    }
}

#ifdef __CUDACC__
__global__ void fill_all(Row* rows, uint32_t count, uint64_t seed) {
    const uint32_t place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place < count) fill(place, seed, rows + place);
}

void check(cudaError_t code) {
    if (code == cudaSuccess) return;
    std::fprintf(stderr, "%s\n", cudaGetErrorString(code));
    std::exit(1);
}
#endif

int main(int, char** arguments) {
    const uint32_t count = std::strtoul(arguments[1], nullptr, 10);
    const uint64_t seed = std::strtoull(arguments[2], nullptr, 10);
    std::vector<Row> rows(count);
#ifdef __CUDACC__
    const size_t bytes = count * sizeof(Row);
    Row* device;
    check(cudaMalloc(&device, bytes));
    check(cudaMemset(device, 0xff, bytes));
    fill_all<<<(count + 255) / 256, 256>>>(device, count, seed);
    check(cudaGetLastError());
    check(cudaMemcpy(rows.data(), device, bytes, cudaMemcpyDeviceToHost));
#else
    for (uint32_t place = 0; place < count; ++place) fill(place, seed, &rows[place]);
#endif
    std::FILE* file = std::fopen(arguments[3], "wb");
    const bool good = file && std::fwrite(rows.data(), sizeof(Row), count, file) == count;
    return good && std::fclose(file) == 0 ? 0 : 1;
}
"""


def measure(device: torch.device, tiny: bool) -> Result:
    """The golden hashes in NumPy, then a few hundred thousand counters on the device."""
    checks = golden()
    command = compiler(device)
    if command is None:
        lacking = "nvcc" if device.type == "cuda" else "c++"
        return {"device_program": f"skipped: no {lacking} on PATH", "checks": checks}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "draw"
        source = program.with_suffix(".cu" if device.type == "cuda" else ".cpp")
        source.write_text(PROGRAM)
        options = [f"-DQUADS={QUADS}", "-I", str(ROOT / "kernels"), "-o", str(program), str(source)]
        done = _command([*command, *options])
        checks.append({"name": f"{Path(command[0]).name} compiles the program", **done})
        if done["pass"]:
            for seed in SEEDS:
                checks += draws(program, 2**12 if tiny else 2**18, seed)
    return {"device_program": " ".join(command), "checks": checks}


def golden() -> list[Result]:
    """The golden case of docs/sampling.md, by the NumPy reference."""
    checks = []
    for name, (case, stated) in launches.golden().items():
        z = sample_gmm(*case.arrays, impl="ref", **case.options).z
        checks.append({"name": f"golden hash, {name}", "pass": launches.hash_of(z) == stated})
    return checks


def draws(program: Path, count: int, seed: int) -> list[Result]:
    """Each function's numbers for `count` counters of `seed`, against NumPy's."""
    written = program.with_suffix(".bin")
    ran = _command([str(program), str(count), str(seed), str(written)])
    if not ran["pass"]:
        return [{"name": f"the program runs, seed {seed}", **ran}]
    # (count, function, 4) words of 32 bits
    found = np.fromfile(written, np.uint32).reshape(count, len(FIELDS), 4)
    checks = []
    for column, (name, truth) in enumerate(_truth(count, seed).items()):
        differ = int((found[:, column] != truth.view(np.uint32)).sum())
        checks.append(
            {
                "name": f"{name}, seed {seed}",
                "pass": differ == 0,
                "of": truth.size,
                "differ": differ,
            }
        )
    return checks


def _truth(count: int, seed: int) -> dict[str, npt.NDArray[Any]]:
    place = np.arange(count, dtype=np.uint64)
    zero, quads = np.zeros(1, np.uint64), np.uint64(QUADS)
    counter = (zero + np.uint64(sampling_ref.PLACE), np.uint64(1) + place % quads)
    key = (np.array([seed % 2**32], np.uint64), np.array([seed >> 32], np.uint64))
    words = sampling_ref.philox4x32_10((*counter, place // quads, zero), key)
    u = sampling_ref.uniform(words)
    sine, cosine = sampling_ref.sincos_poly(u)
    truth = {
        "words": words,
        "uniform": u,
        "log": sampling_ref.log_poly(u),
        "exp": sampling_ref.exp_poly(u * np.float32(192.0) - np.float32(104.0)),
        "sine": sine,
        "cosine": cosine,
        "normals": sampling_ref.normals(words),
    }
    assert tuple(truth) == FIELDS
    return truth


def compiler(device: torch.device) -> list[str] | None:
    """The compiler of the device's programs, without contraction; None where there is none."""
    if device.type != "cuda":
        host = shutil.which("c++")
        return [host, "-std=c++17", "-O2", "-ffp-contract=off"] if host else None
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=str(toolkit))
    if nvcc is None:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return [nvcc, "-std=c++17", "-O3", "-fmad=false", f"-arch=sm_{major}{minor}"]


def _command(command: list[str]) -> Result:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 0:
        return {"pass": True}
    return {"pass": False, "said": (done.stderr or f"exit code {done.returncode}")[-500:]}


def table(result: Result) -> str:
    """One row a comparison, then what compiled the program."""
    rows = [
        (
            check["name"],
            "pass" if check["pass"] else "FAIL",
            check.get("of"),
            check.get("differ"),
        )
        for check in result["checks"]
    ]
    drawn = timing.markdown(("comparison", "outcome", "numbers", "that differ"), rows)
    return f"{drawn}\n\nDevice's program: `{result['device_program']}`"

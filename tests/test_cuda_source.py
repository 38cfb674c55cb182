"""What the CUDA sources compile to, on machines without a GPU.

By nvcc where it is, and everywhere by NVRTC, which the extra `nvrtc` (and with it `dev`) installs.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("CUDA is built on Linux alone", allow_module_level=True)

from cuda.bindings import nvrtc

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "kernels"
SPECIFICATION = (ROOT / "docs" / "sampling.md").read_text(encoding="utf-8")
RECIPE = (KERNELS / "cuda.cmake").read_text(encoding="utf-8")
SOURCES = re.search(r"set\(PICME_CUDA_SOURCES ([^)]*)\)", RECIPE)[1].split()
FLAGS = re.search(r"set\(PICME_CUDA_FLAGS ([^)]*)\)", RECIPE)[1].split()
ARCHITECTURES = (75, 90, 120)
NVCC = shutil.which("nvcc")
EXACT = re.compile(
    r"(add|sub|mul)\.rn\.f(32|64)|(sqrt|rcp)\.rn\.f32|(neg|abs|mov|min|max)\.f(32|64)"
    r"|(ld|st)\.\w+(\.v[24])?\.f(32|64)|(setp|selp)(\.\w+)?\.f(32|64)"
    r"|cvt\.rn\.f32\.[us](16|32)|cvt\.rmi\.f32\.f32|cvt\.rzi\.s32\.f32"  # floor, then to an integer
    r"|cvt\.f64\.f32|cvt\.rn\.f32\.f64|cvt\.rn\.f64\.[us](32|64)"
)
"""Instructions on floats that IEEE rounds once or not at all. Without .rn, ptxas may fuse them."""
HOST_HEADERS = {  # NVRTC has none of the host's
    "cfloat": "#define FLT_EVAL_METHOD 0",
    "cmath": "",
    "cstdint": "typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t;"
    "typedef unsigned short uint16_t; typedef int int32_t; typedef unsigned uint32_t;"
    "typedef long long int64_t; typedef unsigned long long uint64_t;",
    "cstring": "namespace std { using ::memcpy; }",
}


def by_nvcc(source, architecture, flags, folder):
    written = folder / "kernel.ptx"
    command = [NVCC, "-ptx", "-std=c++17", f"-arch=compute_{architecture}", *flags]
    done = subprocess.run(
        [*command, "-o", written, KERNELS / source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return written.read_text()


def by_nvrtc(source, architecture, flags, _folder):
    def asked(answer):
        assert answer[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS, nvrtc.nvrtcGetErrorString(answer[0])[1]
        return answer[1] if len(answer) > 1 else None

    text = (KERNELS / source).read_bytes()
    names, bodies = (
        [part.encode() for part in parts] for parts in zip(*HOST_HEADERS.items(), strict=True)
    )
    program = asked(nvrtc.nvrtcCreateProgram(text, source.encode(), len(names), bodies, names))
    options = [
        *("-default-device", "-std=c++17", f"-arch=compute_{architecture}", f"-I{KERNELS}"),
        *(flag for flag in flags if not flag.startswith("-Xcompiler")),
    ]
    encoded = [option.encode() for option in options]
    (compiled,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
    log = room(asked(nvrtc.nvrtcGetProgramLogSize(program)))
    asked(nvrtc.nvrtcGetProgramLog(program, log))
    assert compiled == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    ptx = room(asked(nvrtc.nvrtcGetPTXSize(program)))
    asked(nvrtc.nvrtcGetPTX(program, ptx))
    return ptx.rstrip(b"\0").decode()


def room(size):
    """Bytes that NVRTC writes into; never a single one, which Python shares with all its users."""
    return bytes(size + 1)


COMPILERS = [
    pytest.param(
        by_nvcc,
        marks=pytest.mark.skipif(NVCC is None, reason="no nvcc; NVRTC checks the same sources"),
    ),
    by_nvrtc,
]


def inexact(ptx):
    """The instructions on floats that are not plainly IEEE's, and how many there are in all."""
    used = re.findall(r"^\s+(?:@!?%p\d+ )?([a-z]\w*(?:\.\w+)*)", ptx, re.MULTILINE)
    floats = [name for name in used if re.search(r"\.(f16|bf16|f32|f64)", name)]
    return {name for name in floats if not EXACT.fullmatch(name)}, len(floats)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_instruction_approximates_or_fuses(compiler, source, architecture, tmp_path):
    found, count = inexact(compiler(source, architecture, FLAGS, tmp_path))
    assert not found
    assert count > 100


@pytest.mark.parametrize(
    ("flags", "instruction"),
    [
        ([], r"fma\.rn\.f32|mul\.f32"),
        (["-fmad=false", "-ftz=true"], r"mul\.rn\.ftz\.f32"),
        (["-fmad=false", "-prec-sqrt=false"], r"sqrt\.approx\.f32"),
        (["-fmad=false", "-prec-div=false"], r"rcp\.approx\.f32"),
    ],
)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_flags_that_approximate_or_fuse_are_found_out(compiler, flags, instruction, tmp_path):
    source = "composite_cuda.cu" if "rcp" in instruction else "sample_gmm_cuda.cu"
    found, _ = inexact(compiler(source, 90, flags, tmp_path))
    assert any(re.fullmatch(instruction, name) for name in found)


HOST = ["-std=c++17", "-O2", "-I", KERNELS]
HOST_COMPILERS = [
    pytest.param(["c++", *HOST, "-ffp-contract=off"], id="c++"),
    pytest.param(
        [NVCC, "-x", "cu", *HOST, *FLAGS],
        id="nvcc's host pass",
        marks=pytest.mark.skipif(NVCC is None, reason="no nvcc; c++ checks the same header"),
    ),
]


@pytest.mark.parametrize("command", HOST_COMPILERS)
def test_the_shared_header_gives_the_golden_hash(command, tmp_path):
    program = tmp_path / "golden"
    source = Path(__file__).with_name("golden_host.cpp")
    subprocess.run([*command, "-o", program, source], check=True, capture_output=True)
    z = subprocess.run([program], check=True, capture_output=True).stdout
    assert f"| categorical | `{hashlib.sha256(z).hexdigest()}`" in SPECIFICATION

"""What kernels/cuda.cmake decides: no nvcc, one that fails, one that is odd, and none wanted."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[1] / "kernels" / "cuda.cmake"
NVCC = shutil.which("nvcc")
PROJECT = """
cmake_minimum_required(VERSION 3.18...3.31)
project(decides LANGUAGES {language})
include({recipe})
message(STATUS "built for ${{PICME_BUILT_FOR}}")
"""

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None, reason="no cmake in PATH; pip builds with one of its own"
)


@pytest.fixture
def tools(tmp_path):
    """A folder with what a build needs, but no nvcc."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for tool in Path(place).glob("*") if place else ():
            if not tool.name.startswith(("nvcc", "clang")):
                (folder / tool.name).unlink(missing_ok=True)
                (folder / tool.name).symlink_to(tool)
    return folder


def put(folder, script):
    (folder / "nvcc").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvcc").chmod(0o755)


def configure(tools, chosen, language="NONE", **more):
    source = tools.parent / "project"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(PROJECT.format(language=language, recipe=RECIPE))
    unwanted = ("CUDA", "NVCC", "CMAKE")
    environment = {n: v for n, v in os.environ.items() if not n.startswith(unwanted)}
    done = subprocess.run(
        [
            *("cmake", "-G", "Unix Makefiles", "-S", source, "-B", source / "build"),
            f"-DPICME_CUDA={chosen}",
            *(f"-D{name}={value}" for name, value in more.items()),
        ],
        env={**environment, "PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("nvcc", "why"), [(None, "nvcc not found"), ("exit 1", "nvcc found, but it fails: ")]
)
def test_without_an_nvcc_that_works_auto_builds_for_the_cpu_and_on_fails(tools, nvcc, why):
    if nvcc:
        put(tools, nvcc)
    good, said = configure(tools, "AUTO")
    assert good, said
    assert f"built for CPU only ({why}" in said
    shutil.rmtree(tools.parent / "project")
    good, said = configure(tools, "ON")
    assert not good
    assert f"PICME_CUDA=ON, but {why}" in said
    assert "PICME_CUDA=AUTO goes on without" in said


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_an_nvcc_that_compiles_all_but_ours_is_no_nvcc(tools):
    put(tools, f'case "$*" in *sample_gmm*) echo odd >&2; exit 1;; esac\nexec {NVCC} "$@"')
    good, said = configure(tools, "AUTO", "CXX")
    assert good, said
    assert "built for CPU only (nvcc found, but it does not compile" in said


def test_off_looks_for_no_nvcc(tools):
    put(tools, "echo asked >&2; exit 1")
    good, said = configure(tools, "OFF")
    assert good
    assert "built for CPU only (PICME_CUDA=OFF)" in said
    assert "asked" not in said


def test_another_word_is_refused(tools):
    good, said = configure(tools, "YES")
    assert not good
    assert "PICME_CUDA must be AUTO, ON or OFF, got YES" in said


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_nvcc_is_taken_with_the_architectures_that_are_asked_for(tools):
    put(tools, f'exec {NVCC} "$@"')
    good, said = configure(tools, "ON", "CXX", PICME_CUDA_ARCHITECTURES="90-real;120")
    assert good, said
    assert "built for CPU and CUDA sm_90 sm_120" in said


def test_the_module_needs_no_library_of_cuda():
    from picme_rt import _kernels

    needed = subprocess.run(["ldd", _kernels.__file__], capture_output=True, text=True, check=True)
    assert "cuda" not in needed.stdout.lower()
    assert "libc.so" in needed.stdout


def test_the_names_of_its_cuda_runtime_stay_inside_the_module():
    from picme_rt import _kernels

    library = ctypes.CDLL(_kernels.__file__)
    assert hasattr(library, "PyInit__kernels")
    assert not hasattr(library, "cudaMalloc")

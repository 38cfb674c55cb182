"""Builds the kernels' CPU paths with each sanitizer and runs them: `make sanitize`.

Needs a C++ compiler with libasan, libubsan and libtsan (GCC and Clang bring them), and no more.
"""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [
    *("sample_gmm_cpu.cpp", "normal_cpu.cpp", "lanes.cpp", "lanes_scalar.cpp"),
    *("composite_cpu.cpp", "composite_scalar.cpp", "known_mean_cpu.cpp"),
    *("masked_norm_cpu.cpp", "masked_norm_scalar.cpp", "patches.cpp"),
]
# As in CMakeLists.txt.
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"]
WIDE = {
    "lanes_avx2.cpp": ["-mavx2"],
    "lanes_avx512.cpp": AVX512,
    "composite_avx2.cpp": ["-mavx2"],
    "composite_avx512.cpp": [*AVX512, "-mprefer-vector-width=512"],
    "masked_norm_avx2.cpp": ["-mavx2"],
    "masked_norm_avx512.cpp": [*AVX512, "-mprefer-vector-width=512"],
}
FLAGS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-ffp-contract=off", "-pthread"]


def main() -> int:
    """Build and run one program a sanitizer; returns how many were not clean."""
    drivers = sorted(Path(__file__).parent.glob("*.cpp"))
    failed = 0
    for sanitizer in ("address", "undefined", "thread"):
        with tempfile.TemporaryDirectory() as folder:
            objects = compiled(sanitizer, Path(folder))
            for driver in drivers:
                program = Path(folder) / driver.stem
                build(sanitizer, [driver, *objects, "-o", program])
                print(f"{sanitizer}: {driver.stem}: ", end="", flush=True)
                failed += subprocess.run([program], check=False).returncode != 0
    return failed


def compiled(sanitizer: str, folder: Path) -> list[Path]:
    """The kernels' object files."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    objects = []
    for name in [*SOURCES, *(WIDE if x86 else [])]:
        made = folder / f"{name}.o"
        flags = [*WIDE.get(name, []), *(["-DPICME_X86"] if x86 else [])]
        if name.startswith("composite_") and name != "composite_cpu.cpp":
            flags.append("-fno-trapping-math")
        build(sanitizer, [*flags, "-c", ROOT / "kernels" / name, "-o", made])
        objects.append(made)
    return objects


def build(sanitizer: str, arguments: list[str | Path]) -> None:
    """One call of the compiler."""
    checks = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    if sanitizer == "undefined":
        checks[0] += ",float-cast-overflow,float-divide-by-zero"
    compiler = os.environ.get("CXX", "c++")
    subprocess.run([compiler, *FLAGS, *checks, f"-I{ROOT / 'kernels'}", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())

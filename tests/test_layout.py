"""The arrows of the repository: kernels <- picme_rt <- picme_training <- picme_export."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "picme_rt": ROOT / "picme_rt",
    "picme_training": ROOT / "training" / "picme_training",
    "picme_export": ROOT / "export" / "picme_export",
}
SOURCES = [path for place in PACKAGES.values() for path in sorted(place.rglob("*.py"))]
MAY_IMPORT = {
    "picme_rt": {"picme_rt"},
    "picme_training": {"picme_rt", "picme_training"},
    "picme_export": {"picme_rt", "picme_training", "picme_export"},
}
LIGHT = {"numpy", "picme_rt"}
HEAVY_MODULES = {  # imported when it is used, never by `import picme_rt`
    "picme_rt/files.py": {"PIL"},
    "picme_rt/verbs/demo.py": {"skimage"},
    **{
        f"picme_rt/backends/torch_{name}.py": {"torch"}
        for name in ("launches", "network", "operators", "pipeline", "recording", "runner")
    },
}


def relative(path):
    return path.relative_to(ROOT).as_posix()


def imports(nodes):
    """The names of the packages that are imported by any of some statements."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module.split(".")[0]


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_one_that_stands_above_it(package):
    sources = sorted(PACKAGES[package].rglob("*.py"))
    assert sources
    for path in sources:
        ours = set(imports(ast.walk(tree(path)))) & set(PACKAGES)
        assert ours <= MAY_IMPORT[package], relative(path)


def test_the_runtime_imports_nothing_heavier_than_numpy_at_its_top():
    for path in sorted(PACKAGES["picme_rt"].rglob("*.py")):
        allowed = LIGHT | HEAVY_MODULES.get(relative(path), set()) | sys.stdlib_module_names
        assert set(imports(tree(path).body)) <= allowed, relative(path)


def test_the_runtime_multiplies_no_matrices():
    """NumPy's BLAS would wake threads that spin beside the backend's through a whole call."""
    # a backend's own products, and its precision of them
    torchs = {f"backends/torch_{name}.py" for name in ("operators", "recording")}
    for path in sorted(PACKAGES["picme_rt"].rglob("*.py")):
        if str(path.relative_to(PACKAGES["picme_rt"])) in torchs:
            continue
        for node in ast.walk(tree(path)):
            assert not isinstance(node, ast.MatMult), relative(path)
            name = getattr(node, "attr", None)
            assert name not in {"dot", "matmul", "einsum", "tensordot", "linalg"}, relative(path)


def test_the_kernels_know_neither_torch_nor_the_packages():
    sources = [p for p in (ROOT / "kernels").rglob("*") if p.suffix in {".h", ".cpp", ".cu"}]
    assert sources
    for path in sources:
        includes = [line for line in path.read_text().splitlines() if line.startswith("#include")]
        assert not [line for line in includes if "torch" in line or "onnx" in line], relative(path)


def test_importing_the_runtime_loads_nothing_heavy():
    code = (
        "import sys, picme_rt, picme_rt.cli; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "torch", "onnxruntime", "openvino", "onnx", "PIL", "skimage", "picme_training",
        "picme_export", "email", "logging", "tempfile",
    }  # fmt: skip
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_source_says_what_it_is_and_stays_short(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a file begins with what it is"
    assert text.count("\n") <= 400
    for name in ("utils", "helpers", "common", "base", "manager", "misc"):
        assert path.stem != name


def test_make_sanitize_compiles_every_source_of_the_cpu():
    run = runpy.run_path(str(ROOT / "tests" / "sanitize" / "run.py"))
    sources = {path.name for path in (ROOT / "kernels").glob("*.cpp")}
    of_python = {name for name in sources if name.endswith(("bindings.cpp", "_plain.cpp"))}
    assert {*run["SOURCES"], *run["WIDE"]} == sources - of_python

"""What the composite's CUDA kernels write, on machines without a GPU: threads emulated on the host.

training/gpu/composites.py holds the cases; `make gpu-check` runs the same ones on a GPU.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

TRAINING = Path(__file__).parents[1] / "training"
KERNELS = Path(__file__).parents[1] / "kernels"
COMPILER = ["c++", "-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
ORDERS = {"forwards": (), "backwards": ("-DPICME_EMULATED_BACKWARDS",)}

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(TRAINING)
    from gpu import composites
CASES = {case.name: case for case in composites.cases()}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The program, with the warps of a block in either order."""
    folder = tmp_path_factory.mktemp("emulated")
    for order, flags in ORDERS.items():
        done = composites.build(COMPILER, folder / order, *flags)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("order", ORDERS)
def test_the_kernels_give_the_golden_hashes(programs, order):
    case, hashes = composites.golden()
    assert composites.hashes_of(composites.launch([str(programs / order)], case)) == hashes


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", CASES)
def test_the_kernels_equal_the_reference(programs, name, order):
    done = composites.compare([str(programs / order)], CASES[name])
    assert done["pass"], done


def test_the_cases_resize_in_every_way():
    """One tap, the four of enlarging and the many of shrinking; a seam and none."""
    canvases = [canvas for case in CASES.values() for canvas in case.canvases]
    widths = {len(canvas.rows.weights) for canvas in canvases}
    assert {1, 4} < widths
    assert max(widths) > 4
    assert {bool(canvas.known.any()) for canvas in canvases} == {True, False}


@st.composite
def drawn(draw):
    """Any shape, size, hole, type, address and number of completions, with originals or without."""
    shape = draw(st.integers(1, 90)), draw(st.integers(1, 300))
    size = draw(st.sampled_from([1, 2, 5, 16, 33, 48]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    hole = np.zeros(shape, bool)
    top, left = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
    hole[top : top + draw(st.integers(1, 90)), left : left + draw(st.integers(1, 300))] = True
    hole &= rng.random(shape) < draw(st.sampled_from([0.02, 0.9, 1]))
    hole[top, left] = True
    case = composites.scene("drawn", shape, size, k=draw(st.integers(1, 3)), hole=hole)
    case = composites.typed(case, draw(st.sampled_from(composites.TYPES)))
    originals = case.originals if draw(st.booleans()) else None
    return case._replace(originals=originals, before=draw(st.integers(0, 3)))


@settings(max_examples=40, deadline=None)
@given(drawn())
def test_any_scene_equals_the_reference(programs, case):
    done = composites.compare([str(programs / "forwards")], case)
    assert done["pass"], done


@pytest.mark.parametrize("dtype", ["float16", "uint16"])
def test_every_number_of_two_bytes_gives_its_byte(programs, dtype):
    hole = np.ones((256, 256), bool)
    case = composites.scene("every number", (256, 256), 256, hole=hole)
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype).reshape(256, 256)
    pictures = np.ascontiguousarray(np.broadcast_to(every, (1, 1, 3, 256, 256)))
    done = composites.compare([str(programs / "forwards")], case._replace(pictures=pictures))
    assert done["pass"], done


def test_no_completions_are_no_launch(programs):
    case = CASES["shrunk"]
    none = case._replace(pictures=case.pictures[:, :0])
    assert composites.launch([str(programs / "forwards")], none).shape == (1, 0, 20, 23, 3)


@pytest.mark.parametrize("wrong", ["grid", "size", "height"])
def test_the_launcher_refuses_sizes_that_its_kernels_cannot_hold(programs, wrong, monkeypatch):
    packed = composites.pack(CASES["one pixel"].canvases)
    case = CASES["one pixel"]
    if wrong == "height":
        case = case._replace(shape=(0, 1), originals=None)
    else:
        monkeypatch.setattr(composites, "pack", lambda _: packed._replace(**{wrong: 5000}))
        pictures = np.zeros((1, 1, 3, 5000, 5000) if wrong == "size" else (1, 1, 3, 1, 1), "f4")
        case = case._replace(pictures=pictures)
    with pytest.raises(composites.subprocess.CalledProcessError) as raised:
        composites.launch([str(programs / "forwards")], case)
    assert "out of range" in raised.value.stderr


BARRIERS = [
    (path.name, i)
    for path in sorted(KERNELS.glob("composite_cuda*"))
    for i in range(len(re.findall(r"__sync(?:threads|warp)\(\)", path.read_text(encoding="utf-8"))))
]


def changed_program(tmp_path, monkeypatch, name, change):
    """The program with one of its sources changed."""
    for path in KERNELS.glob("*.[hc]*"):
        if path.suffix in (".h", ".cu"):
            shutil.copy(path, tmp_path)
    text = (tmp_path / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(change(text), encoding="utf-8")
    monkeypatch.setattr(
        composites, "SOURCES", (composites.SOURCES[0], tmp_path / "composite_cuda.cu")
    )
    done = composites.build(COMPILER, tmp_path / "program", "-I", str(tmp_path))
    assert done.returncode == 0, done.stderr
    return [str(tmp_path / "program")]


@pytest.mark.parametrize(("name", "barrier"), BARRIERS)
def test_a_barrier_that_is_missing_is_found_out(name, barrier, tmp_path, monkeypatch):
    assert len(BARRIERS) == 8

    def without(text):
        found = list(re.finditer(r"__sync(?:threads|warp)\(\)", text))[barrier]
        return text[: found.start()] + "//" + text[found.start() :]

    program = changed_program(tmp_path, monkeypatch, name, without)
    telling = ("not resized", "enlarged", "a little larger, many rows")
    assert not all(composites.compare(program, CASES[case])["pass"] for case in telling)


def test_few_blocks_write_all_tiles(tmp_path, monkeypatch):
    def fewer(text):
        assert text.count("kFillBlocks = 8192") == 1
        return text.replace("kFillBlocks = 8192", "kFillBlocks = 1")

    program = changed_program(tmp_path, monkeypatch, "composite_cuda.cu", fewer)
    for case in ("not resized", "enlarged", "three canvases, two grids"):
        assert composites.compare(program, CASES[case])["pass"]


def test_what_is_packed_for_another_image_of_the_same_sizes_is_pasted(programs):
    """As a graph's replay does: sizes and addresses stay, the bytes of the canvases change."""
    case = CASES["three canvases, two grids"]
    turned = case._replace(canvases=case.canvases[::-1])
    assert composites.compare([str(programs / "forwards")], turned)["pass"]


def test_bytes_of_the_original_under_the_hole_change_nothing(programs):
    case = CASES["not resized"]
    box, inside = case.canvases[0].box, case.canvases[0].inside
    other = case.originals.copy()
    other[0, box.top : box.bottom, box.left : box.right][inside] ^= 0xFF
    program = [str(programs / "forwards")]
    first = composites.launch(program, case)
    assert (composites.launch(program, case._replace(originals=other)) == first).all()

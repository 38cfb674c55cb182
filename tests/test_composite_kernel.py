"""The composite's kernel is its specification: the bytes of the reference, wherever it runs."""

import dataclasses
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

import picme_rt
from picme_rt import composite, framing, kernels, packed_canvases, resample
from picme_rt.resample import Taps

SPECIFICATION = pathlib.Path(__file__).parents[1] / "docs" / "compositing.md"
TYPES = ("float32", "float16", "bfloat16")


def every_lanes():
    from picme_rt import _kernels

    return _kernels.lanes()


def native(pictures, originals, canvases, out, *, threads=1, lanes=""):
    from picme_rt import _kernels

    _kernels.composite(pictures, originals, canvases, out, threads=threads, lanes=lanes)
    return out


def as_type(pictures, name):
    """float32 as another type, bfloat16 as its bits."""
    if name == "bfloat16":
        return (pictures.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    return pictures.astype(name)


def canvases_of(img, hole, size, kind="aligned"):
    return [
        composite.canvas(composite.fit(img, hole, region, size), hole, region)
        for region in framing.regions(hole, size, kind)
    ]


def scene(shape=(40, 50), size=16, k=2, seed=0, hole=None):
    """Pictures (1, k, 3, S, S), an original (1, H, W, 3) and one canvas, all of noise."""
    rng = np.random.default_rng(seed)
    img = rng.integers(0, 256, (*shape, 3), np.uint8)
    if hole is None:
        hole = np.zeros(shape, bool)
        hole[shape[0] // 4 : shape[0] // 2 + 1, shape[1] // 3 : shape[1] // 2 + 1] = True
    pictures = rng.uniform(-1.2, 1.2, (1, k, 3, size, size)).astype(np.float32)
    return pictures, img[None], canvases_of(img, hole, size)[:1]


def golden():
    """The documented case of docs/compositing.md."""
    c, y, x = np.ogrid[:3, :8, :8]
    pictures = np.empty((2, 2, 3, 8, 8))
    pictures[0, 0] = ((3 * c + 7 * y + 5 * x) % 17) / 8 - 1
    pictures[0, 1] = np.where((c + x + y) % 2 == 0, 0.5, -0.5)
    pictures[1, 0], pictures[1, 1] = (51 + 34 * c) / 255 - 1, (153 + 34 * c) / 255 - 1
    up, (rows, columns) = resample.taps(8, 13, "cubic"), np.ogrid[:12, :13]
    one = composite.Canvas(
        box=framing.Box(1, 2, 11, 11),
        inside=(3 * np.arange(10)[:, None] + 5 * np.arange(9)) % 7 > 0,
        image=(((c + 2 * y + 3 * x) % 13) / 8 - 0.75).astype(np.float32),
        known=((y + 2 * x) % 5 == 0)[0] & (np.arange(8) > 1),
        blur=Taps(
            np.array([0, 0, 1, 1], np.int32),
            np.array([[3, 1, 1, 0], [1, 2, 2, 1], [0, 1, 1, 3]], np.float32) / 4,
        ),
        pull=(1 + (np.arange(4) + 2 * np.arange(4)[:, None]) / 8).astype(np.float32),
        grow=resample.taps(4, 8, "triangle"),
        rows=up.part(1, 11),
        columns=up.part(2, 11),
    )
    original = (31 * rows[..., None] + 17 * columns[..., None] + 101 * np.arange(3)) % 256
    other = dataclasses.replace(one, known=np.zeros((8, 8), bool))
    original = np.stack([original.astype(np.uint8)] * 2)
    return pictures.astype(np.float32), original, [one, other]


@st.composite
def scenes(draw):
    """Pictures of any type for a noisy original of up to 70 pixels a side and its largest hole."""
    shape = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    size = draw(st.sampled_from([1, 2, 5, 16, 33, 64, 130]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    img = rng.integers(0, 256, (*shape, 3), np.uint8)
    hole = np.zeros(shape, bool)
    top, left = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
    hole[top : top + draw(st.integers(1, 70)), left : left + draw(st.integers(1, 70))] = True
    hole &= rng.random(shape) < draw(st.sampled_from([0.2, 0.9, 1]))
    hole[top, left] = True
    pictures = rng.uniform(-1.3, 1.3, (1, draw(st.integers(0, 3)), 3, size, size))
    kind = draw(st.sampled_from(["aligned", "free"]))
    canvases = canvases_of(img, hole, size, kind)[:1]
    return as_type(pictures.astype(np.float32), draw(st.sampled_from(TYPES))), img[None], canvases


# One specification


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_the_golden_case_has_the_documented_hashes(impl):
    hashes = re.findall(
        r"^\| \d, \d \| `([0-9a-f]{64})` \|$", SPECIFICATION.read_text(), re.MULTILINE
    )
    done = kernels.composite(*golden(), impl=impl)
    assert [hashlib.sha256(one.tobytes()).hexdigest() for one in done.reshape(4, -1)] == hashes


@settings(max_examples=200)
@given(scenes(), st.data())
def test_native_equals_the_reference_to_the_bit(drawn, data):
    pictures, originals, canvases = drawn
    want = kernels.composite(pictures, originals, canvases, impl="ref")
    out = np.full_like(want, 99)
    native(
        pictures,
        originals,
        canvases,
        out,
        threads=data.draw(st.integers(1, 3)),
        lanes=data.draw(st.sampled_from(every_lanes())),
    )
    assert (out == want).all()
    hole = np.zeros(originals.shape[1:3], bool)
    box = canvases[0].box
    hole[box.top : box.bottom, box.left : box.right] = canvases[0].inside
    assert (out[0, :, ~hole] == originals[0, ~hole][:, None]).all()


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(
    ("shape", "size"),
    [((600, 1100), 64), ((1100, 600), 64), ((300, 1030), 1030), ((9, 1500), 16), ((530, 530), 256)],
)
def test_every_instruction_set_and_thread_count_gives_the_same_bytes(shape, size, name):
    """Sizes beyond one strip and one tile."""
    hole = np.zeros(shape, bool)
    hole[1:-2, 2:-3] = True
    hole[shape[0] // 2, ::7] = False
    pictures, originals, canvases = scene(shape, size, hole=hole)
    pictures = as_type(pictures, name)
    want = kernels.composite(pictures, originals, canvases, impl="ref")
    assert "scalar" in every_lanes()
    for lanes in every_lanes():
        for threads in (1, 2, 5):
            out = np.full_like(want, 7)
            native(pictures, originals, canvases, out, threads=threads, lanes=lanes)
            assert (out == want).all(), (lanes, threads)


@pytest.mark.parametrize("photo", ["chelsea", "astronaut", "coffee"])
def test_a_session_gives_the_same_pictures_without_the_compiled_kernels(photo, engine, monkeypatch):
    img = getattr(data, photo)()
    hole = np.zeros(img.shape[:2], bool)
    hole[90:190, 150:270] = True
    with picme_rt.Session(engine) as session:
        fast = session.complete(img, hole, k=2)
        assert session.info.composite == "native"
        monkeypatch.setitem(sys.modules, "picme_rt._kernels", None)
        assert session.info.composite == "ref"
        slow = session.complete(img, hole, k=2)
    assert (fast.images == slow.images).all()


def test_a_batch_is_its_images_and_completions_one_by_one():
    scenes = [scene((40, 50), 16, k=3, seed=seed) for seed in range(3)]
    hole = np.ones((40, 50), bool)
    scenes.append(scene((40, 50), 16, k=3, seed=3, hole=hole))
    pictures = np.concatenate([one[0] for one in scenes])
    originals = np.concatenate([one[1] for one in scenes])
    done = kernels.composite(pictures, originals, [one[2][0] for one in scenes], threads=2)
    for b, one in enumerate(scenes):
        for i in range(3):
            alone = kernels.composite(one[0][:, i : i + 1], one[1], one[2], impl="ref")
            assert (done[b, i] == alone[0, 0]).all()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
@pytest.mark.parametrize(("shape", "size"), [((90, 140), 32), ((32, 32), 32), ((20, 21), 64)])
def test_taps_of_any_number_and_more_results_than_go_together(shape, size, count):
    """The seam's grid grows by `count` taps, whose values jump by up to half of a row."""
    hole = np.zeros(shape, bool)
    hole[2:-3, 3:-2] = True
    pictures, originals, (canvas,) = scene(shape, size, k=11, hole=hole)
    rng = np.random.default_rng(count)
    grid = len(canvas.pull)
    first = np.sort(rng.integers(0, grid - count + 1, size)).astype(np.int32)
    first[size // 2 :] = np.maximum(first[size // 2 :], grid // 2)
    grow = Taps(np.minimum(first, grid - count), rng.random((count, size), np.float32))
    canvas = dataclasses.replace(canvas, grow=grow)
    want = kernels.composite(pictures, originals, [canvas], impl="ref")
    for lanes in every_lanes():
        out = np.empty_like(want)
        assert (native(pictures, originals, [canvas], out, lanes=lanes, threads=2) == want).all()


def test_taps_that_repeat_and_skip_are_no_copy():
    pictures, originals, (canvas,) = scene((16, 16))
    first, weights = canvas.columns
    assert len(weights) == 1
    twice = Taps(first - (np.arange(len(first)) == 1).astype(np.int32), weights)  # 0 0 2 3
    canvas = dataclasses.replace(canvas, columns=twice)
    want = kernels.composite(pictures, originals, [canvas], impl="ref")
    assert (kernels.composite(pictures, originals, [canvas], impl="native") == want).all()


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a compiler")
@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_no_code_for_wider_registers_can_be_linked_in_for_other_processors(name, tmp_path):
    """Unoptimised, a compiler puts every function that a file calls into the object file."""
    if name not in every_lanes():
        pytest.skip("not compiled for this processor")
    flags = {"avx2": ["-mavx2"], "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"]}
    made = tmp_path / "loops.o"
    source = SPECIFICATION.parents[1] / "kernels" / f"composite_{name}.cpp"
    subprocess.run(["c++", "-std=c++17", "-O0", *flags[name], "-c", source, "-o", made], check=True)
    names = ["nm", "--defined-only", "--extern-only", "--format=posix", "-C", made]
    done = subprocess.run(names, capture_output=True, text=True, check=True)
    (only,) = done.stdout.splitlines()
    assert only.startswith(f"picme::composite::k_{name}")


# What is in the pictures


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38, 1e-45])
@pytest.mark.parametrize(("shape", "size"), [((40, 50), 16), ((16, 16), 16), ((150, 150), 130)])
def test_any_number_gives_a_defined_byte(value, shape, size):
    pictures, originals, canvases = scene(shape, size, k=8)
    rng = np.random.default_rng(5)
    for i in range(8):
        pictures[0, i, rng.integers(0, 3), rng.integers(0, size), rng.integers(0, size)] = value
    want = kernels.composite(pictures, originals, canvases, impl="ref")
    for lanes in every_lanes():
        assert (
            native(pictures, originals, canvases, np.empty_like(want), lanes=lanes) == want
        ).all()


@pytest.mark.parametrize("impl", ["ref", "native"])
@pytest.mark.parametrize(("value", "byte"), [(np.nan, 0), (np.inf, 255), (-np.inf, 0), (1.5, 255)])
def test_nan_is_0_and_the_rest_is_clipped(value, byte, impl):
    hole = np.ones((16, 16), bool)
    pictures, originals, canvases = scene((16, 16), 16, hole=hole)
    pictures[:] = np.float32(value)
    assert (kernels.composite(pictures, originals, canvases, impl=impl) == byte).all()


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_levels_round_to_nearest_and_ties_to_even(impl):
    levels = np.minimum(np.arange(256) + 0.5 * (np.arange(256) % 4 > 0), 255)
    hole = np.ones((16, 16), bool)
    pictures, originals, canvases = scene((16, 16), 16, k=1, hole=hole)
    pictures[:] = (levels / 127.5 - 1).astype(np.float32).reshape(16, 16)
    exact = (pictures[0, 0, 0] + np.float32(1)) * np.float32(127.5)
    assert (exact == levels.reshape(16, 16)).sum() > 90  # ties are among them
    done = kernels.composite(pictures, originals, canvases, impl=impl)
    assert (done[0, 0] == np.rint(exact)[..., None]).all()


def test_all_half_floats_come_in_exactly():
    every = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    hole = np.ones((256, 256), bool)
    _, originals, canvases = scene((256, 256), 256, hole=hole)
    for pictures in (every.view(np.float16), every):
        pictures = np.ascontiguousarray(np.broadcast_to(pictures, (1, 1, 3, 256, 256)))
        want = kernels.composite(pictures, originals, canvases, impl="ref")
        for lanes in every_lanes():
            out = native(pictures, originals, canvases, np.empty_like(want), lanes=lanes)
            assert (out == want).all()


def test_a_canvas_on_which_all_is_known_shows_the_known_picture():
    pictures, originals, (canvas,) = scene()
    canvas = dataclasses.replace(canvas, known=np.ones((16, 16), bool))
    want = kernels.composite(pictures, originals, [canvas], impl="ref")
    assert (kernels.composite(pictures, originals, [canvas], impl="native") == want).all()
    assert (want[0, 0] == want[0, 1]).all()


# Memory


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_bytes_under_the_hole_are_never_read(impl):
    hole = np.random.default_rng(1).random((40, 50)) < 0.4
    pictures, originals, canvases = scene(hole=hole)
    other = originals.copy()
    other[:, hole] = 255 - other[:, hole]
    first = kernels.composite(pictures, originals, canvases, impl=impl)
    assert (kernels.composite(pictures, other, canvases, impl=impl) == first).all()


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_without_originals_only_the_hole_is_written(impl):
    hole = np.random.default_rng(1).random((40, 50)) < 0.4
    pictures, originals, canvases = scene(hole=hole)
    want = kernels.composite(pictures, originals, canvases, impl=impl)
    out = np.full_like(want, 123)
    assert kernels.composite(pictures, None, canvases, out=out, impl=impl) is out
    assert (out[:, :, hole] == want[:, :, hole]).all()
    assert (out[:, :, ~hole] == 123).all()


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_nothing_is_written_beside_out(impl):
    pictures, originals, canvases = scene((37, 41), 16, hole=np.ones((37, 41), bool))
    want = kernels.composite(pictures, originals, canvases, impl=impl)
    room = np.full(want.size + 200, 55, np.uint8)
    out = room[101:-99].reshape(want.shape)  # an odd address
    kernels.composite(pictures, originals, canvases, out=out, impl=impl)
    assert (out == want).all()
    assert (room[:101] == 55).all()
    assert (room[-99:] == 55).all()


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_strided_misaligned_and_read_only_arrays_give_the_same_bytes(impl):
    pictures, originals, canvases = scene()
    want = kernels.composite(pictures, originals, canvases, impl=impl)
    raw = np.empty(pictures.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(pictures.shape)
    raw[:] = pictures
    assert not raw.flags.aligned
    wide = np.repeat(originals, 2, axis=2)[:, :, ::2]
    turned = np.ascontiguousarray(pictures.swapaxes(3, 4)).swapaxes(3, 4)
    for one in (raw, turned):
        one.setflags(write=False)
        assert (kernels.composite(one, wide, canvases, impl=impl) == want).all()


def _packed(canvas):
    return packed_canvases.pack([canvas]).data.tobytes()


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_true_may_be_any_byte(impl):
    """As in the arrays that Pillow makes of masks: 255."""
    pictures, originals, (canvas,) = scene()
    want = kernels.composite(pictures, originals, [canvas], impl=impl)
    for byte in (2, 255):
        odd = {n: (getattr(canvas, n) * np.uint8(byte)).view(bool) for n in ("inside", "known")}
        changed = dataclasses.replace(canvas, **odd)
        assert (kernels.composite(pictures, originals, [changed], impl=impl) == want).all()
        assert _packed(changed) == _packed(canvas)


MEMORY = """
import resource, sys
import numpy as np
from picme_rt import composite, framing, kernels
img, hole = np.zeros((4000, 4000, 3), np.uint8), np.ones((4000, 4000), bool)
(region,) = framing.regions(hole, 64, "aligned")
canvas = composite.canvas(composite.fit(img, hole, region, 64), hole, region)
pictures, out = np.zeros((1, 1, 3, 64, 64), np.float32), np.ones((1, 1, *img.shape), np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kernels.composite(pictures, img[None], [canvas], out=out, impl=sys.argv[1], threads=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts in KiB on Linux")
@pytest.mark.parametrize(("impl", "most"), [("native", 8), ("ref", 100)])
def test_memory_does_not_grow_with_the_box(impl, most):
    """The box as float would take 183 MiB; `most` MiB are a strip's."""
    run = [sys.executable, "-c", MEMORY, impl]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert int(done.stdout) < most << 10


@pytest.mark.parametrize("impl", ["ref", "native"])
@pytest.mark.parametrize(("batch", "k"), [(0, 2), (1, 0), (0, 0)])
def test_nothing_asked_for_is_nothing_made(batch, k, impl):
    pictures, originals, canvases = scene()
    done = kernels.composite(pictures[:batch, :k], originals[:batch], canvases[:batch], impl=impl)
    assert done.shape == (batch, k, 40, 50, 3)

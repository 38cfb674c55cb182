"""Work follows the hole: only its box is decoded, and nobody can see that from the results."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from cpu_backends import EVERY
from hypothesis import given, settings
from hypothesis import strategies as st

import picme_rt
from picme_rt import backends, composite, framing, graph_shapes, kernels, work
from picme_rt import engine as engines
from picme_rt.backends import graphs
from picme_rt.errors import EngineError
from picme_rt.framing import Box

BY_PRECISION = pytest.mark.parametrize(("backend", "precision"), EVERY)
BY_NAME = pytest.mark.parametrize("backend", backends.BACKENDS)
ENGINES = Path(__file__).parents[1] / "engines"
S = 64
BOXES = [
    Box(0, 0, S, S), Box(16, 16, 48, 48), Box(0, 0, 1, 1), Box(S - 1, 0, S, 1),
    Box(S - 1, S - 1, S, S), Box(31, 33, 32, 34), Box(5, 11, 24, 60), Box(40, 0, 41, S),
]  # fmt: skip


def opened(path, backend, precision="fp32", **settings):
    defaults = backends.defaults(backend, precision)
    return backends.load(engines.load(path), dataclasses.replace(defaults, **settings))


def values_of(backend, side=S):
    rng = np.random.default_rng(0)
    hole = np.zeros((1, 1, side, side), np.float32)
    hole[..., 20:40, 10:50] = 1
    image = rng.uniform(-1, 1, (1, 3, side, side)).astype(np.float32) * (1 - hole)
    return {**backend.encode(image, hole), "hole": hole}


def decoded(backend, values, box, z):
    decode = backend.decoding(values, box)
    picture = decode(z).copy()
    assert decode.box == (box or Box(0, 0, S, S))
    decode.close()
    return picture


def part(picture, box):
    return picture[:, :, box.top : box.bottom, box.left : box.right]


@pytest.mark.parametrize("preset", ["picme", "pic", "cats"])
@BY_NAME
def test_a_box_is_what_the_whole_picture_has_there_and_the_rest_is_0(exported, preset, backend):
    """To 1e-5; which convolution a library takes may depend on a map's size."""
    loaded = opened(exported(preset).path, backend)
    values = values_of(loaded)
    z = values["mu"][:, -1]
    whole = decoded(loaded, values, None, z)
    assert whole.std() > 0.05
    for box in BOXES:
        got = decoded(loaded, values, box, z)
        assert got.shape == whole.shape
        assert np.abs(part(got, box) - part(whole, box)).max() < 1e-5
        part(got, box)[:] = 0
        assert not got.any()


@pytest.mark.parametrize("name", ["cats128", "cats256"])
@BY_NAME
def test_a_box_of_a_shipped_engine_is_what_the_whole_picture_has_there(name, backend):
    """Its decoder crops before its pixel-shuffle, and maps as large as the picture."""
    loaded = opened(ENGINES / name, backend)
    side = engines.load(ENGINES / name).size
    values = values_of(loaded, side)
    z = values["mu"][:, -1]
    decode = loaded.decoding(values, None)
    whole = decode(z).copy()
    decode.close()
    corners = [(0, 0, side, side), (side // 4, side // 8, side // 2, side - 3)]
    for box in (Box(*one) for one in [*corners, (0, side - 1, 1, side), (side - 9, 5, side, 6)]):
        decode = loaded.decoding(values, box)
        assert np.abs(part(decode(z), box) - part(whole, box)).max() < 1e-5
        decode.close()


@BY_PRECISION
def test_bits_depend_on_no_box_that_was_decoded_before(engine, backend, precision):
    shared = opened(engine, backend, precision, micro_batch=2)
    values = values_of(shared)
    z = np.random.default_rng(1).standard_normal((2, values["mu"].shape[2])).astype(np.float32)
    want = [decoded(shared, values, box, z) for box in BOXES]
    for order in (reversed(range(len(BOXES))), [0, 3, 0, 2, 5, 2, 0]):
        for i in order:
            assert (decoded(shared, values, BOXES[i], z) == want[i]).all()
    fresh = opened(engine, backend, precision, micro_batch=2)
    for box, one in list(zip(BOXES, want, strict=True))[:3]:
        assert (decoded(fresh, values, box, z) == one).all()


def test_two_decodings_at_once_have_boxes_of_their_own(engine):
    loaded = opened(engine, "onnxruntime")
    values = values_of(loaded)
    z = values["mu"][:, 0]
    want = [decoded(loaded, values, box, z) for box in BOXES]
    decodes = [loaded.decoding(values, box) for box in BOXES]
    found = [decode(z) for decode in decodes]
    assert all((a == b).all() for a, b in zip(found, want, strict=True))


@st.composite
def canvases(draw):
    """A picture of any size with any hole, as the composite sees it at 16 or 64."""
    size = draw(st.sampled_from([16, 64]))
    shape = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    hole = np.zeros(shape, bool)
    top, left = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
    hole[top : top + draw(st.integers(1, 90)), left : left + draw(st.integers(1, 90))] = True
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    if draw(st.booleans()):
        hole[tuple(rng.integers(0, shape))] = True
    img = rng.integers(0, 256, (*shape, 3), np.uint8)
    (region,) = framing.regions(hole, size, "aligned")
    return img, composite.canvas(composite.fit(img, hole, region, size), hole, region), rng


@settings(max_examples=50)
@given(canvases())
def test_the_bytes_depend_on_the_needed_box_alone(scene):
    img, canvas, rng = scene
    picture = rng.uniform(-1, 1, (3, canvas.size, canvas.size)).astype(np.float32)
    box = composite.needed(canvas)
    other = rng.uniform(-1, 1, picture.shape).astype(np.float32)
    zero = np.zeros_like(picture)
    for one in (other, zero):
        part(one[None], box)[:] = part(picture[None], box)
    made = [
        kernels.composite(one[None, None], img[None], [canvas], impl=impl)
        for one in (picture, other, zero)
        for impl in ("auto", "ref")
    ]
    assert all((one == made[0]).all() for one in made)


@settings(max_examples=50)
@given(canvases())
def test_the_needed_box_is_the_hole_and_a_short_way_around(scene):
    _, canvas, _ = scene
    box, (rows, columns) = composite.needed(canvas), np.nonzero(~canvas.known)
    assert 0 <= box.top < box.bottom <= canvas.size
    assert 0 <= box.left < box.right <= canvas.size
    if len(rows):
        most = canvas.cell * 5  # one place of the grid for growing, three for the blur, one to fit
        for low, high, first, last in (
            (box.top, box.bottom, rows.min(), rows.max() + 1),
            (box.left, box.right, columns.min(), columns.max() + 1),
        ):
            assert max(first - most, 0) <= low <= first
            assert last <= high <= min(last + most, canvas.size)


HOLES = {
    "middle": (slice(60, 130), slice(80, 140)),
    "one pixel": (slice(100, 101), slice(77, 78)),
    "corner": (slice(0, 40), slice(0, 30)),
    "last row": (slice(199, 200), slice(0, 190)),
    "whole picture": (slice(0, 200), slice(0, 190)),
}


@BY_PRECISION
@pytest.mark.parametrize("hole", HOLES)
def test_results_are_those_of_whole_pictures(engine, hole, backend, precision):
    rng = np.random.default_rng(3)
    img = np.kron(rng.integers(0, 256, (10, 10, 3), np.uint8), np.ones((20, 19, 1), np.uint8))
    mask = np.zeros(img.shape[:2], bool)
    mask[HOLES[hole]] = True
    with picme_rt.Session(engine, backend=backend, precision=precision) as session:
        encoded = session.encode(img, mask)
        done = encoded.complete(k=3).images
        (only,) = encoded._parts
        encoded._parts[0] = only._replace(box=Box(0, 0, S, S))
        whole = encoded.complete(k=3).images
        assert (session.encode(img, mask).complete(k=1, first=2).images[0] == done[2]).all()
    assert (done[:, ~mask] == img[~mask]).all()
    most = 1 if precision == "fp32" else 4
    assert np.abs(done.astype(int) - whole).max() <= most


def without_a_box(path, target):
    """The engine as format 1: the same graphs, and the whole picture as the only box."""
    shutil.copytree(path, target)
    loaded = engines.load(path)
    model = onnx.load(target / "fp32" / "decoder.onnx")
    graph = model.graph
    del graph.value_info[:]  # what is said of sides that are free
    assert graph.input.pop().name == "box"
    for node in [n for n in graph.node if n.op_type == "Slice" or "box" in n.input]:
        for user in graph.node:
            for i, name in enumerate(user.input):
                if node.op_type == "Slice" and name == node.output[0]:
                    user.input[i] = node.input[0]
        graph.node.remove(node)
    for axis in graph.output[0].type.tensor_type.shape.dim[2:]:
        axis.dim_value = loaded.size
    used = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    (target / "fp32" / "decoder.onnx").write_bytes(model.SerializeToString())
    files = {}
    for name in loaded.files:
        content = (target / name).read_bytes()
        files[name] = engines.File(hashlib.sha256(content).hexdigest(), len(content))
    first = dataclasses.replace(loaded, path=target, crops=(), files=files)
    (target / "engine.json").write_text(engines.manifest(first))
    return target


@BY_NAME
def test_an_engine_of_format_1_gives_the_same_results(engine, picture, tmp_path, backend):
    first = without_a_box(engine, tmp_path / "first")
    written = json.loads((first / "engine.json").read_text())
    assert written["format"] == 1
    assert "crops" not in written
    assert json.loads((engine / "engine.json").read_text())["format"] == 2
    with (
        picme_rt.Session(engine, backend=backend) as new,
        picme_rt.Session(first, backend=backend) as old,
    ):
        a, b = new.complete(*picture).images, old.complete(*picture).images
    assert np.abs(a.astype(int) - b).max() <= 1
    assert work.shares(engines.load(first), "fp32") == {"5 % hole": 1, "centre hole": 1}


@BY_NAME
def test_numbers_that_no_colour_has_are_refused_in_the_box_and_forgotten_after(
    engine, picture, backend
):
    with picme_rt.Session(engine, backend=backend) as session:
        want = session.complete(*picture, k=1).images
        encoded = session.encode(*picture)
        (only,) = encoded._parts
        bad = {**only.values, "z_m": np.full_like(only.values["z_m"], np.nan)}
        encoded._parts[0] = only._replace(values=bad, box=Box(0, 0, S, S))
        with pytest.raises(EngineError, match="decoder gave values"):
            encoded.complete(k=1)
        assert (session.complete(*picture, k=1).images == want).all()


@pytest.mark.parametrize("latents", [1, 3])
def test_a_new_box_is_followed_with_as_many_latents_as_run(engine, monkeypatch, latents):
    followed, follow = [], graph_shapes._Trace.follow

    def noted(self, nodes):
        followed.append(self.batch)
        follow(self, nodes)

    monkeypatch.setattr(graph_shapes._Trace, "follow", noted)
    found = graphs.read(engines.load(engine), "fp32", latents)
    assert set(followed) == {1, 2, latents}
    followed.clear()
    for _ in range(2):  # once: the next decode of this box is no new one
        assert found.windows(Box(3, 5, 30, 40)).rows.shape
    assert followed == [latents]


@pytest.mark.parametrize("preset", ["picme", "cats"])
def test_the_share_of_a_hole_is_what_its_windows_take(exported, preset):
    loaded = engines.load(exported(preset).path)
    shares = work.shares(loaded, "fp32")
    assert 0.3 < shares["5 % hole"] < shares["centre hole"] < 1
    content, table = loaded.read("fp32/decoder.onnx"), loaded.tables.decoder
    whole = graph_shapes.check(content, table, loaded.crops)
    assert graph_shapes.cost(content, table, loaded.crops, Box(0, 0, S, S)) == whole
    macs = [
        graph_shapes.cost(content, table, loaded.crops, Box(0, 0, n, n)).macs for n in (1, 30, S)
    ]
    assert macs == sorted(macs)
    assert macs[0] < macs[2] == whole.macs

"""Engines of kind `idc`: the same face as any, on their own picture alone."""

import json

import numpy as np
import pytest
import tiny_engines
import tiny_pyramid
from cpu_backends import PYRAMIDS

import picme_rt
from picme_rt import kernels, pyramid, pyramid_frame
from picme_rt.errors import ClosedError, EngineError, InputError


@pytest.fixture(scope="module", params=[False, True], ids=["its size", "larger"])
def path(request, tmp_path_factory):
    made = tiny_pyramid.make(larger=request.param)
    return tiny_pyramid.write(tmp_path_factory.mktemp("idc") / "tiny", made.files)


@pytest.fixture(scope="module")
def session(path):
    with picme_rt.Session(path) as opened:
        yield opened


@pytest.fixture
def smaller():
    """A mask inside of the engine's hole."""
    mask = np.zeros((24, 30), np.uint8)
    mask[10:13, 12:18] = 1
    return mask


IMG, MASK = tiny_pyramid.picture()


def test_diversity_says_how_far_from_the_known_pixels_results_differ(session):
    spread = {
        one: session.complete(IMG, MASK, k=4, diversity=one).images[:, MASK > 0].std(0).mean()
        for one in ("low", "mid", "high", 3.5, 0, -2.0, 3.9)
    }
    assert spread["low"] == 0  # in the tiny engine every pixel of the hole is 4 deep
    assert spread["high"] == spread[0] == spread[-2.0] == spread[3.5] > 1
    assert spread["mid"] == 0
    default = session.complete(IMG, MASK, k=2).images
    assert (session.complete(IMG, MASK, k=2, diversity="mid").images == default).all()


def test_the_mean_is_the_reconstruction_and_temperature_a_factor_on_noise(session):
    mean = session.complete(IMG, MASK, k=2, mode="mean", diversity="high").images
    assert (mean[0] == mean[1]).all()
    assert (session.complete(IMG, MASK, k=1, diversity=7).images == mean[:1]).all()
    results = {
        t: session.complete(IMG, MASK, k=4, diversity="high", temperature=t).images[:, MASK > 0]
        for t in (0.0, 1.0, 2.0)
    }
    assert results[0.0].std(0).max() == 0
    assert results[2.0].std(0).mean() > results[1.0].std(0).mean()


HUGE = pytest.param(10**400, id="huge")


@pytest.mark.parametrize("diversity", ["best", float("nan"), 1e7, HUGE, True, [4], b"low"])
def test_what_is_no_diversity_is_refused(session, diversity):
    with pytest.raises(InputError, match="diversity must be low, mid, high or a number"):
        session.complete(IMG, MASK, diversity=diversity)


def test_other_kinds_have_no_diversity(tmp_path):
    other = tiny_pyramid.write(tmp_path / "picme", tiny_engines.make(z_m=True).files)
    for name in (other, "patch"):
        with (
            picme_rt.Session(name) as session,
            pytest.raises(InputError, match="diversity must be left out but for engines of kind"),
        ):
            session.complete(IMG, MASK, k=1, diversity="low")


@pytest.mark.parametrize("options", [{"primitive": 0}, {"mode": "per_primitive"}])
def test_primitives_are_of_other_kinds(session, options):
    with pytest.raises(InputError, match="have no primitives"):
        session.complete(IMG, MASK, **options)


def test_another_picture_is_refused_and_both_are_named(session):
    other = IMG.copy()
    other[0, 0, 0] ^= 1
    named = rf"trained on, of fingerprint {pyramid.fingerprint(IMG, MASK > 0)[:12]}, got "
    with pytest.raises(InputError, match=named + pyramid.fingerprint(other, MASK > 0)[:12]):
        session.complete(other, MASK)
    with pytest.raises(InputError, match="tiny was trained on, 24 x 30 pixels, got 23 x 30"):
        session.complete(IMG[:23], MASK[:23])


def test_a_mask_that_leaves_the_hole_is_refused(session):
    larger = MASK.copy()
    larger[7, 10] = larger[0, 0] = 1
    with pytest.raises(InputError, match="got 2 pixels outside of its 80"):
        session.complete(IMG, larger)
    with pytest.raises(InputError, match="mask must lie inside of the hole"):
        session.complete(IMG, np.ones_like(MASK))


def test_a_smaller_mask_is_filled_alone_and_its_bytes_are_not_read(session, smaller):
    done = session.complete(IMG, smaller, k=3, diversity="high").images
    assert (done[:, smaller == 0] == IMG[smaller == 0]).all()
    assert done[:, smaller > 0].std(0).mean() > 1
    other = IMG.copy()
    other[smaller > 0] = 255
    assert (session.complete(other, smaller, k=3, diversity="high").images == done).all()


def test_an_empty_mask_returns_copies(session):
    assert (session.complete(IMG, np.zeros_like(MASK), k=2).images == IMG).all()


def test_noise_is_that_of_seed_index_and_scale(path):
    """A result is what the graph makes of `kernels.normal`, whoever asks for it."""
    with picme_rt.Session(path) as session:
        engine, backend = session._model._engine, session._model.loaded()
        noises = [
            kernels.normal(np.array([9], np.uint64), t.shape, k=1, first=5, place=1 + i)[0, 0]
            for i, t in enumerate(t for t in engine.table.inputs if t.batched)
        ]
        target = IMG.copy()
        frame = pyramid_frame.frame(engine, IMG, MASK > 0)
        pyramid_frame.paste(frame, backend(noises, 2.0), target)
        done = session.encode(IMG, MASK).complete(k=2, seed=9, first=4, diversity=2)
        assert (done.images[1] == target).all()
        assert list(done.indices) == [4, 5]


@pytest.mark.parametrize(("backend", "precision"), PYRAMIDS)
def test_backends_agree(path, session, backend, precision):
    expected = session.complete(IMG, MASK, k=2, diversity="high").images.astype(int)
    with picme_rt.Session(path, backend=backend, precision=precision) as other:
        done = other.complete(IMG, MASK, k=2, diversity="high").images
        assert other.info.backend == backend
    assert np.abs(done - expected).max() <= (1 if precision == "fp32" else 12)


def test_info_says_what_it_is(session, path):
    info = session.info
    assert (info.engine, info.name, info.picture) == (str(path), "tiny", (24, 30))
    assert (info.primitives, info.latent, info.device) == (0, 0, "cpu")
    assert set(info.sha256) == {"fp32/pyramid.onnx", "hole.bits"}


def test_a_closed_session_says_so(path):
    session = picme_rt.Session(path)
    encoded = session.encode(IMG, MASK)
    session.close()
    for ask in (
        lambda: session.complete(IMG, MASK),
        lambda: session.info,
        lambda: encoded.complete(k=1),
        lambda: encoded.stream(k=1),
        lambda: session.complete_batch([], []),
    ):
        with pytest.raises(ClosedError, match="this session is closed"):
            ask()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "device of an engine of kind 'idc' must be one of"),
        ({"backend": "patch"}, "backend of an engine of kind 'idc' must be one of"),
        ({"precision": "int8"}, "precision must be one of"),
    ],
)
def test_what_runs_no_pyramid_is_refused(path, options, message):
    with pytest.raises(InputError, match=message):
        picme_rt.Session(path, **options)


ENTRIES = {
    "picture": ([24, 29], "fall"),
    "sizes": ([[12, 15]], "a window a scale"),
    "windows": ([[0, 0, 12, 15], [0, 0, 24, 31]], "must be inside of"),
    "fingerprint": ("x", "must be a sha256"),
    "hole": ("other", "must be one of the files"),
    "variants": ({"fp32": {"encoder": "hole.bits"}}, "needs the files of pyramid"),
    "name": (3, "must be a text"),
    "provenance": ([], "must be an object"),
    "tensors": ({}, "names other tensors"),
    "kind": ("picme", "lacks or garbles an entry"),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_manifest_that_is_wrong_is_refused(tmp_path, entry):
    value, message = ENTRIES[entry]
    files = tiny_pyramid.make().files
    content = json.loads(files["engine.json"])
    files["engine.json"] = json.dumps(content | {entry: value}).encode()
    with pytest.raises(EngineError, match=message):
        picme_rt.Session(tiny_pyramid.write(tmp_path / "e", files))


def test_a_hole_that_the_window_leaves_out_is_refused(tmp_path):
    made = tiny_pyramid.make()
    hole = np.zeros((24, 30), bool)
    hole[4, 10] = True
    contents = {n: c for n, c in made.files.items() if n != "engine.json"}
    for number, (bits, message) in enumerate(
        (
            (np.packbits(hole).tobytes(), r"must hold its hole, got 1 places"),
            (bytes(90), "must hold a hole, got none"),
            (b"\xff" * 91, "must have 90 bytes, a bit a pixel, got 91"),
        )
    ):
        contents["hole.bits"] = bits
        signed = tiny_pyramid.signed(made.engine, contents)
        place = tiny_pyramid.write(tmp_path / str(number), contents | {"engine.json": signed})
        with pytest.raises(EngineError, match=message):
            picme_rt.Session(place)


def test_a_damaged_graph_is_refused(tmp_path):
    files = tiny_pyramid.make().files
    files["fp32/pyramid.onnx"] = files["fp32/pyramid.onnx"][:-1] + b"!"
    with pytest.raises(EngineError, match="its sha256 is not the one"):
        picme_rt.Session(tiny_pyramid.write(tmp_path / "e", files))

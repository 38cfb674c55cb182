"""The public contract, held by a tiny engine and by every engine of the repository."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_pyramid
from cpu_backends import PYRAMIDS
from PIL import Image

import picme_rt

SHIPPED = sorted(p for p in (Path(__file__).parents[1] / "engines").glob("*") if p.is_dir())


@pytest.fixture(
    scope="module", params=["tiny", "idc", *SHIPPED], ids=lambda p: getattr(p, "name", p)
)
def engine(request, exported, tmp_path_factory):
    if request.param == "idc":
        files = tiny_pyramid.make().files
        return tiny_pyramid.write(tmp_path_factory.mktemp("contract") / "idc", files)
    return exported("picme").path if request.param == "tiny" else request.param


@pytest.fixture(
    scope="module",
    params=[("auto", "auto"), PYRAMIDS[-1]],
    ids="-".join,
)
def session(engine, request):
    backend, precision = request.param
    with picme_rt.Session(engine, backend=backend, precision=precision) as opened:
        yield opened


@pytest.fixture
def picture(session, picture):
    """An engine of one picture takes that one alone."""
    return tiny_pyramid.picture() if session.info.picture else picture


@pytest.fixture
def ask(session):
    """How results differ most: the tiny hole of `idc` is all within `mid` of what is known."""
    return {"diversity": "high"} if session.info.picture else {}


def test_importing_loads_no_framework():
    code = (
        "import sys, picme_rt; print([m for m in ('torch', 'onnxruntime', 'openvino', "
        "'tensorrt', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_after_the_arrays_is_keyword_only():
    kinds = [p.kind for p in inspect.signature(picme_rt.Session.complete).parameters.values()]
    assert kinds[:3].count(inspect.Parameter.POSITIONAL_OR_KEYWORD) == 3
    assert set(kinds[3:]) == {inspect.Parameter.KEYWORD_ONLY}


def test_six_results_by_default_and_known_pixels_are_exact(session, picture):
    image, mask = picture
    done = session.complete(image, mask)
    assert done.images.shape == (6, *image.shape)
    assert done.images.dtype == np.uint8
    assert (done.images[:, mask == 0] == image[mask == 0]).all()
    assert len(done.indices) == 6
    if session.info.primitives == 0:  # this kind has no mixture
        assert done.primitives is None
        assert done.log_prob is None
    else:
        assert len(done.primitives) == len(done.log_prob) == 6


def test_result_i_depends_on_seed_and_i_alone(session, picture, ask):
    image, mask = picture
    six = session.complete(image, mask, k=6, seed=3, **ask).images
    assert (session.complete(image, mask, k=9, seed=3, **ask).images[:6] == six).all()
    encoded = session.encode(image, mask)
    assert (encoded.complete(k=3, seed=3, first=3, **ask).images == six[3:]).all()
    other = (image, mask // 2) if session.info.picture else (image[:, ::-1], mask[:, ::-1])
    pair = session.complete_batch(*zip((image, mask), other, strict=True), k=6, seed=3, **ask)
    assert (pair[0].images == six).all()
    streamed = [one.image for one in session.stream(image, mask, k=6, seed=3, **ask)]
    assert (np.stack(streamed) == six).all()
    assert not (session.complete(image, mask, k=6, seed=4, **ask).images == six).all()


def test_bytes_under_the_hole_change_nothing(session, picture):
    image, mask = picture
    other = image.copy()
    other[mask > 0] = np.random.default_rng(0).integers(0, 256, other[mask > 0].shape)
    first = session.complete(image, mask, k=2, seed=1).images
    assert (session.complete(other, mask, k=2, seed=1).images == first).all()


def test_the_mask_may_be_bool_or_0_1_or_0_255(session, picture):
    image, mask = picture
    first = session.complete(image, mask, k=2).images
    for same in (mask > 0, mask // 255, mask.astype(np.int32)):
        assert (session.complete(image, same, k=2).images == first).all()


def test_modes_choose_the_primitives(session, picture):
    image, mask = picture
    mean = session.complete(image, mask, k=2, mode="mean").images
    assert (mean[0] == mean[1]).all()
    primitives = session.info.primitives
    if primitives == 0:
        return
    done = session.complete(image, mask, k=primitives + 1, mode="per_primitive")
    assert list(done.primitives) == [*range(primitives), 0]
    last = primitives - 1
    assert set(session.complete(image, mask, k=4, primitive=last).primitives) == {last}


def test_an_empty_mask_returns_copies(session, picture):
    image, mask = picture
    assert (session.complete(image, np.zeros_like(mask), k=2).images == image).all()


BAD = {
    "no_image": (lambda img, mask: (None, mask), {}),
    "two_channels": (lambda img, mask: (img[..., :2], mask), {}),
    "other_size": (lambda img, mask: (img, mask[:-1]), {}),
    "nan_image": (lambda img, mask: (np.full(img.shape, np.nan), mask), {}),
    "nan_mask": (lambda img, mask: (img, np.full(mask.shape, np.nan)), {}),
    "k0": (lambda img, mask: (img, mask), {"k": 0}),
    "mode": (lambda img, mask: (img, mask), {"mode": "best"}),
    "primitive": (lambda img, mask: (img, mask), {"primitive": 10**6}),
    "seed": (lambda img, mask: (img, mask), {"seed": -1}),
    "too_many": (lambda img, mask: (img, mask), {"k": 10**7}),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_refused_with_one_clear_error(session, picture, bad):
    arrays, options = BAD[bad]
    with pytest.raises(picme_rt.PicmeError) as caught:
        session.complete(*arrays(*picture), **options)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) > 15


def test_a_missing_or_damaged_engine_is_refused(engine, tmp_path):
    with pytest.raises(picme_rt.PicmeError):
        picme_rt.Session(tmp_path / "nothing")
    for source in engine.iterdir():
        if source.is_file():
            (tmp_path / source.name).write_bytes(source.read_bytes()[:-7])
    with pytest.raises(picme_rt.PicmeError):
        picme_rt.Session(tmp_path)


def test_a_pil_picture_and_mask_are_taken(session, picture):
    image, mask = picture
    pil = Image.fromarray(image), Image.fromarray(mask)
    assert (session.complete(*pil, k=1).images == session.complete(image, mask, k=1).images).all()


def test_a_closed_session_says_so(engine, session, picture):
    opened = picme_rt.Session(engine)
    opened.close()
    with pytest.raises(picme_rt.PicmeError):
        opened.complete(*picture)


def test_the_sampler_is_public_and_native_equals_the_reference():
    rng = np.random.default_rng(11)
    log_alpha = np.log(rng.dirichlet(np.ones(5), 3)).astype(np.float32)
    mu, log_sigma = rng.normal(size=(2, 3, 5, 257)).astype(np.float32)
    arrays = log_alpha, mu, log_sigma, np.arange(3, dtype=np.uint64) + 5
    ref = picme_rt.kernels.sample_gmm(*arrays, k=7, impl="ref")
    part = picme_rt.kernels.sample_gmm(*arrays, k=3, first=4, impl="ref")
    assert ref.z.shape == (3, 7, 257)
    assert ref.z.dtype == np.float32
    assert (part.z == ref.z[:, 4:]).all()
    native = picme_rt.kernels.sample_gmm(*arrays, k=7, impl="native")
    assert (native.z == ref.z).all()
    assert (native.primitive == ref.primitive).all()
    np.testing.assert_allclose(native.log_prob, ref.log_prob, rtol=1e-5)

"""What a session is given by mistake: one clear error of ours, or a defined result."""

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import picme_rt
from picme_rt.errors import ClosedError, InputError

IMG = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
MASK = np.zeros((20, 30), np.uint8)
MASK[4:15, 6:20] = 255


class Failing:
    """An array of a library that cannot give its values, as a tensor on a GPU."""

    def __array__(self, *arguments, **options):
        raise RuntimeError("move it to the host first")


PICTURES = {
    "no array": (None, "must be an array or a PIL image"),
    "a file's name": ("cat.png", "open a file first"),
    "an array that gives no values": (Failing(), "move it to the host first"),
    "a tensor with gradients": (torch.zeros(20, 30, 3, requires_grad=True), "detach"),
    "16 bits": (IMG.astype(np.uint16), "must be uint8"),
    "values in 0 to 1": (IMG / 255, "(img * 255).round()"),
    "NaN": (np.full((20, 30, 3), np.nan), "must be uint8"),
    "grey": (IMG[..., 0], "must be (H, W, 3) RGB"),
    "RGBA": (np.dstack([IMG, IMG[..., :1]]), "drop an alpha channel"),
    "a PIL image with transparent pixels": (Pillow.new("RGBA", (30, 20)), "img.convert('RGB')"),
    "channels first": (IMG.transpose(2, 0, 1), "must be (H, W, 3) RGB"),
    "a batch": (IMG[None], "must be (H, W, 3) RGB"),
    "nothing": (IMG[:0], "must be (H, W, 3) RGB"),
}


def refused_at_every_entry(session, img, mask):
    """What each entry says of a picture and its mask."""
    for call in (
        lambda: session.complete(img, mask),
        lambda: session.encode(img, mask),
        lambda: session.stream(img, mask),
        lambda: session.complete_batch([IMG, img], [MASK, mask]),
    ):
        with pytest.raises(InputError) as caught:
            call()
        yield str(caught.value)


@pytest.mark.parametrize("case", PICTURES.values(), ids=PICTURES)
def test_a_picture_that_is_none_is_one_error_at_every_entry(session, case):
    img, says = case
    for message in refused_at_every_entry(session, img, MASK):
        assert message.startswith("img must")
        assert says in message


MASKS = {
    "no array": (None, "must be an array or a PIL image"),
    "a tensor with gradients": (torch.ones(20, 30, requires_grad=True), "detach"),
    "another size": (MASK[:-1], "height and width of img, (20, 30), got shape (19, 30)"),
    "three channels": (IMG, "height and width of img, (20, 30), got shape (20, 30, 3)"),
    "NaN": (np.full((20, 30), np.nan), "must be finite"),
    "complex": (MASK.astype(complex), "must be bool, integers or floats"),
}


@pytest.mark.parametrize("case", MASKS.values(), ids=MASKS)
def test_a_mask_that_is_none_is_one_error_at_every_entry(session, case):
    mask, says = case
    for message in refused_at_every_entry(session, IMG, mask):
        assert message.startswith("mask must")
        assert says in message


@pytest.mark.parametrize("mode", ["best", None, 3, [], np.array(["mean", "categorical"])])
def test_an_unknown_mode_is_one_error(session, mode):
    with pytest.raises(InputError, match="mode must be one of categorical, per_primitive, mean"):
        session.complete(IMG, MASK, mode=mode)


@pytest.mark.parametrize("k", [0, -1, 1.5, "6", None, True, np.array([2]), 10**12, 2**70])
def test_a_k_that_is_none_is_one_error(session, k):
    for call in (session.complete, session.encode(IMG, MASK).complete):
        with pytest.raises(InputError, match=r"k (must be|= \d+ results would take)"):
            call(*((IMG, MASK) if call == session.complete else ()), k=k)
    with pytest.raises(InputError, match="k must be"):
        session.stream(IMG, MASK, k=k if k != 10**12 else 0)


def test_a_batch_is_of_lists(session):
    for imgs, masks in ((None, None), (5, [MASK]), ((i for i in [IMG]), [MASK]), ([IMG], {})):
        with pytest.raises(InputError, match=r"(imgs|masks) must be a list of pictures, got"):
            session.complete_batch(imgs, masks)
    with pytest.raises(InputError, match="must be of one length, got 1, 2 and 1"):
        session.complete_batch([IMG], [MASK, MASK])
    with pytest.raises(InputError, match="of one length, got 1, 1 and 2"):
        session.complete_batch([IMG], [MASK], seed=[1, 2])
    for seed in ("a", [0.5], None, [-1]):
        with pytest.raises(InputError, match="seed must be an integer"):
            session.complete_batch([IMG], [MASK], seed=seed)
    assert session.complete_batch([], []) == []


def test_a_session_takes_a_path(engine):
    for path in (None, 5, b"engines", ["a"]):
        with pytest.raises(InputError, match="engine must be the path of a directory"):
            picme_rt.Session(path)
    for option in ("device", "backend", "precision"):
        for value in ("abacus", None, 3, []):
            with pytest.raises(InputError, match=f"{option} must be one of"):
                picme_rt.Session(engine, **{option: value})


def test_a_closed_session_says_so_at_every_entry(engine):
    session = picme_rt.Session(engine)
    encoded = session.encode(IMG, MASK)
    begun = encoded.stream(k=3)
    next(begun)
    session.close()
    session.close()
    for call in (
        lambda: session.complete(IMG, MASK),
        lambda: session.stream(IMG, MASK),
        lambda: session.encode(IMG, MASK),
        lambda: session.complete_batch([IMG], [MASK]),
        lambda: session.complete_batch([], []),
        lambda: session.info,
        session.__enter__,
        encoded.complete,
        encoded.stream,
    ):
        with pytest.raises(ClosedError, match="this session is closed; open another one"):
            call()


def test_what_other_libraries_call_an_array_is_one(session):
    expected = session.complete(IMG, MASK, k=1).images
    for img in (torch.from_numpy(IMG), np.ma.array(IMG), memoryview(IMG), np.asfortranarray(IMG)):
        for mask in (torch.from_numpy(MASK) > 0, MASK[..., None], np.asfortranarray(MASK)):
            assert (session.complete(img, mask, k=1).images == expected).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3)])
@pytest.mark.parametrize("full", [False, True])
def test_the_smallest_pictures_and_an_empty_or_full_mask_have_a_result(session, shape, full):
    img = np.full((*shape, 3), 77, np.uint8)
    done = session.complete(img, np.full(shape, full), k=2)
    assert done.images.shape == (2, *shape, 3)
    if not full:
        assert (done.images == 77).all()
        assert done.primitives is None


def test_fifty_megapixels_take_little_more_than_the_picture_and_its_result(session):
    img = np.full((7000, 7200, 3), 90, np.uint8)
    mask = np.zeros((7000, 7200), bool)
    mask[2000:5000, 2000:5000] = True
    tracemalloc.start()
    try:
        done = session.complete(img, mask, k=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (done.images[0][~mask] == 90).all()
    assert (done.images[0][mask] != 90).any()
    assert peak < 3 * img.nbytes  # the result, the copy that `encode` keeps, the mask, a strip

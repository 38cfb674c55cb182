"""A session completes pictures: what it promises about bits, sizes, modes and errors."""

import copy
import dataclasses
import hashlib
import itertools
import math
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import picme_rt
from picme_rt import backends, choices, composite, encoded, framing, kernels
from picme_rt import engine as engines
from picme_rt.errors import ClosedError, EngineError, InputError

LAST_SEED = 2**64 - 1


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def hole_at(shape, rows, columns):
    hole = np.zeros(shape[:2], bool)
    hole[rows, columns] = True
    return hole


@pytest.fixture(scope="module")
def picture(picture):
    """Its hole and little more, which is enough here and completes faster."""
    return tuple(array[80:200, 50:180].copy() for array in picture)


SHAPES = {
    "tall": (150, 40, np.s_[60:80], np.s_[10:30]),
    "wide": (40, 150, np.s_[10:30], np.s_[60:80]),
    "smaller than the engine": (30, 20, np.s_[10:20], np.s_[5:12]),
    "of the engine's size": (64, 64, np.s_[20:40], np.s_[20:40]),
    "odd": (97, 131, np.s_[33:70], np.s_[1:50]),
    "hole of one pixel": (100, 90, np.s_[50], np.s_[40]),
    "hole in a corner": (100, 90, np.s_[:30], np.s_[60:]),
    "hole along all borders": (80, 90, np.r_[0:5, 75:80], np.s_[:]),
    "hole wider than the picture is high": (40, 150, np.s_[10:20], np.s_[5:140]),
    "all hole": (70, 50, np.s_[:], np.s_[:]),
    "one row": (1, 90, np.s_[:], np.s_[40:50]),
    "one pixel": (1, 1, np.s_[:], np.s_[:]),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_known_pixels_come_back_bit_exact_at_any_size(session, shape):
    height, width, rows, columns = shape
    image, hole = noise(height, width), hole_at((height, width), rows, columns)
    done = session.complete(image, hole, k=2)
    assert done.images.shape == (2, *image.shape)
    assert (done.images[:, ~hole] == image[~hole]).all()


def test_the_hole_of_each_result_is_filled_in_its_own_way(session, picture):
    image, mask = picture
    done = session.complete(image, mask, k=3).images
    for one, other in itertools.combinations(done, 2):
        assert (one != other)[mask > 0].mean() > 0.5


def test_a_result_does_not_depend_on_how_it_was_asked_for(session, picture):
    image, mask = picture
    want = session.complete(image, mask, k=8, seed=5)
    prepared = session.encode(image, mask)
    for first, k in ((0, 1), (3, 2), (5, 3)):
        part = prepared.complete(k=k, seed=5, first=first)
        assert list(part.indices) == list(range(first, first + k))
        for name, values in part._asdict().items():
            assert (values == getattr(want, name)[first : first + k]).all(), name
    for one in prepared.stream(k=2, seed=5, first=4):
        assert (one.image == want.images[one.index]).all()
        assert one.primitive == want.primitives[one.index]
        assert one.log_prob == want.log_prob[one.index]


def test_threads_that_share_a_session_get_the_same_bits(session, picture):
    image, mask = picture
    cases = [(image, mask), (image[:, ::-1], mask[:, ::-1])]
    want = [session.complete(*case, k=2, seed=1).images for case in cases]
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            (i % 2, pool.submit(session.complete, *cases[i % 2], k=2, seed=1)) for i in range(8)
        ]
        for case, job in jobs:
            assert (job.result().images == want[case]).all()


@pytest.mark.parametrize("threads", [1, np.int64(2), 3])
def test_a_session_computes_with_the_threads_it_was_asked_for(engine, session, picture, threads):
    with picme_rt.Session(engine, threads=threads) as opened:
        assert (opened.info.threads, opened.info.chosen_by) == (threads, "default")
        difference = opened.complete(*picture, k=1).images - session.complete(*picture, k=1).images
    assert ((difference == 0) | (difference == 1) | (difference == 255)).all()  # modulo 256


def test_a_new_session_gives_the_same_bits(engine, session, picture):
    with picme_rt.Session(engine) as other:
        assert (
            other.complete(*picture, k=1).images == session.complete(*picture, k=1).images
        ).all()


def test_the_last_of_all_indices_and_seeds_can_be_asked_for(session, picture):
    prepared = session.encode(*picture)
    done = prepared.complete(k=1, seed=LAST_SEED, first=2**32 - 1)
    assert list(done.indices) == [2**32 - 1]
    assert not (done.images == prepared.complete(k=1, seed=0, first=2**32 - 1).images).all()


def test_a_batch_is_its_pictures_one_by_one(session):
    images = [noise(50, 70, 1), noise(64, 64, 2), noise(90, 30, 3)]
    holes = [hole_at(image.shape, np.s_[10:30], np.s_[5:20]) for image in images]
    holes[2][:] = False
    for seed, seeds in ((4, [4, 4, 4]), ([7, LAST_SEED, 0], [7, LAST_SEED, 0])):
        found = session.complete_batch(images, holes, k=2, seed=seed)
        for image, hole, one, got in zip(images, holes, seeds, found, strict=True):
            want = session.complete(image, hole, k=2, seed=one)
            assert (got.images == want.images).all()
    (got,) = session.complete_batch(images[:1], holes[:1], k=2, seed=np.array(7))
    assert (got.images == session.complete(images[0], holes[0], k=2, seed=7).images).all()
    assert session.complete_batch([], []) == []
    stacked = session.complete_batch(np.stack([images[1]] * 2), np.stack([holes[1]] * 2), k=1)
    assert len(stacked) == 2


def test_two_pictures_of_a_batch_are_in_work_at_once(session, monkeypatch):
    encode, together = picme_rt.Session.encode, threading.Barrier(2)

    def encode_both(*arguments):
        together.wait(30)  # breaks unless another picture comes as far
        return encode(*arguments)

    monkeypatch.setattr(choices, "cores", lambda: 2)
    monkeypatch.setattr(picme_rt.Session, "encode", encode_both)
    image = noise(50, 70)
    found = session.complete_batch([image] * 4, [hole_at(image.shape, 3, 3)] * 4, k=2)
    assert [len(one.images) for one in found] == [2] * 4


def test_the_first_bad_picture_of_a_batch_is_named(session, monkeypatch):
    monkeypatch.setattr(choices, "cores", lambda: 2)
    image = noise(50, 70)
    masks = [np.zeros((50, 70)), np.zeros((50, 71)), np.zeros((50, 72)), np.zeros((50, 70))]
    for _ in range(5):
        with pytest.raises(InputError, match=r"got shape \(50, 71\)"):
            session.complete_batch([image] * 4, masks, k=1)
    assert not [thread for thread in threading.enumerate() if thread.name == "picme_rt"]


@pytest.mark.parametrize("seed", [[1], [1, 2, 3], 1.5, None, "12", [0.5, 1], np.zeros(3, int)])
def test_a_batch_refuses_seeds_that_are_not_one_a_picture(session, seed):
    image = noise(20, 20)
    hole = hole_at(image.shape, 3, 3)
    with pytest.raises(InputError, match="seed"):
        session.complete_batch([image] * 2, [hole] * 2, seed=seed)


def test_an_empty_mask_gives_copies_without_statistics(session):
    image = noise(20, 30)
    done = session.complete(image, np.zeros((20, 30)), k=3)
    assert (done.images == image).all()
    assert list(done.indices) == [0, 1, 2]
    assert done.primitives is None
    assert done.log_prob is None
    assert not np.shares_memory(done.images, image)
    (one,) = session.stream(image, np.zeros((20, 30)), k=1)
    assert one.primitive is None
    assert one.log_prob is None


def test_pil_images_are_read(session, picture):
    image, mask = picture
    want = session.complete(image, mask, k=1).images
    pil = Pillow.fromarray(image), Pillow.fromarray(mask)
    assert (session.complete(*pil, k=1).images == want).all()
    assert (session.complete(pil[0].convert("RGBA"), pil[1].convert("1"), k=1).images == want).all()


def test_arrays_of_any_layout_are_read(session, picture):
    image, mask = picture
    want = session.complete(image, mask, k=1).images
    wide = np.zeros((*image.shape[:2], 6), np.uint8)
    wide[..., ::-2] = image
    frozen = image.copy(), mask.copy()
    for array in frozen:
        array.setflags(write=False)
    for same in (
        (np.asfortranarray(image), np.asfortranarray(mask)),
        (wide[..., ::-2], mask[::-1][::-1]),
        frozen,
        (image, mask.astype(np.float64) / 3),
        (image, mask[..., None]),
    ):
        assert (session.complete(*same, k=1).images == want).all()


def test_the_arrays_that_come_in_are_never_written_or_kept(session, picture):
    image, mask = (array.copy() for array in picture)
    prepared = session.encode(image, mask)
    want = prepared.complete(k=1).images
    assert (image == picture[0]).all()
    assert (mask == picture[1]).all()
    image[:], mask[:] = 0, 0
    assert (prepared.complete(k=1).images == want).all()
    want[:] = 0
    assert prepared.complete(k=1).images.any()


def test_the_hole_beyond_the_square_of_an_aligned_engine_is_filled_too(session):
    image = np.full((40, 200, 3), 255, np.uint8)
    hole = hole_at(image.shape, np.s_[10:30], np.r_[2:12, 180:195])
    done = session.complete(image, hole, k=1).images[0]
    assert (done[hole] != 255).any(axis=-1).mean() > 0.9


def test_far_apart_holes_of_a_free_engine_are_completed_apart(free_engine):
    image = noise(300, 600)
    hole = hole_at(image.shape, np.s_[100:120], np.r_[20:40, 560:580])
    with picme_rt.Session(free_engine) as free:
        assert free.info.framing == "free"
        done = free.complete(image, hole, k=2, seed=3)
        left, right = hole.copy(), hole.copy()
        left[:, 300:], right[:, :300] = False, False
        apart = [free.complete(image, one, k=2, seed=3) for one in (left, right)]
    assert (done.images[:, ~hole] == image[~hole]).all()
    for part, one in zip((left, right), apart, strict=True):
        assert (done.images[:, part] == one.images[:, part]).all()
    np.testing.assert_allclose(done.log_prob, apart[0].log_prob + apart[1].log_prob, rtol=1e-6)


def test_an_engine_without_z_m_completes(exported, picture):
    image, mask = picture
    with picme_rt.Session(exported("pic").path) as pic:
        done = pic.complete(image, mask, k=2)
    assert set(done.primitives) == {0}
    assert (done.images[:, mask == 0] == image[mask == 0]).all()
    assert (done.images[0] != done.images[1])[mask > 0].mean() > 0.3


def test_info_says_what_is_true(session, engine):
    info = session.info
    assert (info.engine, info.name, info.framing) == (str(engine), "cats", "aligned")
    assert (info.backend, info.device, info.precision) == ("onnxruntime", "cpu", "fp32")
    assert (info.chosen_by, info.threads) == ("default", choices.cores())
    assert (info.size, info.primitives, info.latent) == (64, 6, 128)
    assert info.micro_batch >= 1
    assert info.sampler == ("native" if kernels.native_is_built() else "ref")
    assert info.composite == info.sampler
    assert info.provenance["licence"] == "CC0"
    assert set(info.sha256) == {"fp32/encoder.onnx", "fp32/decoder.onnx"}
    for name, digest in info.sha256.items():
        assert hashlib.sha256((engine / name).read_bytes()).hexdigest() == digest
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.name = "other"


def test_per_primitive_gives_result_i_primitive_i_mod_p(session, picture):
    want = session.complete(*picture, k=8, mode="per_primitive")
    assert list(want.primitives) == [0, 1, 2, 3, 4, 5, 0, 1]
    one = session.complete(*picture, k=3, primitive=2)
    assert (one.images[2] == want.images[2]).all()  # the noise of i is the same


def test_temperature_0_gives_the_mean_of_the_primitive(session, picture):
    prepared = session.encode(*picture)
    cold = prepared.complete(k=3, primitive=4, temperature=0)
    assert (cold.images == cold.images[0]).all()
    other = prepared.complete(k=6, mode="per_primitive", temperature=0, seed=9)
    assert (other.images[4] == cold.images[0]).all()
    mean = prepared.complete(k=2, mode="mean")
    assert (mean.images == other.images[mean.primitives[0]]).all()


def test_temperature_scales_how_far_results_are_from_the_mean(session, picture):
    prepared, inside = session.encode(*picture), picture[1] > 0
    mean, little, much = (
        prepared.complete(k=1, primitive=0, temperature=t).images[0].astype(int)
        for t in (0, 0.1, 1)
    )
    assert 0 < np.abs(little - mean)[inside].mean() < np.abs(much - mean)[inside].mean()


def test_a_result_is_the_decoders_picture_of_its_latent_and_log_prob_its_density(engine, picture):
    """The way through the session, walked by hand, with Eq. 3 in float64."""
    image, mask = picture
    loaded = engines.load(engine)
    backend = backends.load(loaded, backends.defaults("onnxruntime", "fp32"))
    (region,) = framing.regions(mask > 0, 64, "aligned")
    fitted = composite.fit(image, mask > 0, region, 64)
    values = backend.encode(fitted.image[None], fitted.hole[None])
    log_alpha, mu, log_sigma = (values[name] for name in ("log_alpha", "mu", "log_sigma"))
    seeds = np.array([3], np.uint64)
    z = kernels.sample_gmm(log_alpha, mu, log_sigma, seeds, k=2, impl="ref").z[0]
    decode = backend.decoding({**values, "hole": fitted.hole[None]})
    canvas = composite.canvas(fitted, mask > 0, region)
    pictures = [decode(z[[i] * backend.micro_batch])[0].copy() for i in range(2)]
    want = kernels.composite(np.stack(pictures)[None], image[None], [canvas], impl="ref")[0]
    decode.close()
    with pytest.raises(ClosedError):
        decode(z[:1])

    with picme_rt.Session(engine) as opened:
        done = opened.complete(image, mask, k=2, seed=3)
    assert (done.images == want).all()
    sigma = np.exp(log_sigma[0].astype(np.float64))
    scaled = (z[:, None].astype(np.float64) - mu[0]) / sigma  # (k, P, D)
    log_n = -0.5 * (scaled**2 + math.log(2 * math.pi)).sum(-1) - np.log(sigma).sum(-1)
    np.testing.assert_allclose(np.exp(log_alpha[0]).sum(), 1, rtol=1e-5)
    expected = np.logaddexp.reduce(log_alpha[0] + log_n, axis=-1)
    np.testing.assert_allclose(done.log_prob, expected, rtol=1e-5)


def test_numpy_integers_count_as_integers(session, picture):
    want = session.encode(*picture).complete(k=3, seed=5, first=254).images
    small = session.encode(*picture).complete(k=np.uint8(3), seed=np.int8(5), first=np.uint8(254))
    assert (small.images == want).all()
    assert session.complete(*picture, k=np.uint8(1)).images.shape[0] == 1
    batch = session.complete_batch([picture[0]], [picture[1]], k=np.int16(1), seed=np.uint64(5))
    assert len(batch[0].images) == 1


@pytest.mark.parametrize("k", [10**7, 2**62, np.int32(10**7), np.int64(2**62)])
def test_a_k_that_would_not_fit_is_refused_before_memory_is_taken(session, picture, k):
    prepared = session.encode(*picture)
    for ask in (lambda: session.complete(*picture, k=k), lambda: prepared.complete(k=k)):
        with pytest.raises(InputError, match=r"GiB.*stream"):
            ask()


def test_stream_has_no_such_limit(session, picture):
    assert 10**7 * picture[0].size > encoded.RESULT_BYTES
    results = session.stream(*picture, k=2**32)
    assert next(results).index == 0
    results.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"k": -1}, "k must be an integer from 1 to"),
        ({"k": 2.0}, "k must be"),
        ({"k": True}, "k must be"),
        ({"k": "6"}, "k must be"),
        ({"seed": 2**64}, "seed must be an integer from 0 to"),
        ({"seed": 0.5}, "seed must be"),
        ({"primitive": 6}, "primitive must be"),
        ({"primitive": -1}, "primitive must be"),
        ({"primitive": 1, "mode": "mean"}, "primitive must be None"),
        ({"mode": None}, "mode must be one of"),
        ({"temperature": -0.1}, "temperature must be"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"temperature": math.inf}, "temperature must be"),
        ({"temperature": "hot"}, "temperature must be"),
    ],
)
def test_a_bad_option_is_named_before_the_first_result(session, picture, options, says):
    with pytest.raises(InputError, match=says):
        session.complete(*picture, **options)
    with pytest.raises(InputError, match=says):
        session.stream(*picture, **options)


def test_first_must_leave_room_for_k(session, picture):
    prepared = session.encode(*picture)
    with pytest.raises(InputError, match=r"first \+ k must be at most 2\*\*32"):
        prepared.complete(k=2, first=2**32 - 1)
    with pytest.raises(InputError, match="first must be"):
        prepared.complete(first=-1)


def test_a_closed_session_refuses_everything(engine, picture):
    with picme_rt.Session(engine) as opened:
        prepared = opened.encode(*picture)
        running = opened.stream(*picture, k=2)
        next(running)
    opened.close()  # twice is allowed
    for ask in (
        lambda: opened.complete(*picture),
        lambda: opened.stream(*picture),
        lambda: opened.complete_batch([picture[0]], [picture[1]]),
        lambda: opened.encode(*picture),
        lambda: opened.info,
        lambda: prepared.complete(k=1),
    ):
        with pytest.raises(ClosedError, match=r"picme_rt\.Session"):
            ask()
    assert next(running).index == 1  # what had begun may end


@pytest.mark.parametrize("name", ["device", "backend", "precision"])
def test_an_unknown_device_backend_or_precision_is_named(engine, name):
    with pytest.raises(InputError, match=f"{name} must be one of .*auto.*got 'abacus'"):
        picme_rt.Session(engine, **{name: "abacus"})


def test_names_that_auto_chose_may_be_asked_for(engine):
    with picme_rt.Session(
        str(engine), device="cpu", backend="onnxruntime", precision="fp32"
    ) as opened:
        assert opened.info.backend == "onnxruntime"


def test_an_engine_that_is_no_path_is_refused():
    with pytest.raises(InputError, match="path"):
        picme_rt.Session(None)


def test_a_graph_that_is_none_or_another_is_refused(engine, tmp_path):
    """Files whose digests are right and whose content is not."""
    loaded = engines.load(engine)
    (tmp_path / "fp32").mkdir()
    graphs = {name: (engine / name).read_bytes() for name in loaded.files}
    for content, says in (
        (dict.fromkeys(graphs, b"no graph"), "no graph of an engine"),
        (dict(zip(graphs, reversed(graphs.values()), strict=True)), "puts must be"),
    ):
        files = {name: engine_file(tmp_path / name, content[name]) for name in content}
        text = engines.manifest(dataclasses.replace(loaded, files=files))
        (tmp_path / "engine.json").write_text(text)
        with pytest.raises(EngineError, match=says):
            picme_rt.Session(tmp_path)


def engine_file(path: Path, content: bytes):
    path.write_bytes(content)
    return engines.File(hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_session_is_not_copied_and_says_what_to_do(session, send):
    with pytest.raises(TypeError, match="open one in each process, and share it between threads"):
        send(session)

"""`Session("patch")` and `--engine patch`: the same face as an engine, without one."""

import json

import numpy as np
import pytest
from PIL import Image as Pillow

import picme_rt
from picme_rt import cli
from picme_rt.errors import ClosedError, InputError


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :80]
    img = np.stack([rows * 2, columns * 2, (rows + columns) % 16 * 12], -1)
    img = (img + rng.integers(0, 40, img.shape)).astype(np.uint8)
    mask = np.zeros((60, 80), np.uint8)
    mask[20:36, 30:52] = 255
    return img, mask


def test_known_pixels_are_kept_and_result_i_depends_on_seed_and_i_alone(scene):
    img, mask = scene
    with picme_rt.Session("patch") as session:
        done = session.complete(img, mask, k=4, seed=7)
        assert done.images.shape == (4, 60, 80, 3)
        assert (done.images[:, mask == 0] == img[mask == 0]).all()
        assert done.primitives is None
        assert done.log_prob is None
        assert (done.indices == range(4)).all()
        assert len({one.tobytes() for one in done.images}) == 4
        encoded = session.encode(img, mask)
        assert encoded.mixture is None
        later = encoded.complete(k=2, first=2, seed=7)
        assert (later.images == done.images[2:]).all()
        assert (later.indices == [2, 3]).all()
        streamed = list(session.stream(img, mask, k=4, seed=7))
        assert [one.index for one in streamed] == [0, 1, 2, 3]
        assert all((a.image == b).all() for a, b in zip(streamed, done.images, strict=True))
        batch = session.complete_batch([img, img[:50]], [mask, mask[:50]], k=2, seed=[7, 8])
        assert (batch[0].images == done.images[:2]).all()
        assert (batch[1].images == session.complete(img[:50], mask[:50], k=2, seed=8).images).all()
    with picme_rt.Session("patch", threads=1) as alone:
        assert (alone.complete(img, mask, k=4, seed=7).images == done.images).all()


def test_info_says_that_there_is_no_engine():
    info = picme_rt.Session("patch").info
    assert (info.engine, info.backend, info.device) == ("patch", "patch", "cpu")
    assert (info.size, info.primitives, info.sha256) == (0, 0, {})
    assert picme_rt.Session("patch", threads=3).info.threads == 3


def test_an_empty_mask_gives_copies_and_the_mean_one_picture(scene):
    img, mask = scene
    session = picme_rt.Session("patch")
    assert (session.complete(img, np.zeros_like(mask), k=3).images == img).all()
    mean = session.complete(img, mask, k=2, mode="mean").images
    assert (mean[0] == mean[1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "per_primitive"}, "have no primitives"),
        ({"primitive": 0}, "have no primitives"),
        ({"k": 0}, "k must be"),
        ({"seed": -1}, "seed must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"mode": "best"}, "mode must be one of"),
    ],
)
def test_wrong_options_are_refused(scene, options, message):
    session = picme_rt.Session("patch")
    with pytest.raises(InputError, match=message):
        session.complete(*scene, **options)
    with pytest.raises(InputError, match=message):
        session.stream(*scene, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "device of patch mode must be one of"),
        ({"backend": "openvino"}, "backend of patch mode must be one of"),
        ({"precision": "int8"}, "precision of patch mode must be one of"),
        ({"max_wait_ms": 5}, "max_wait_ms of patch mode must be one of"),
        ({"threads": 0}, "threads must be an integer"),
    ],
)
def test_what_only_an_engine_has_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        picme_rt.Session("patch", **options)


def test_a_closed_session_says_so(scene):
    session = picme_rt.Session("patch")
    encoded = session.encode(*scene)
    session.close()
    session.close()
    for ask in (
        lambda: session.complete(*scene),
        lambda: session.info,
        lambda: encoded.complete(k=1),
        lambda: encoded.stream(k=1),
        lambda: session.complete_batch([], []),
    ):
        with pytest.raises(ClosedError, match="this session is closed"):
            ask()


def test_no_known_patch_is_an_error_of_the_picture(scene):
    img, _ = scene
    with pytest.raises(InputError, match="needs a known patch of 7 x 7"):
        picme_rt.Session("patch").complete(img, np.ones((60, 80), np.uint8))


def test_the_command_line_takes_patch_for_an_engine(scene, tmp_path, capsys):
    for name, array in zip(("img.png", "mask.png"), scene, strict=True):
        Pillow.fromarray(array).save(tmp_path / name)
    out = tmp_path / "out"
    given = [str(tmp_path / "img.png"), str(tmp_path / "mask.png"), "-o", str(out)]
    assert cli.main(["complete", *given, "--engine", "patch", "-k", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["engine"] == "patch"
    done = picme_rt.Session("patch").complete(*scene, k=2)
    for i in range(2):
        assert (np.asarray(Pillow.open(out / f"img_0{i}.png")) == done.images[i]).all()
    assert (out / "img_sheet.png").is_file()
    folder = [str(tmp_path), str(tmp_path / "mask.png"), "-o", str(tmp_path / "many")]
    assert cli.main(["complete", *folder, "--engine", "patch", "-k", "1"]) == 0
    assert (tmp_path / "many" / "img_00.png").is_file()

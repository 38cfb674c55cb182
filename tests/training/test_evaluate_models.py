import json
import shutil

import numpy as np
import pytest

from picme_rt import kernels
from picme_rt.errors import EngineError, InputError
from picme_training import checkpoint, masks
from picme_training.evaluate import models
from picme_training.networks import Picme

HOLE = masks.centre(64)


@pytest.fixture(scope="module")
def image(photographs):
    return photographs[0].permute(1, 2, 0).contiguous().numpy()


def test_a_checkpoint_completes_as_its_engine_does(saved, engine, image):
    made = []
    for model in (models.open_model(saved), models.open_model(engine)):
        assert (model.size, model.primitives) == (64, 6)
        made.append(model.encode(image, HOLE).complete(k=4, seed=5))
    one, other = made
    assert (one.primitives == other.primitives).all()
    np.testing.assert_allclose(one.log_prob, other.log_prob, rtol=1e-3)
    assert np.abs(one.images.astype(int) - other.images).max() <= 1
    assert (one.images[:, ~HOLE] == image[~HOLE]).all()


def test_a_checkpoint_completes_pictures_of_any_size(saved, engine):
    image = np.random.default_rng(0).integers(0, 256, (100, 80, 3), np.uint8)
    hole = np.zeros((100, 80), bool)
    hole[30:60, 20:50] = True
    one, other = (
        models.open_model(path).encode(image, hole).complete(k=1).images for path in (saved, engine)
    )
    assert np.abs(one.astype(int) - other).max() <= 1


def test_the_mixture_gives_the_latents_that_the_results_were_made_of(engine, image):
    encoded = models.open_model(engine).encode(image, HOLE)
    done = encoded.complete(k=8, seed=3)
    drawn = kernels.sample_gmm(*encoded.mixture, np.array([3], np.uint64), k=8)
    assert (drawn.primitive[0] == done.primitives).all()
    assert (drawn.log_prob[0] == done.log_prob).all()
    assert models.open_model(engine).encode(image, ~HOLE & HOLE).mixture is None


def test_the_best_primitive_is_known_to_a_checkpoint_alone(saved, engine, image):
    assert models.open_model(saved).best(image, HOLE) in range(6)
    assert models.open_model(saved).best(image[:50], HOLE[:50]) is None
    assert models.open_model(engine).best(image, HOLE) is None


def test_without_statistics_to_whiten_with_no_primitive_is_the_best(saved, image, tmp_path):
    """So it is with weights that were taken from an engine."""
    place = checkpoint.find(saved)
    said = checkpoint.describe(place)
    network = Picme(said.config.network)
    checkpoint.load_module(place, "ema", network)
    network.whiten.reset_running_stats()
    checkpoint.save_weights(tmp_path / "run", said, network)
    assert models.open_model(tmp_path / "run").best(image, HOLE) is None


def test_the_best_primitive_is_the_one_training_counts(saved, photographs):
    from picme_training.evaluation import evaluate

    model = models.open_model(saved)
    place = checkpoint.find(saved)
    network = Picme(checkpoint.describe(place).config.network)
    checkpoint.load_module(place, "ema", network)
    usage = evaluate(network, photographs, direction="reverse", k=2).usage
    best = [model.best(p.permute(1, 2, 0).contiguous().numpy(), HOLE) for p in photographs]
    assert np.bincount(best, minlength=6).tolist() == [round(8 * used) for used in usage]


def test_telea_keeps_the_known_and_fills_the_hole_from_its_border(image):
    flat = np.full_like(image, 90)
    flat[HOLE] = 255
    assert np.abs(models.telea(flat, HOLE).astype(int) - 90).max() <= 5
    made = models.telea(image, HOLE)
    assert (made[~HOLE] == image[~HOLE]).all()
    other = image.copy()
    other[HOLE] = 0
    assert (models.telea(other, HOLE) == made).all()


def test_what_is_no_model_is_refused(tmp_path, engine):
    with pytest.raises(InputError, match=r"must be an engine .* a checkpoint or a run"):
        models.open_model(tmp_path)
    shutil.copytree(engine, tmp_path / "other")
    manifest = json.loads((engine / "engine.json").read_text())
    (tmp_path / "other" / "engine.json").write_text(json.dumps(manifest | {"kind": "other"}))
    with pytest.raises(EngineError, match="has kind 'other', this picme_rt runs 'picme' and 'idc'"):
        models.open_model(tmp_path / "other")


def test_a_damaged_checkpoint_is_refused(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "step_00000009" / "ema.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"ema\.safetensors is damaged"):
        models.open_model(tmp_path / "run")

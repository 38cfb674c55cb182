"""A run that begins with an engine begins with the very network that was exported."""

import json
import shutil

import pytest
import torch

from picme_rt.errors import EngineError, InputError
from picme_training import data, engine_weights
from picme_training.checkpoint import describe, load_module
from picme_training.config import AugmentConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.loop import train
from picme_training.networks import Picme

NETWORK = NetworkConfig("cats", 64, 6)


@pytest.fixture(scope="module")
def shipped(exported, tmp_path_factory):
    """The tiny `cats` engine, which says of which run it is, as `picme export` writes it."""
    path = tmp_path_factory.mktemp("shipped") / "engine"
    shutil.copytree(exported("cats").path, path)
    manifest = json.loads((path / "engine.json").read_text())
    settings = RunConfig(NETWORK, ScheduleConfig(steps=1))
    manifest["provenance"] |= {
        "config": settings.to_dict(),
        "checkpoint_step": 7,
        "pictures_seen": 80,
    }
    (path / "engine.json").write_text(json.dumps(manifest))
    return path


def started(photographs, start_from, out, network=NETWORK):
    schedule = ScheduleConfig(steps=1, batch=2, lr=0, lr_discriminator=0)
    run = RunConfig(network, schedule, augment=AugmentConfig(False, 1.0))
    batches = data.Batches(photographs, run)
    return train(run, batches, photographs[:2], out, start_from=start_from)


def test_an_engine_gives_back_every_weight_of_its_network(shipped, exported):
    stored = engine_weights.read(shipped)
    assert stored.config.network == NETWORK
    assert (stored.step, stored.pictures) == (7, 80)
    expected = {
        name: value
        for name, value in exported("cats").model.state_dict().items()
        if not name.startswith("whiten.")  # acts in training alone
    }
    assert stored.state.keys() == expected.keys()
    assert all(torch.equal(stored.state[name], value) for name, value in expected.items())


def test_a_run_begins_with_an_engine(shipped, exported, photographs, tmp_path):
    last = started(photographs, shipped, tmp_path / "run")
    assert describe(last).pictures == 82
    model = Picme(NETWORK)
    load_module(last, "ema", model)
    for name, value in exported("cats").model.named_parameters():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_larger_network_begins_with_a_smaller_engine(shipped, photographs, tmp_path):
    large = NetworkConfig("cats", 128, 6, detail=True)
    big = photographs.repeat_interleave(2, 2).repeat_interleave(2, 3)
    last = started(big, shipped, tmp_path / "run", large)
    assert describe(last).config.network == large


def test_what_holds_no_trained_weights_is_refused_with_the_cure(exported, shipped, tmp_path):
    with pytest.raises(InputError, match=r"does not say which network it is .*its checkpoint"):
        engine_weights.read(exported("cats").path)
    other = shutil.copytree(shipped, tmp_path / "other")
    manifest = json.loads((other / "engine.json").read_text())
    manifest["provenance"]["config"]["network"]["preset"] = "picme"
    (other / "engine.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"preset cats with fp32 weights, got preset 'picme'"):
        engine_weights.read(other)


def test_a_damaged_engine_and_another_network_are_refused(shipped, photographs, tmp_path):
    with pytest.raises(InputError, match="same primitives"):
        started(photographs, shipped, tmp_path / "a", NetworkConfig("cats", 64, 3))
    damaged = shutil.copytree(shipped, tmp_path / "damaged")
    content = bytearray((damaged / "fp32" / "decoder.onnx").read_bytes())
    content[-100] ^= 1
    (damaged / "fp32" / "decoder.onnx").write_bytes(content)
    with pytest.raises(EngineError, match="was changed"):
        started(photographs, damaged, tmp_path / "b")

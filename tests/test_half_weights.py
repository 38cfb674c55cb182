"""Engines whose weights lie in the file as float16: half the size, and the same to the bit."""

import numpy as np
import pytest
import torch
from cpu_backends import EVERY

import picme_rt
from picme_export import export, half_weights
from picme_export.pipeline import stages
from picme_rt import engine as engines
from picme_rt import onnx_file
from picme_rt.errors import InputError
from picme_training import engine_weights
from picme_training.config import LossConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.networks import Picme, fold

NETWORK = NetworkConfig("cats", 64, primitives=3)


def network():
    torch.manual_seed(0)
    return Picme(NETWORK).eval()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """One rounded network, stored as float32 and as float16."""
    root = tmp_path_factory.mktemp("half")
    about = {"config": RunConfig(NETWORK, ScheduleConfig(1), LossConfig()).to_dict()}
    for name in ("fp32", "fp16"):
        model = fold(network())
        half_weights.round_(model)
        export.write(
            model, root / name, name="one", weights=name, about={**about, "pictures_seen": 7}
        )
    return root / "fp32", root / "fp16"


def graphs_of(path):
    engine = engines.load(path)
    return [engine.read(file) for file in engine.variants["fp32"].values()]


def test_the_files_are_half_as_large_and_say_so(pair):
    wide, narrow = (sum(map(len, graphs_of(path))) for path in pair)
    assert narrow < 0.55 * wide
    assert engines.load(pair[1]).provenance["weights"] == "fp16"


@pytest.mark.parametrize(("backend", "precision"), EVERY)
def test_every_backend_gives_the_bits_of_the_same_weights_in_float32(pair, backend, precision):
    rng = np.random.default_rng(0)
    image, hole = rng.integers(0, 256, (64, 64, 3), np.uint8), np.zeros((64, 64), bool)
    hole[16:48, 20:50] = True
    results = []
    for path in pair:
        with picme_rt.Session(path, backend=backend, precision=precision) as session:
            results.append(session.complete(image, hole, k=2, seed=1))
    assert np.array_equal(results[0].images, results[1].images)
    assert np.array_equal(results[0].log_prob, results[1].log_prob)


def test_a_graph_read_to_be_rewritten_is_that_of_float32(pair):
    for wide, narrow in zip(*map(graphs_of, pair), strict=True):
        a, b = onnx_file.parse(wide), half_weights.widened(narrow)
        again = onnx_file.parse(b.SerializeToString())
        assert [node.operator for node in again.nodes] == [node.operator for node in a.nodes]
        wanted = {weight.content.tobytes() for weight in a.weights}
        assert {weight.content.tobytes() for weight in again.weights} == wanted
    assert stages.of(engines.load(pair[1]))  # the pipeline as one file


def test_a_run_can_begin_with_it(pair):
    a, b = (engine_weights.read(path).state for path in pair)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("value", [65536.0, float("nan")])
def test_weights_beyond_float16_are_refused(value):
    model = fold(network())
    with torch.no_grad():
        model.decoder.grow.weight[0, 0, 0, 0] = value
    with pytest.raises(InputError, match=r"at most 65504 .* decoder.grow.weight; .* fp32"):
        half_weights.round_(model)

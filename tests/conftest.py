"""Tiny real engines, each exported once a run, and a picture with a hole."""

import fcntl
import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
from twice import CORES

import picme_rt
from picme_rt import choices
from picme_rt import engine as engines
from picme_rt.turns import Turns

# the same examples on every machine, however busy it is
hypothesis.settings.register_profile("picme", deadline=None, derandomize=True)
hypothesis.settings.load_profile("picme")


# begun first, so that no worker has one of them left when the other has nothing (Makefile)
LONGEST = (
    *("test_gpu_check.py", "test_faults.py", "training/test_distributed.py"),
    *("benchmarks/test_alone.py", "test_internal_export.py", "training/test_loop.py"),
    *("test_graph_shapes.py", "training/test_mending.py", "training/test_compare.py"),
)


def pytest_collection_modifyitems(items):
    """The longest files first; else as they are found."""
    here, last = Path(__file__).parent, len(LONGEST)
    place = {str(here / name): i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(str(item.path), last))


class Exported(NamedTuple):
    model: Any  # the network in torch, its spectral norm folded
    path: Path
    errors: dict[str, dict[str, float]]


@pytest.fixture(scope="session")
def tiny_model():
    """Give a preset and a seed, get a network of 64x64 in which no path is switched off."""
    import torch

    from picme_training.config import NetworkConfig
    from picme_training.networks import Picme

    def make(preset, seed=0):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            model = Picme(NetworkConfig(preset, 64, 1 if preset == "pic" else 6))
            for weight in model.parameters():
                if weight.ndim == 0:  # gamma and alpha of the attention start at 0
                    weight.fill_(0.8)
                elif weight.ndim == 1:  # biases, and the scale and shift of instance norm
                    weight.add_(0.2 * torch.randn_like(weight))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def exported(tiny_model, tmp_path_factory):
    """Give a preset, get its tiny engine; exported by the worker that asks for it first."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers of this run
    folder = folder / "exported"
    folder.mkdir(exist_ok=True)

    @functools.cache
    def make(preset):
        from picme_export import export
        from picme_training.networks import fold

        model, path, told = fold(tiny_model(preset)), folder / preset, folder / f"{preset}.json"
        with (folder / f"{preset}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not told.exists():
                about = {"data": "none", "licence": "CC0"}
                told.write_text(json.dumps(export.write(model, path, name=preset, about=about)))
        return Exported(model, path, json.loads(told.read_text()))

    return make


@pytest.fixture
def quick(exported, monkeypatch):
    """Export takes graphs of the tiny `cats` engine, instead of tracing for seconds."""
    from picme_export import graphs

    made = exported("cats").path

    def copy_graph(module, graph, path, *, target, half):
        shutil.copy(made / "fp32" / path.name, path)
        return engines.load(made).provenance["graphs"][path.stem]

    monkeypatch.setattr(graphs, "to_onnx", copy_graph)


@pytest.fixture(scope="session")
def engine(exported):
    return exported("cats").path


@pytest.fixture(scope="session")
def free_engine(engine, tmp_path_factory):
    """The same engine, said to be trained on crops."""
    path = tmp_path_factory.mktemp("free") / "engine"
    shutil.copytree(engine, path)
    manifest = json.loads((path / "engine.json").read_text())
    (path / "engine.json").write_text(json.dumps(manifest | {"framing": "free"}))
    return path


@pytest.fixture(scope="session")
def session(engine):
    with picme_rt.Session(engine) as opened:
        yield opened


@pytest.fixture(scope="session")
def picture():
    """(297, 287) of flat tiles, and a mask of 0 and 255."""
    rng = np.random.default_rng(7)
    image = (np.kron(rng.random((9, 7, 3)), np.ones((33, 41, 1))) * 255).astype(np.uint8)
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[90:190, 60:170] = 255
    return image, mask


@pytest.fixture
def calls(monkeypatch):
    """Who is in work on a machine of two cores."""
    monkeypatch.setattr(choices, "cores", lambda: CORES)
    return Turns(CORES + 1)


@pytest.fixture
def compiled(monkeypatch):
    """Threads of each graph that a library compiles, on a machine of two cores.

    None gets more than there are: on one CPU, runs of two threads of ONNX Runtime take minutes.
    """
    from picme_rt.backends import onnxruntime, openvino

    here = choices.cores()
    monkeypatch.setattr(choices, "cores", lambda: CORES)
    found = []

    def spied(real):
        def spy(*given):
            found.append(given[3])
            return real(*given[:3], min(given[3], here), *given[4:])

        return spy

    for module, name in ((onnxruntime, "_session"), (openvino, "_compiled")):
        monkeypatch.setattr(module, name, spied(getattr(module, name)))
    return found

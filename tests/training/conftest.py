"""What the training tests share: photographs, one thread, and a folder of pictures."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from torch import Tensor


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def photographs() -> Tensor:
    """(8, 3, 64, 64) uint8: the two halves of four of scikit-image's photographs."""
    found = []
    for photograph in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket()):
        side = min(photograph.shape[0], photograph.shape[1] // 2)
        for half in (photograph[:side, :side], photograph[-side:, -side:]):
            small = Image.fromarray(half).resize((64, 64), Image.Resampling.BOX)
            found.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    return torch.stack(found)


@pytest.fixture(scope="session")
def picture_folder(photographs, tmp_path_factory) -> Path:
    """The photographs as files 0.png ... 7.png."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(photographs):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def stand_in():
    """LPIPS with random weights, for tests that measure with a network and have no weights."""
    from picme_training.perceptual import Lpips

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Lpips()
        for lin in model.lins:
            torch.nn.init.uniform_(lin)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def lpips_file(stand_in, tmp_path_factory):
    """The stand-in as a file that --lpips-weights takes."""
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    stored = {k: v for k, v in stand_in.state_dict().items() if k.startswith("features.")}
    lins = {k: v for k, v in stand_in.state_dict().items() if k.startswith("lins.")}
    stored |= {f"lin{k.removeprefix('lins.')}.model.1.weight": v.abs() for k, v in lins.items()}
    save_file(stored, path)
    return path


@pytest.fixture(scope="session")
def saved(exported, tmp_path_factory) -> Path:
    """A run with a checkpoint whose averaged weights are those of the tiny `cats` engine."""
    from picme_training import checkpoint
    from picme_training.config import NetworkConfig, RunConfig, ScheduleConfig

    model = copy.deepcopy(exported("cats").model)
    model.whiten.num_batches_tracked.fill_(9)  # as if its statistics were gathered
    run = tmp_path_factory.mktemp("runs") / "saved"
    config = RunConfig(NetworkConfig("cats", 64, 6), ScheduleConfig(steps=9))
    state = checkpoint.State(model, model, torch.nn.Linear(1, 1), {})
    checkpoint.save(run, checkpoint.Description(config, 9, 144), state)
    return run


@pytest.fixture(scope="session")
def load_script():
    """Gives a script of training/, which is no package, as a module: by its name."""

    def load(name):
        path = Path(__file__).parents[2] / "training" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load

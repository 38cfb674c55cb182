"""A compiled step is the eager one."""

import pytest
import torch

from picme_rt.errors import InputError
from picme_training import compiling, distributed, loop
from picme_training.config import LossConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.data import Batches
from picme_training.perceptual import Lpips

CONFIG = RunConfig(
    NetworkConfig("cats", 128, 2, judge_features=True, detail=True, push_pull=True),
    ScheduleConfig(2, batch=2),
    LossConfig(decoded="draw", composite=True, perceptual=1.0),
)


def trainer(**how):
    torch.manual_seed(3)
    return loop.Trainer(CONFIG, torch.device("cpu"), Lpips().requires_grad_(False), **how)


# what torch does in tracing it warns of itself
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")
def test_two_steps_give_the_eager_ones_losses(photographs, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "eager")  # traces all, and generates no code
    large = torch.nn.functional.interpolate(photographs.float(), 128).byte()
    batches = Batches(large, CONFIG)
    torch.compiler.reset()
    plain, compiled = trainer(), trainer(compiled=True)
    for step in range(2):
        expected = plain.train_step(*batches.batch(step))
        found = compiled.train_step(*batches.batch(step))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()


def test_what_is_compiled_is_the_training_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(compiling, "_compiled", lambda function: calls.append(function) or "made")
    made = trainer(compiled=True)
    names = [function.__name__ for function in calls]
    assert names == ["taps", "between", "features", "decode", "forward"]
    assert made.model.decode == made.looks.taps == "made"
    assert callable(made.ema.decode)
    assert callable(made.lpips.taps)


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 2)
    with pytest.raises(InputError, match="compiled networks are for one process, got 2; leave out"):
        trainer(compiled=True)

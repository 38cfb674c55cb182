"""Adam's moments after a resume: laid out as a run that was never ended has them."""

import torch

from picme_training import checkpoint
from picme_training.config import LossConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.loop import Trainer

CONFIG = RunConfig(
    NetworkConfig("cats", 64, 2), ScheduleConfig(9, batch=2), LossConfig(decoded="best")
)


def moments(trainer):
    return [
        (weight, optimizer.state[weight][name])
        for optimizer in trainer.optimizers.values()
        for weight in optimizer.param_groups[0]["params"]
        for name in ("exp_avg", "exp_avg_sq")
        if weight in optimizer.state
    ]


def test_moments_that_come_back_lie_in_memory_as_their_weights_do(photographs, tmp_path):
    before, after = (Trainer(CONFIG, torch.device("cpu"), None) for _ in range(2))
    hole = torch.zeros(2, 1, 64, 64)
    hole[:, :, 16:48, 16:48] = 1
    before.train_step(photographs[:2].float() / 127.5 - 1, hole)
    place = checkpoint.save(tmp_path, checkpoint.Description(CONFIG, 1, 2), before.state)
    checkpoint.load(place, after.state)
    assert any(not weight.is_contiguous() for weight, _ in moments(after))  # channels last
    for (weight, value), (_, kept) in zip(moments(after), moments(before), strict=True):
        assert value.stride() == weight.stride() == kept.stride()
        assert torch.equal(value, kept)

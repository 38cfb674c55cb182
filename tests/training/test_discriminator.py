import pytest
import torch

from picme_rt.errors import InputError
from picme_training import discriminator
from picme_training.algorithm import discriminator_loss
from picme_training.config import LossConfig, NetworkConfig
from picme_training.perceptual import Lpips

LPIPS = Lpips().eval().requires_grad_(False)


def compact(size=64, lpips=LPIPS, **more):
    torch.manual_seed(0)
    return discriminator.make(NetworkConfig("cats", size, **more), lpips).eval()


def case(size=64):
    generator = torch.Generator().manual_seed(1)
    hole = torch.zeros(2, 1, size, size)
    hole[:, :, size // 4 : size // 2, size // 8 : size // 2] = 1
    return 2 * torch.rand(2, 3, size, size, generator=generator) - 1, hole


@torch.no_grad()
def test_the_hole_is_seen_only_where_it_is_asked_for():
    image, hole = case()
    for seen in (True, False):
        judge = compact(judge_hole=seen)
        same = torch.equal(judge(image, hole)[0], judge(image, 1 - hole)[0])
        assert same is not seen


@pytest.mark.parametrize(("size", "sides"), [(64, [8, 15, 7, 3]), (128, [8, 31, 15, 7])])
@torch.no_grad()
def test_each_head_scores_the_features_of_its_layer(size, sides):
    judge = compact(size, judge_features=True)
    scores = judge(*case(size))
    assert [tuple(one.shape) for one in scores] == [(2, 1, side, side) for side in sides]
    taps = LPIPS.taps(case(size)[0], tuple(discriminator.HEADS))
    for head, tap, expected in zip(judge.heads, taps, scores[1:], strict=True):
        assert torch.equal(head(tap), expected)


def test_the_features_are_frozen_and_no_part_of_the_discriminator():
    judge = compact(judge_features=True).requires_grad_(True)
    assert not any("features" in name for name in judge.state_dict())
    image, hole = case()
    image.requires_grad_()
    loss = discriminator_loss(judge, image, hole, -image, LossConfig(hole_scores=True))
    loss.backward()
    assert all(parameter.grad is not None for parameter in judge.parameters())
    assert not any(parameter.requires_grad for parameter in LPIPS.parameters())
    assert image.grad.abs().max() > 0


def test_the_loss_is_the_mean_over_the_score_maps():
    judge, (image, hole) = compact(judge_features=True), case()
    with torch.no_grad():
        both = discriminator_loss(judge, image, hole, -image, LossConfig())
        parts = [
            0.5 * ((real - 1) ** 2).mean() + 0.5 * (made**2).mean()
            for real, made in zip(judge(image, hole), judge(-image, hole), strict=True)
        ]
    torch.testing.assert_close(both, torch.stack(parts).mean())


@torch.no_grad()
def test_outside_of_the_hole_no_score_counts_where_it_is_asked_for():
    image, hole = case()
    changed = torch.where(hole > 0, image, image + 0.5)

    def judge(pictures, holes, seen):  # the score of a place is its own mean colour
        return [torch.nn.functional.avg_pool2d(pictures.mean(1, keepdim=True), 8)]

    for counts, same in ((True, True), (False, False)):
        config = LossConfig(hole_scores=counts)
        a, b = (discriminator_loss(judge, image, hole, one, config) for one in (image, changed))
        assert torch.equal(a, b) is same


def test_features_without_weights_are_refused_with_the_cure():
    with pytest.raises(InputError, match="judge_features needs the weights of LPIPS: pass --lpips"):
        compact(lpips=None, judge_features=True)

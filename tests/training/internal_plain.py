"""IDC's losses as they are read: autograd, gather and scatter, one picture after the other."""

import torch
from torch import nn
from torch.nn import functional as F


class PlainStack(nn.Module):
    """conv-BN-LeakyReLU, four times, and a conv; batch norm over the places of `where` alone."""

    def __init__(self, stack):
        super().__init__()
        self.convolutions = nn.ParameterList(w.detach().clone() for w in stack.weights)
        self.gammas = nn.ParameterList(g.detach().flatten().clone() for g in stack.gammas)
        self.betas = nn.ParameterList(b.detach().flatten().clone() for b in stack.betas)
        self.bias = nn.Parameter(stack.bias.detach().clone())

    def forward(self, x, hole=None):
        seen = torch.zeros_like(x[:1, :1]) if hole is None else hole
        for weight, gamma, beta in zip(
            self.convolutions[:-1], self.gammas, self.betas, strict=True
        ):
            x, seen = F.conv2d(x, weight), F.max_pool2d(seen, 3, stride=1)
            where = (seen == 0).flatten()
            flat = x.flatten(2)
            gathered = F.batch_norm(flat[:, :, where], None, None, gamma, beta, training=True)
            x = torch.zeros_like(flat).index_copy(2, where.nonzero()[:, 0], gathered).view_as(x)
            x = F.leaky_relu(x, 0.2)
        seen = F.max_pool2d(seen, 3, stride=1)
        return F.conv2d(x, self.convolutions[-1], self.bias) * (seen == 0)

    def gradients(self):
        """As `Stack.gradients` has them, in one list."""
        return [p.grad for p in (*self.convolutions, *self.gammas, *self.betas, self.bias)]


def critic_terms(critic, real, fake, mix, hole):
    """(-D(real), D(fake), penalty) with a mask; `hole` (1, 1, H, W) is empty at coarse scales."""
    known = (hole == 0).float()
    scores = critic(real, hole)
    valid = 1 - F.max_pool2d(hole, 11, stride=1)
    between = ((mix * real + (1 - mix) * fake) * known).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between, hole).sum(), between, create_graph=True)
    seen = slope.square().sum(1) > 0  # a norm has no gradient at 0
    norms = slope.permute(0, 2, 3, 1)[seen].norm(dim=-1)
    unseen = known.sum() - seen.sum()
    penalty = 0.1 * ((norms - 1).square().sum() + unseen) / known.sum()
    return torch.stack([-scores.sum() / valid.sum(), critic(fake).mean(), penalty])


def generated(generator, x, previous):
    """tanh(net(x)) + prev."""
    return torch.tanh(generator(x)) + previous


def generator_terms(generator, critic, inputs, previous, real, weights, alpha):
    """(-D(fake), reconstruction error); `inputs` and `previous` are (fake, reconstruction)."""
    fake, rebuilt = (generated(generator, x, p) for x, p in zip(inputs, previous, strict=True))
    error = alpha * (weights * (rebuilt - real).square()).sum() / (3 * weights.sum())
    return torch.stack([-critic(fake).mean(), error])


def completion_critic_terms(critic, real, shown, mix, hole, covered):
    """As `critic_terms`, of a completion: judged where its hole is seen, nothing of it masked."""
    seeing = F.max_pool2d(hole, 11, stride=1)
    valid = 1 - F.max_pool2d(covered, 11, stride=1)
    known = 1 - covered
    between = (shown + mix * (real - shown) * known).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty = 0.1 * (slope.norm(dim=1) - 1).square().mean()
    of_real = -critic(real, covered).sum() / valid.sum()
    return torch.stack([of_real, (critic(shown) * seeing).sum() / seeing.sum(), penalty])


def completion_generator_terms(generator, critic, inputs, previous, real, masks, alpha):
    """(-D(completion), reconstruction error, what else is learnt); masks are (hole, covered).

    What else: the completion's error at known pixels, and what either picture changes in the hole,
    its smooth part above all.
    """
    hole, covered = masks
    made = [generated(generator, x, p) for x, p in zip(inputs, previous, strict=True)]
    seeing = F.max_pool2d(hole, 11, stride=1)
    shown = made[0] * hole + real * (1 - hole)
    score = (critic(shown) * seeing).sum() / seeing.sum()

    def error(one, where):
        return alpha * (where * (one - real).square()).sum() / (3 * where.sum())

    changes = [m - p for m, p in zip(made, previous, strict=True)]
    smooth = [F.avg_pool2d(change, 3, 1, 1).square() for change in changes]
    held = sum((hole * (s + 0.3 * c.square())).sum() for s, c in zip(smooth, changes, strict=True))
    held = held * alpha / (3 * (1 - hole).sum())
    return torch.stack([-score, error(made[1], 1 - covered), error(made[0], 1 - hole) + held])

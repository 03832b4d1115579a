"""Precise batch norm: the statistics of all its batches together, drawn by position, refused where nothing trains."""

import torch
from helpers.torchvision_tiny import make_cfg
from torch import nn

from detection.training.precise_bn import measure_statistics


class TwoNorms(nn.Module):
    """The second norm sees what the first one makes of the batch, and noise."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.frozen = nn.BatchNorm1d(3, momentum=0.3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x):
        assert not torch.is_grad_enabled()
        return self.frozen(self.second(self.first(x) + torch.randn(x.shape)))


def batches_of(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [4 * n + (n + 1) * torch.randn(size, 3, generator=generator) for n, size in enumerate(sizes)]


def test_statistics_are_those_of_all_cases_together():
    """Of batches of unlike size too; whatever was there before, and with the momentum put back."""
    task, batches = TwoNorms(), batches_of(4, 7, 20)
    task.first.running_mean.fill_(99)
    measure_statistics(task.eval(), batches, make_cfg("TEST.PRECISE_BN.NUM_ITER", 3))
    seen = torch.cat(batches).double()
    torch.testing.assert_close(task.first.running_mean.double(), seen.mean(dim=0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(task.first.running_var.double(), seen.var(dim=0, correction=0), rtol=1e-5, atol=1e-5)
    assert task.first.momentum == 0.3
    assert task.frozen.running_mean.tolist() == [0, 0, 0]


def test_what_is_drawn_depends_on_the_position_alone():
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        task = TwoNorms()
        measure_statistics(task, batches_of(9, 9), make_cfg("TEST.PRECISE_BN.NUM_ITER", 2))
        found.append(torch.stack([task.second.running_mean, task.second.running_var]))
    assert torch.equal(*found)

import pytest
import torch
from torch import nn

from fbnetv5.runs.optimization import half_cosine, parameter_groups


def test_norms_and_biases_do_not_decay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, others = parameter_groups(net.parameters(), 0.1)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3), (2, 4)]
    assert [tuple(p.shape) for p in others["params"]] == [(4,), (4,), (4,), (2,)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_the_half_cosine_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.01)
    for step in range(11):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(half_cosine(step / 10), abs=1e-9)
        optimizer.step()
        schedule.step()

import pytest
import torch
from torch import nn

from fbnetv5.runs.optimization import half_cosine, parameter_groups, with_lr_factors


def test_norms_and_biases_do_not_decay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, others = parameter_groups(net.parameters(), 0.1)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3), (2, 4)]
    assert [tuple(p.shape) for p in others["params"]] == [(4,), (4,), (4,), (2,)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_the_learning_rate_falls_with_the_number_of_inputs_per_output() -> None:
    net = nn.Sequential(nn.Conv2d(64, 64, 5, groups=64), nn.Conv2d(64, 8, 3), nn.Linear(1024, 2), nn.Linear(256, 2))
    groups = with_lr_factors(parameter_groups(net.parameters(), 0.1), 256)
    factors = {parameter: group["lr_factor"] for group in groups for parameter in group["params"]}
    weights = [factors.pop(layer.weight) for layer in net]
    assert weights == [1.0, 256 / (64 * 3 * 3), 0.25, 1.0]
    assert set(factors.values()) == {1.0}
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.1, 0.1, 0.1]


def test_the_output_of_a_wide_layer_changes_no_more_than_that_of_a_narrow_one() -> None:
    changes = {}
    for inputs in (256, 4096):
        layer, x = nn.Linear(inputs, 1, bias=False), torch.ones(1, inputs)
        (group,) = with_lr_factors([{"params": [layer.weight]}], 256)
        optimizer = torch.optim.Adam([group], lr=0.01 * group["lr_factor"])
        before = layer(x).item()
        layer(x).sum().backward()
        optimizer.step()
        changes[inputs] = before - layer(x).item()
    assert changes[256] == pytest.approx(changes[4096], rel=0.01) == pytest.approx(2.56, rel=0.01)


def test_the_half_cosine_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.01)
    for step in range(11):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(half_cosine(step / 10), abs=1e-9)
        optimizer.step()
        schedule.step()

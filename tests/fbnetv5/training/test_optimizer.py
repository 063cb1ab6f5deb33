from collections.abc import Callable

import pytest
import torch
from torch import nn

from fbnetv5.training.config import TrainConfig
from fbnetv5.training.optimizer import learning_rate, make_optimizer
from fbnetv5.training.rmsprop import RMSProp

MakeTraining = Callable[..., TrainConfig]


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_hundredth(make_training: MakeTraining) -> None:
    config = make_training("cls", lr=2.0, warmup_steps=4, steps=104)
    rates = [learning_rate(config, step) for step in range(105)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == max(rates) == 2.0
    assert rates[54] == pytest.approx(1.01)
    assert rates[104] == pytest.approx(0.02)
    assert rates[4:] == sorted(rates[4:], reverse=True)


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("rmsprop", RMSProp)]
)
def test_norms_and_biases_do_not_decay(
    make_training: MakeTraining, name: str, kind: type[torch.optim.Optimizer]
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    optimizer = make_optimizer(make_training("cls", optimizer=name, weight_decay=0.1), list(network.parameters()))
    assert type(optimizer) is kind
    decays = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert {key: decays[id(parameter)] for key, parameter in network.named_parameters()} == {
        "0.weight": 0.1,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "2.weight": 0.1,
        "2.bias": 0.0,
    }


@pytest.mark.parametrize(("max_fan_in", "factors"), [(None, [1.0, 1.0]), (4, [0.5, 1.0])])
def test_weights_with_many_inputs_may_have_a_lower_learning_rate(
    make_training: MakeTraining, max_fan_in: int | None, factors: list[float]
) -> None:
    network = nn.Sequential(nn.Linear(8, 3, bias=False), nn.Linear(3, 2))
    optimizer = make_optimizer(make_training("cls", max_fan_in=max_fan_in), list(network.parameters()))
    by_weight = {id(each): group.get("lr_factor", 1.0) for group in optimizer.param_groups for each in group["params"]}
    assert [by_weight[id(layer.weight)] for layer in network] == factors


def test_the_momentum_of_sgd_is_0_before_the_first_step_that_is_not_skipped(make_training: MakeTraining) -> None:
    weight = nn.Parameter(torch.ones(3, 3))
    config = make_training("cls", optimizer="sgd", momentum=0.9, lr=0.1, weight_decay=0.0)
    optimizer = make_optimizer(config, [weight])
    assert not optimizer.state[weight]["momentum_buffer"].any()
    own = nn.Parameter(torch.ones(3, 3))
    reference = torch.optim.SGD([own], lr=0.1, momentum=0.9, nesterov=True)
    for step in range(3):
        weight.grad, own.grad = torch.full((3, 3), float(step + 1)), torch.full((3, 3), float(step + 1))
        optimizer.step()
        reference.step()
        assert torch.equal(weight, own)

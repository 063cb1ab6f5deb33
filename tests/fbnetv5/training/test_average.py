import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from fbnetv5.training.average import MovingAverage, lerp_unless


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_weights_and_statistics_are_averaged_by_the_formula(decay: float) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(network, decay=decay)
    expected = {name: tensor.clone().double() for name, tensor in network.state_dict().items()}
    for step in range(30):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.add_(1 if tensor.dtype == torch.int64 else torch.randn(tensor.shape))
        average.update(step)
        kept = min(decay, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * tensor.double()
    for name, tensor in average.network.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-4, atol=1e-5)
    assert average.network.state_dict()["1.num_batches_tracked"] == 30


def changed(network: nn.Module) -> None:
    """Change all weights and statistics, as a step does."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(1 if tensor.dtype == torch.int64 else torch.randn(tensor.shape))


def test_the_average_is_that_of_single_tensors_to_the_last_bit() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)).to(memory_format=torch.channels_last)
    average = MovingAverage(network, decay=0.9)
    expected = deepcopy(network.state_dict())
    for step in range(100):
        changed(network)
        average.update(step)
        for name, tensor in network.state_dict().items():
            weight = 1 - min(0.9, (1 + step) / (10 + step))
            expected[name] = expected[name].lerp(tensor, weight) if tensor.is_floating_point() else tensor.clone()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in average.network.state_dict().items())


@pytest.mark.parametrize("lag", [0, 1], ids=["no lag", "lag"])
def test_without_decay_the_average_is_the_current_state(lag: int) -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    average = MovingAverage(network, decay=0.0)
    for step in range(3):
        changed(network)
        average.update(step, skip=torch.zeros(()) if lag else None)
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(average.network.state_dict()[name], tensor, rtol=0, atol=1e-6 * lag)


def test_weights_that_are_loaded_later_are_averaged() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(network, decay=0.0)
    network.load_state_dict({name: tensor + 1 for name, tensor in network.state_dict().items()})
    average.update(0)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in average.network.state_dict().items())


def test_a_skip_on_the_device_keeps_the_average() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    gated, plain = MovingAverage(network, decay=0.9), MovingAverage(network, decay=0.9)
    changed(network)
    gated.update(0, skip=torch.tensor(0.0))
    plain.update(0)
    torch.testing.assert_close(gated.network.state_dict(), plain.network.state_dict())
    before = deepcopy(gated.network.state_dict())
    changed(network)
    gated.update(1, skip=torch.tensor(1.0))
    assert all(torch.equal(before[name], value) for name, value in gated.network.state_dict().items())


def test_a_network_without_batch_norm_is_averaged() -> None:
    network = nn.Linear(2, 2)
    average = MovingAverage(network, decay=0.0)
    changed(network)
    average.update(0, skip=torch.tensor(0.0))
    average.update(1)
    torch.testing.assert_close(average.network.state_dict(), network.state_dict())


def test_a_skipped_tensor_of_nan_has_no_effect() -> None:
    means = [torch.ones(3), torch.zeros(2, 2)]
    lerp_unless(torch.tensor(1.0), means, [torch.full((3,), math.nan), torch.full((2, 2), math.inf)], 0.5)
    assert torch.equal(torch.cat([mean.flatten() for mean in means]), torch.tensor([1.0, 1, 1, 0, 0, 0, 0]))


def test_the_average_is_a_network_of_its_own_in_eval_mode() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    average = MovingAverage(network, decay=0.9)
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())

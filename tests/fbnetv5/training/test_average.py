import pytest
import torch
from torch import nn

from fbnetv5.training.average import MovingAverage


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_weights_and_statistics_are_averaged_by_the_formula(decay: float) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(network, decay=decay)
    expected = {name: tensor.clone().double() for name, tensor in network.state_dict().items()}
    for step in range(30):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.add_(1 if tensor.dtype == torch.int64 else torch.randn(tensor.shape))
        average.update(network, step)
        kept = min(decay, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * tensor.double()
    for name, tensor in average.network.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-4, atol=1e-5)
    assert average.network.state_dict()["1.num_batches_tracked"] == 30


def test_the_average_is_a_network_of_its_own_in_eval_mode() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    average = MovingAverage(network, decay=0.9)
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())

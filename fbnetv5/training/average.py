"""A moving average of a network's weights and batch-norm statistics: the weights that a training stores.

The average over the last few hundred steps is more accurate than the last step's weights, above all while the learning
rate is high (Polyak and Juditsky, SIAM Journal on Control and Optimization 30(4), 1992). The decay is lower in the
first steps, ``min(decay, (1 + step) / (10 + step))`` as in TensorFlow's ExponentialMovingAverage, so that the first
weights are forgotten sooner.
"""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


class MovingAverage(Generic[N]):
    """The moving average of a network's weights; ``network`` has them, in eval mode."""

    def __init__(self, network: N, *, decay: float) -> None:
        self.network = deepcopy(network)
        self.network.eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Update the average with the network's weights after ``step`` steps."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        current = network.state_dict()
        for name, mean in self.network.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(current[name], weight)
            else:
                mean.copy_(current[name])

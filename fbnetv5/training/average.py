"""A moving average of a network's weights and batch-norm statistics (Polyak averaging): what a training keeps.

The average of the last few hundred steps answers better than the last step does, above all while the learning rate is
high. Early on it forgets faster, so that the first weights do not linger.
"""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


class MovingAverage(Generic[N]):
    """The average of a network; ``network`` holds it, ready to be measured."""

    def __init__(self, network: N, *, decay: float) -> None:
        self.network = deepcopy(network)
        self.network.eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network as it is after ``step`` steps."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        current = network.state_dict()
        for name, mean in self.network.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(current[name], weight)
            else:
                mean.copy_(current[name])

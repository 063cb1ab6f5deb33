"""A moving average of a network's weights and batch-norm statistics: the weights that a training stores.

The average over the last few hundred steps is more accurate than the last step's weights, above all while the learning
rate is high (Polyak and Juditsky, SIAM Journal on Control and Optimization 30(4), 1992). The decay is lower in the
first steps, ``min(decay, (1 + step) / (10 + step))`` as in TensorFlow's ExponentialMovingAverage, so that the first
weights are forgotten sooner.
"""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


class MovingAverage(Generic[N]):
    """The moving average of a network's weights; ``network`` has them, in eval mode."""

    def __init__(self, network: N, *, decay: float) -> None:
        """Start with the weights of ``network``, whose tensors must keep their memory; loading weights keeps it."""
        self.network = deepcopy(network)
        self.network.eval().requires_grad_(False)
        self._decay = decay
        means, current = self.network.state_dict(), network.state_dict()
        floats = [name for name, mean in means.items() if mean.is_floating_point()]
        counts = [name for name, mean in means.items() if not mean.is_floating_point()]
        self._means, self._current = [means[name] for name in floats], [current[name] for name in floats]
        self._last_counts, self._counts = [means[name] for name in counts], [current[name] for name in counts]

    @torch.no_grad()
    def update(self, step: int, *, skip: Tensor | None = None) -> None:
        """Update the average with the network's weights after ``step`` steps.

        Args:
            step: number of steps.
            skip: scalar on the device of the weights; where it is 1, nothing changes.
        """
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        if skip is None:
            torch._foreach_lerp_(self._means, self._current, weight)
        else:
            lerp_unless(skip, self._means, self._current, weight)
        if self._counts:  # torch refuses an empty list
            added = torch._foreach_sub(self._counts, self._last_counts)
            if skip is not None:
                torch._foreach_mul_(added, 1 - skip.long())
            torch._foreach_add_(self._last_counts, added)


def lerp_unless(skip: Tensor, means: list[Tensor], current: list[Tensor], weight: float) -> None:
    """Move ``means`` towards ``current`` by a share ``weight`` of the way, unless ``skip``, a float scalar, is 1.

    The kernel is that of torch's fused SGD, m - weight * (m - c), because it changes many tensors at once and reads a
    condition on the device. A factor of 0 would not do: batch-norm statistics may be nan after a skipped step.
    """
    torch._fused_sgd_(
        means,
        torch._foreach_sub(means, current),
        [],
        weight_decay=0.0,
        momentum=0.0,
        lr=weight,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
        found_inf=skip,
    )

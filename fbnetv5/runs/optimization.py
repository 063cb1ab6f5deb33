"""Optimization that the loops of all methods share: the decay of weights and of the learning rate."""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor


def parameter_groups(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: weights of convolutions and linear layers decay, norms and biases do not."""
    everything = list(parameters)
    return [
        {"params": [parameter for parameter in everything if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in everything if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def half_cosine(progress: float) -> float:
    """1 at the start, 1 % at the end of a progress from 0 to 1 (cosine annealing, arXiv 1608.03983)."""
    return 0.505 + 0.495 * math.cos(math.pi * progress)

"""Optimization that the loops of all methods share: the decay of weights and of the learning rate."""

import math
from collections import defaultdict
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


def with_lr_factors(groups: Iterable[dict[str, Any]], max_fan_in: int) -> list[dict[str, Any]]:
    """The groups divided by "lr_factor", the factor of the learning rate of their parameters.

    Adam changes every weight by about the learning rate, so an output changes in proportion to its number of inputs,
    the fan-in: of ``max_fan_in`` inputs or fewer the factor is 1, of more it is ``max_fan_in`` divided by their number,
    as for matrices in muP (arXiv 2203.03466, table 3). Norms and biases have a factor of 1.

    Args:
        groups: of ``parameter_groups``.
        max_fan_in: largest number of inputs per output with the full learning rate.
    """
    divided = []
    for group in groups:
        by_factor = defaultdict(list)
        for parameter in group["params"]:
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            by_factor[min(1.0, max_fan_in / fan_in)].append(parameter)
        divided += [{**group, "params": members, "lr_factor": factor} for factor, members in by_factor.items()]
    return divided

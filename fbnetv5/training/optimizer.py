"""The optimizer of a training and its learning rate."""

from collections.abc import Iterable

import torch
from torch import Tensor

from fbnetv5.runs.optimization import half_cosine, parameter_groups, with_lr_factors
from fbnetv5.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step: linear rise, then half a cosine down to 1 %."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    return config.lr * half_cosine((step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))


def make_optimizer(config: TrainConfig, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """AdamW, SGD or RMSProp; norms and biases do not decay.

    On accelerators, AdamW and SGD are fused ones, as the guard needs; on CPUs fused SGD would round differently.
    """
    everything = list(parameters)
    groups = parameter_groups(everything, config.weight_decay)
    if config.max_fan_in is not None:
        groups = with_lr_factors(groups, config.max_fan_in)
    if config.optimizer == "rmsprop":
        from fbnetv5.training.rmsprop import RMSProp  # timm is slow to import

        return RMSProp(groups, lr=config.lr, momentum=config.momentum)
    if config.optimizer == "sgd":
        nesterov, fused = config.momentum > 0, everything[0].device.type != "cpu"
        optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
        if config.momentum:
            for parameter in everything:  # fused, torch leaves it uninitialised where the guard skips the first step
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)

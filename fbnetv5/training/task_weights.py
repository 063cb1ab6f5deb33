"""The weights of the tasks' losses in the objective of a joint training.

The losses of tasks differ in scale. By default each is divided by its moving average, as in the searches: this needs no
tuning and fits any set of tasks. The alternative is a fixed weight per task; the published weights, from 1 to 50, were
chosen for the losses and tasks of one data set.

Shape legend: T tasks.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fbnetv5.runs.loss_scale import Floats, LossScale
from fbnetv5.training.config import TrainConfig

PAPER = {"seg": 1.0, "parts": 2.0, "saliency": 5.0, "normals": 10.0, "edges": 50.0}
"""Weights of BMTAS (arXiv 2008.10292) for PASCAL-Context."""


class TaskWeights:
    """The factor of each task's mean loss in the objective; with moving averages, it changes from step to step."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self._weights = fixed_weights(config)
        relative = config.task_weights == "average" and len(config.tasks) > 1
        self._scale = LossScale(len(config.tasks), device) if relative else None
        self._on_device = torch.as_tensor(self._weights, dtype=torch.float32).to(device)

    def factors(self, losses: Tensor, occurs: Tensor) -> tuple[Tensor, Tensor | None]:
        """The factor of each task's mean loss [T], and the moving averages after the step for ``update``.

        Args:
            losses: [T], means over the images of all processes.
            occurs: bool [T], whether any image counts for the task's loss.
        """
        if self._scale is None:
            return self._on_device, None
        return self._scale.factors(losses, occurs, self._weights)

    def update(self, averages: Tensor | None, *, skip: Tensor) -> None:
        """Store the moving averages of a step; where ``skip``, a scalar on the device, is 1, nothing changes."""
        if self._scale is not None and averages is not None:
            self._scale.values = torch.where(skip == 0, averages, self._scale.values)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint by name; none with fixed weights."""
        return {} if self._scale is None else {"averages": self._scale.values}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore ``tensors``."""
        if self._scale is not None:
            self._scale.load(tensors["averages"])


def fixed_weights(config: TrainConfig) -> Floats:
    """The weight of each task's loss [T]; 1 for the only task, and in the paper's weights for a task without one."""
    if len(config.tasks) == 1 or config.task_weights == "average":
        return np.ones(len(config.tasks))
    weights = PAPER if config.task_weights == "paper" else config.task_weights
    return np.array([weights.get(task, 1.0) for task in config.tasks])

"""Moving averages that losses are divided by, so that the losses of all tasks have the same scale and need no weights.

The gradient of the sum of the divided losses is that of the sum of the logarithms of the losses. Everything is computed
on the device, without waiting for it.

Shape legend: T tasks.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

DECAY = 0.98
"""Decay per step of the moving averages."""
FLOOR = 1e-3
"""Minimum of the averages: the loss of a task whose images all look alike may reach 0."""
WITHOUT_FLOAT64 = ("mps",)
"""Types of devices that have no float64."""


class LossScale:
    """The moving average of each task's loss: ``values`` [T] on the device, nan until a task's first loss."""

    def __init__(self, tasks: int, device: torch.device) -> None:
        widest = torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64
        self.values = torch.full((tasks,), torch.nan, dtype=widest, device=device)

    def factors(self, sums: Tensor, counts: Tensor, weights: Floats) -> tuple[Tensor, Tensor]:
        """The factor of each task's loss, its weight over its average, and the averages after the step.

        The first loss of a task is its average; a task without labels has the factor 0 and keeps its average.

        Args:
            sums: [T], of the losses of all processes.
            counts: [T], numbers of labelled images of all processes.
            weights: [T].
        """
        sums, counts = sums.to(self.values), counts.to(self.values)
        numerators = torch.as_tensor(weights, dtype=self.values.dtype).to(self.values.device, non_blocking=True)
        means, labelled = (sums / counts.clamp(min=1)).clamp(min=FLOOR), counts > 0
        before = torch.where(labelled & self.values.isnan(), means, self.values)
        factor = torch.where(labelled, numerators / before, 0.0)
        return factor, torch.where(labelled, DECAY * before + (1 - DECAY) * means, before)

    def on_host(self) -> Floats:
        """The averages as float64 on the host."""
        values: Floats = self.values.cpu().double().numpy()
        return values

    def load(self, values: Tensor) -> None:
        """Restore the averages of a checkpoint."""
        self.values = values.to(self.values)

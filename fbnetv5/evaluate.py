"""Measures a network on pictures: one task's metric, from whatever runs the network."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch
from fbnetv5.tasks.task import Task

Predict = Callable[[Tensor], Sequence[Tensor]]
"""Normalised pictures [N, 3, H, W] -> the task's deployable outputs."""


@torch.no_grad()
def evaluate(task: Task, predict: Predict, batches: Iterable[Batch]) -> float:
    """The task's metric, 0..1, over the batches."""
    metric = task.new_metric()
    for batch in batches:
        metric.update(predict(normalise(batch.images)), batch)
    return metric.compute()

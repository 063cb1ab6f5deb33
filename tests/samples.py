"""Samples and batches for tests, with the targets that the demo scenes have."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fbnetv5.data.sample import Batch, Sample, collate
from fbnetv5.data.scenes import TARGETS


def make_sample(image: Tensor, **labels: Any) -> Sample:
    """An image with the labels that are not None."""
    return Sample(image=image, targets={name: label for name, label in labels.items() if label is not None})


def stack(samples: Sequence[Sample]) -> Batch:
    return collate(samples, TARGETS)


def keep_labels(batch: Batch, target: str, known: Tensor) -> Batch:
    """The batch without a target's labels where ``known``, bool [N], is false; not for boxes."""
    value, absent = batch.targets[target], TARGETS[target].kind.collate([None] * len(known), (1, 1))
    shape = (-1, *[1] * (value.ndim - 1))
    masked = torch.where(known.view(shape), value, absent.view(shape))
    return replace(batch, targets={**batch.targets, target: masked}, present={**batch.present, target: known.clone()})

"""A small image set that an accelerator keeps in its memory, so that a batch is a selection of rows there.

A demo scene takes 0.6 to 2.2 ms to compose, and each batch of composed scenes is stacked and copied again: a GPU is
faster than that. The set is loaded as a whole when the first batch is needed.
"""

from collections.abc import Iterator

import torch

from export.errors import UserError
from fbnetv5.data.loading import SUBSTITUTES, ErrorsAsValues, Order, collate_or_error
from fbnetv5.data.sample import Batch, ImageSet, collate

MAX_BYTES = 2 << 30
"""Memory limit of a set with its labels. The host needs as much again while it stacks the set."""


def worth_keeping(images: ImageSet, device: torch.device, *, draws: int) -> bool:
    """Whether a device should keep a set: it is no CPU, the set fits, and no image is loaded in vain.

    Args:
        images: the set; its first image is read to learn its size.
        device: of the run.
        draws: images that the run will use, repetitions included.
    """
    if device.type == "cpu" or draws < len(images):
        return False
    first = collate([images[0]], images.targets)
    return len(images) * sum(tensor.nbytes for tensor in first.tensors) <= MAX_BYTES


def resident_batches(images: ImageSet, order: Order, device: torch.device) -> Iterator[Batch]:
    """The batches of ``loading.batches``, from a copy of the set on ``device``.

    Boxes are padded to the largest number of an image of the set, not of the batch. No loss depends on padding.

    Raises:
        UserError: an image and those that may replace it cannot be read.
    """
    readable = ErrorsAsValues(images, substitutes=SUBSTITUTES)
    whole = collate_or_error([readable[index] for index in range(len(images))], images.targets)
    if isinstance(whole, UserError):
        raise whole
    everything = whole.to(device)
    for group in order.groups(images):
        indices = torch.tensor(group, pin_memory=device.type == "cuda")
        yield everything.rows(indices.to(device, non_blocking=True))

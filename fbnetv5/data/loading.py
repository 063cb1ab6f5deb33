"""Batches from an image set: endless and shuffled for training, once and in order for evaluation.

A training batch depends on (seed, step, rank) alone, so a resumed run trains on the same batches as a run that was
never interrupted. Every epoch is its own permutation, see ``fbnetv5.data.shuffling``, and batches run on across epochs:
none is short, and a set smaller than a batch works too. torch's global random state is not touched.

An image of a training batch that cannot be read, because its file was damaged or removed since the set was opened, is
replaced by the next readable one, and the batch has the error: one of a million images shall not end a run of days.
Figures are of all images: a set that is evaluated in order must be readable as a whole.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import count
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from export.errors import UserError
from fbnetv5.data.sample import Batch, ImageSet, Sample, collate
from fbnetv5.data.shuffling import Permutation, block_sizes_of, permutation
from fbnetv5.data.targets import Target
from fbnetv5.data.transfer import on_device

CPU = torch.device("cpu")

Transform = Callable[[Sample, int], Sample]
"""(sample, draw) -> the augmented sample; the draw is a number that differs for every (epoch, image)."""

SUBSTITUTES = 16
"""Images after an unreadable one that may replace it; where all of these fail, the file system does."""
MAX_WORKERS = 4
"""Processes that read and resize a user's images beside the training; demo scenes are kept in memory."""


MAX_PIXELS = 64 * 512 * 512
"""Pixels of the largest batch that runs without gradients: large images come in smaller batches, or memory would not
do, whatever batch a training has."""


def num_workers_for(data: Path | str | None) -> int:
    """The number of worker processes that read a user's folder; 0 for the demo scenes, where ``data`` is None."""
    return 0 if data is None else min(MAX_WORKERS, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How images are read beside the steps that use them."""

    num_workers: int = 0
    """Processes that read images; 0 reads them in this process."""
    prefetch: int = 2
    """Batches that each of them reads ahead."""


IN_THIS_PROCESS = Reading()
"""Images are read when they are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An image as it was read, or the error where it and its substitutes could not be read."""

    index: int
    sample: Sample | UserError
    unreadable: tuple[str, ...] = ()
    """The errors of the images that this one replaces."""


class ErrorsAsValues(Dataset[Item]):
    """An image set that returns user errors as values: torch's workers would bury the message in a traceback."""

    def __init__(self, images: ImageSet, *, substitutes: int = 0) -> None:
        """Wrap a set.

        Args:
            images: the set.
            substitutes: number of images after an unreadable one of which the first readable one replaces it.
        """
        self._images = images
        self._substitutes = substitutes

    def __getitem__(self, index: int) -> Item:
        epoch, place = divmod(index, len(self._images))
        errors: list[UserError] = []
        for offset in range(min(1 + self._substitutes, len(self._images))):
            substitute = epoch * len(self._images) + (place + offset) % len(self._images)
            try:
                sample = self._images[substitute]
            except UserError as error:
                errors.append(error)
            else:
                return Item(index=substitute, sample=sample, unreadable=tuple(map(str, errors)))
        return Item(index=index, sample=errors[0])


class Transformed:
    """An endless image set: item ``epoch * len(images) + index`` is image ``index`` as transformed in that epoch."""

    def __init__(self, images: ImageSet, transform: Transform) -> None:
        self.targets = images.targets
        self._images = images
        self._transform = transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, draw: int) -> Sample:
        return self._transform(self._images[draw % len(self._images)], draw)


def collate_or_error(items: Sequence[Item], targets: Mapping[str, Target]) -> Batch | UserError:
    """The batch, or the first error among its items."""
    samples = []
    for item in items:
        if isinstance(item.sample, UserError):
            return item.sample
        samples.append(item.sample)
    batch = collate(samples, targets, [item.index for item in items])
    unreadable = tuple(error for item in items for error in item.unreadable)
    return replace(batch, unreadable=unreadable) if unreadable else batch


def load(
    images: ImageSet,
    groups: Iterable[Sequence[int]],
    reading: Reading,
    device: torch.device = CPU,
    *,
    substitutes: int = 0,
) -> Iterator[Batch]:
    """A batch for each group of indices, on ``device``; see ``ErrorsAsValues`` for ``substitutes``."""
    loader: DataLoader[Item] = DataLoader(
        ErrorsAsValues(images, substitutes=substitutes),
        batch_sampler=groups,  # type: ignore[arg-type]  # any iterable works; torch's stub requires a Sampler
        collate_fn=partial(collate_or_error, targets=images.targets),
        num_workers=reading.num_workers,
        prefetch_factor=reading.prefetch if reading.num_workers else None,
        generator=torch.Generator(),
        pin_memory=device.type == "cuda",
    )
    for batch in on_device(loader, device):
        if isinstance(batch, UserError):
            raise batch
        yield batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which images the endless shuffled batches of one process have."""

    batch: int
    """Images per step and process."""
    seed: int
    """Of the shuffling."""
    first_step: int = 0
    """The step to start at, as if all earlier steps had been run."""
    rank: int = 0
    """Of this process, from 0 to ``world`` - 1."""
    world: int = 1
    """How many processes share each step."""

    def groups(self, images: Sized, *, unfold: bool = False) -> Iterator[Sequence[int]]:
        """The indices of each step's batch of a set, without end; indices into ``Transformed`` if ``unfold``."""
        length, sizes = len(images), block_sizes_of(images)

        @lru_cache(maxsize=2)
        def order_of(epoch: int) -> Permutation:
            # 2**31 epochs to a seed: two seeds share no generator state, whatever the seeds are.
            return permutation(length, sizes, torch.Generator().manual_seed((self.seed << 31) + epoch))

        for step in count(self.first_step):
            start = (step * self.world + self.rank) * self.batch
            places = [divmod(place, length) for place in range(start, start + self.batch)]
            yield [order_of(epoch)[place] + unfold * epoch * length for epoch, place in places]


def batches(
    images: ImageSet,
    order: Order,
    *,
    reading: Reading = IN_THIS_PROCESS,
    transform: Transform | None = None,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """Endless shuffled batches for training.

    Args:
        images: the set.
        order: the images of each batch.
        reading: how images are read.
        transform: applied to each image, anew in every epoch.
        device: of the batches; on a CUDA device the next batch is copied while one is used.

    Raises:
        UserError: an image and its ``SUBSTITUTES`` cannot be read.
    """
    groups = order.groups(images, unfold=transform is not None)
    drawn = images if transform is None else Transformed(images, transform)
    return load(drawn, groups, reading, device, substitutes=SUBSTITUTES)


def in_order(
    images: ImageSet,
    *,
    batch: int,
    limit: int | None = None,
    reading: Reading = IN_THIS_PROCESS,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Every image once, in order, the last batch possibly short; for evaluation.

    Args:
        images: the set.
        batch: images per batch.
        limit: use only this many images, see ``some_indices``.
        reading: how images are read.
        rank: of this process among those that share the batches.
        world: number of these processes; each gets every so-manieth batch.

    Raises:
        UserError: an image cannot be read.
    """
    indices = some_indices(images, len(images) if limit is None else limit)
    groups = [indices[start : start + batch] for start in range(0, len(indices), batch)]
    return load(images, groups[rank::world], reading)


def even_batches(images: ImageSet, *, batch: int, count: int) -> Iterator[Batch]:
    """The batches of ``even_groups``; an image that cannot be read is replaced as in ``batches``."""
    return load(images, even_groups(images, batch=batch, count=count), IN_THIS_PROCESS, substitutes=SUBSTITUTES)


def even_groups(images: Sized, *, batch: int, count: int) -> list[Sequence[int]]:
    """The indices of at most ``count`` groups of at most ``batch`` distinct images, each evenly spaced over them."""
    indices = some_indices(images, batch * count)
    count = -(-len(indices) // batch)
    return [indices[number::count] for number in range(count)]


def images_per_batch(images: ImageSet, most: int) -> int:
    """How many images of a set run at once without gradients: ``most``, or fewer large ones, but two for batch norm."""
    pixels = math.prod(read_group(images, [0]).images.shape[2:]) if len(images) else 1
    return min(most, max(2, MAX_PIXELS // pixels))


def read_group(images: ImageSet, indices: Sequence[int]) -> Batch:
    """The batch of these images; one that cannot be read is replaced as in ``batches``."""
    return next(load(images, [indices], IN_THIS_PROCESS, substitutes=SUBSTITUTES))


def some_indices(images: Sized, max_count: int) -> Sequence[int]:
    """At most ``max_count`` images that represent a set: evenly spaced, because folders are sorted by class.

    A set that is read in blocks is in random order, so its first images are used, for which few blocks are read.
    """
    if block_sizes_of(images) is not None:
        return range(min(max_count, len(images)))
    return evenly_spaced(len(images), max_count)


def evenly_spaced(total: int, max_count: int) -> list[int]:
    """At most ``max_count`` of the indices below ``total``, evenly spaced."""
    count = min(max_count, total)
    return [number * total // count for number in range(count)]

"""Batches from a set of images: endless and shuffled for training, once and in order for evaluation.

What a training batch holds depends on (seed, step, rank) alone, so a resumed run sees what the killed one would have
seen. Every epoch is its own permutation, and batches run on across epochs: none is short, and a set smaller than a
batch works too. torch's random state is not touched.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import count
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from export.errors import UserError
from fbnetv5.data.sample import Batch, ImageSet, Sample, collate
from fbnetv5.data.targets import Target

Change = Callable[[Sample, int], Sample]
"""(sample, draw) -> what training sees instead; the draw is a number that no other epoch's same image has."""


READERS = 4
"""Processes that read and resize a user's images beside the work on them; demo scenes are kept in memory."""


def readers(data: Path | str | None) -> int:
    """How many processes should read the images of a user's folder, or of the demo scenes if None."""
    return 0 if data is None else min(READERS, os.cpu_count() or 1)


class Carried(Dataset[tuple[int, Sample | UserError]]):
    """A set whose user errors are values, for torch's workers would bury the message in a traceback."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def __getitem__(self, index: int) -> tuple[int, Sample | UserError]:
        try:
            return index, self._images[index]
        except UserError as error:
            return index, error


class Changed:
    """A set without end: place ``epoch * len(images) + index`` is the image ``index`` as changed for that epoch."""

    def __init__(self, images: ImageSet, change: Change) -> None:
        self.targets = images.targets
        self._images = images
        self._change = change

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, draw: int) -> Sample:
        return self._change(self._images[draw % len(self._images)], draw)


def collate_carried(
    carried: Sequence[tuple[int, Sample | UserError]], targets: Mapping[str, Target]
) -> Batch | UserError:
    """The batch, or the first error among its samples."""
    for _, sample in carried:
        if isinstance(sample, UserError):
            return sample
    found = [(index, sample) for index, sample in carried if isinstance(sample, Sample)]
    return collate([sample for _, sample in found], targets, [index for index, _ in found])


def load(images: ImageSet, groups: Iterable[Sequence[int]], workers: int) -> Iterator[Batch]:
    """A batch for each group of indices."""
    loader: DataLoader[tuple[int, Sample | UserError]] = DataLoader(
        Carried(images),
        batch_sampler=groups,  # type: ignore[arg-type]  # any iterable does; torch's stub asks for a Sampler
        collate_fn=partial(collate_carried, targets=images.targets),
        num_workers=workers,
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def training_groups(
    length: int, *, batch: int, seed: int, first_step: int, rank: int, world: int, unfold: bool = False
) -> Iterator[Sequence[int]]:
    """The indices of each step's batch, without end; those of ``Changed`` if ``unfold``."""

    @lru_cache(maxsize=2)
    def permutation(epoch: int) -> list[int]:
        # 2**31 epochs to a seed: far apart, whatever the seed.
        generator = torch.Generator().manual_seed((seed << 31) + epoch)
        order: list[int] = torch.randperm(length, generator=generator).tolist()
        return order

    for step in count(first_step):
        start = (step * world + rank) * batch
        places = [divmod(place, length) for place in range(start, start + batch)]
        yield [permutation(epoch)[place] + unfold * epoch * length for epoch, place in places]


def batches(
    images: ImageSet,
    *,
    batch: int,
    seed: int,
    first_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    change: Change | None = None,
) -> Iterator[Batch]:
    """Endless shuffled batches for training.

    Args:
        images: the set.
        batch: images per step and rank.
        seed: of the shuffling.
        first_step: the step to start at, as if all before it had been taken.
        rank: which of the ``world`` shares of each step to take.
        world: how many processes share each step.
        workers: processes that read images; 0 reads them in this one.
        change: of each image, anew in every epoch.

    Raises:
        UserError: an image cannot be read.
    """
    changes = change is not None
    groups = training_groups(
        len(images), batch=batch, seed=seed, first_step=first_step, rank=rank, world=world, unfold=changes
    )
    return load(images if change is None else Changed(images, change), groups, workers)


def in_order(images: ImageSet, *, batch: int, limit: int | None = None, workers: int = 0) -> Iterator[Batch]:
    """Every image once, in order, the last batch possibly short; for evaluation.

    Args:
        images: the set.
        batch: images per batch.
        limit: take only this many images, evenly spread over the set: folders are sorted by class.
        workers: processes that read images; 0 reads them in this one.

    Raises:
        UserError: an image cannot be read.
    """
    chosen = spread(len(images), len(images) if limit is None else limit)
    return load(images, [chosen[start : start + batch] for start in range(0, len(chosen), batch)], workers)


def even_batches(images: ImageSet, *, batch: int, count: int) -> Iterator[Batch]:
    """At most ``count`` batches of at most ``batch`` images, none twice, each batch evenly spread over the set."""
    chosen = spread(len(images), batch * count)
    count = -(-len(chosen) // batch)
    return load(images, [chosen[number::count] for number in range(count)], workers=0)


def spread(total: int, most: int) -> list[int]:
    """At most ``most`` of the indices below ``total``, evenly spread."""
    count = min(most, total)
    return [number * total // count for number in range(count)]

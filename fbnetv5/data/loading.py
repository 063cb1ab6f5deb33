"""Batches from a set of pictures: endless and shuffled for training, once and in order for evaluation.

What a training batch holds depends on (seed, step, rank) alone, so a resumed run sees what the killed one would have
seen. Every epoch is its own permutation, and batches run on across epochs: none is short, and a set smaller than a
batch works too. torch's random state is not touched.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count

import torch
from torch.utils.data import DataLoader, Dataset

from export.errors import UserError
from fbnetv5.data.sample import Batch, PictureSet, Sample, collate


class Carried(Dataset[tuple[int, Sample | UserError]]):
    """A set whose user errors are values, for torch's workers would bury the message in a traceback."""

    def __init__(self, pictures: PictureSet) -> None:
        self._pictures = pictures

    def __getitem__(self, index: int) -> tuple[int, Sample | UserError]:
        try:
            return index, self._pictures[index]
        except UserError as error:
            return index, error


def collate_carried(carried: Sequence[tuple[int, Sample | UserError]]) -> Batch | UserError:
    """The batch, or the first error among its samples."""
    for _, sample in carried:
        if isinstance(sample, UserError):
            return sample
    found = [(index, sample) for index, sample in carried if isinstance(sample, Sample)]
    return collate([sample for _, sample in found], [index for index, _ in found])


def load(pictures: PictureSet, groups: Iterable[Sequence[int]], workers: int) -> Iterator[Batch]:
    """A batch for each group of indices."""
    loader: DataLoader[tuple[int, Sample | UserError]] = DataLoader(
        Carried(pictures),
        batch_sampler=groups,  # type: ignore[arg-type]  # any iterable does; torch's stub asks for a Sampler
        collate_fn=collate_carried,
        num_workers=workers,
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def training_groups(
    length: int, *, batch: int, seed: int, first_step: int, rank: int, world: int
) -> Iterator[Sequence[int]]:
    """The indices of each step's batch, without end."""

    @lru_cache(maxsize=2)
    def permutation(epoch: int) -> list[int]:
        # 2**31 epochs to a seed: far apart, whatever the seed.
        generator = torch.Generator().manual_seed((seed << 31) + epoch)
        order: list[int] = torch.randperm(length, generator=generator).tolist()
        return order

    for step in count(first_step):
        start = (step * world + rank) * batch
        yield [permutation(place // length)[place % length] for place in range(start, start + batch)]


def batches(
    pictures: PictureSet,
    *,
    batch: int,
    seed: int,
    first_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """Endless shuffled batches for training.

    Args:
        pictures: the set.
        batch: pictures per step and rank.
        seed: of the shuffling.
        first_step: the step to start at, as if all before it had been taken.
        rank: which of the ``world`` shares of each step to take.
        world: how many processes share each step.
        workers: processes that read pictures; 0 reads them in this one.

    Raises:
        UserError: a picture cannot be read.
    """
    groups = training_groups(len(pictures), batch=batch, seed=seed, first_step=first_step, rank=rank, world=world)
    return load(pictures, groups, workers)


def in_order(pictures: PictureSet, *, batch: int, limit: int | None = None, workers: int = 0) -> Iterator[Batch]:
    """Every picture once, in order, the last batch possibly short; for evaluation.

    Args:
        pictures: the set.
        batch: pictures per batch.
        limit: take only this many pictures, the first ones.
        workers: processes that read pictures; 0 reads them in this one.

    Raises:
        UserError: a picture cannot be read.
    """
    total = len(pictures) if limit is None else min(limit, len(pictures))
    return load(pictures, [range(start, min(start + batch, total)) for start in range(0, total, batch)], workers)

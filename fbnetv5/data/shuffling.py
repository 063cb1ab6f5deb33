"""Permutations of image sets for training: uniform ones, and local ones for sets that are read in blocks of images.

A Parquet file is read in row groups, so a uniform permutation would read a whole row group for every image. A local
permutation shuffles the blocks, and then the images of every window of consecutive shuffled blocks, as the shuffle
buffers of tf.data and WebDataset do, but by index: any place of an epoch can be computed without those before it. The
memory is a few numbers per block and not per image.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

WINDOW_BLOCKS = 8
"""Blocks whose images are shuffled together; a reader should keep as many in memory."""

Sizes = NDArray[np.int64]
"""The number of images in each block."""


@runtime_checkable
class ReadInBlocks(Protocol):
    """An image set that may be read in blocks of consecutive indices, which are cheap to read together.

    Its images are in random order: any range of them represents the set.
    """

    @property
    def block_sizes(self) -> Sizes | None:
        """Images in each block, in the order of indices; None where each image is read on its own."""


def block_sizes_of(images: object) -> Sizes | None:
    """The blocks of an image set; None where each image is read on its own."""
    return images.block_sizes if isinstance(images, ReadInBlocks) else None


def subset_sizes(sizes: Sizes, indices: Sequence[int]) -> Sizes:
    """The blocks of a subset of a set with blocks of these sizes; ``indices`` are ascending."""
    blocks = np.searchsorted(np.cumsum(sizes), np.asarray(indices, dtype=np.int64), side="right")
    return np.bincount(blocks, minlength=len(sizes)).astype(np.int64)


class Permutation(Protocol):
    """The index of the image at each place of an epoch."""

    def __getitem__(self, place: int, /) -> int: ...


def permutation(length: int, sizes: Sizes | None, generator: torch.Generator) -> Permutation:
    """A permutation of the indices of a set: uniform without blocks, local with them."""
    if sizes is not None:
        return LocalPermutation(sizes, generator)
    order: list[int] = torch.randperm(length, generator=generator).tolist()
    return order


class LocalPermutation:
    """A permutation of blocks, and of the images within each window of ``WINDOW_BLOCKS`` blocks with images."""

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        ends, filled = np.cumsum(sizes), sizes > 0  # a subset has none of the images of most blocks
        firsts, sizes = (ends - sizes)[filled], sizes[filled]
        order = torch.randperm(len(sizes), generator=generator).numpy()
        self._sizes, self._firsts = sizes[order], firsts[order]
        self._starts = (np.cumsum(self._sizes) - self._sizes)[::WINDOW_BLOCKS]
        self._seeds = torch.randint(2**62, (len(self._starts),), generator=generator).tolist()
        self._indices = lru_cache(maxsize=2)(self._indices_of_window)

    def __getitem__(self, place: int, /) -> int:
        window = int(np.searchsorted(self._starts, place, side="right")) - 1
        return int(self._indices(window)[place - self._starts[window]])

    def _indices_of_window(self, window: int) -> NDArray[np.int64]:
        """The shuffled indices of the images in a window."""
        blocks = slice(window * WINDOW_BLOCKS, (window + 1) * WINDOW_BLOCKS)
        ranges = zip(self._firsts[blocks].tolist(), self._sizes[blocks].tolist(), strict=True)
        indices = np.concatenate([np.arange(first, first + size) for first, size in ranges])
        generator = torch.Generator().manual_seed(self._seeds[window])
        shuffled: NDArray[np.int64] = indices[torch.randperm(len(indices), generator=generator).numpy()]
        return shuffled

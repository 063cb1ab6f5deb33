from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnetv5.data.loading import Order
from fbnetv5.data.shuffling import WINDOW_BLOCKS, LocalPermutation, Sizes, block_sizes_of, subset_sizes

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any)


@dataclass
class InBlocks:
    """A set that is read in blocks."""

    block_sizes: Sizes

    def __len__(self) -> int:
        return int(self.block_sizes.sum())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def epochs(images: InBlocks, batch: int, *, first: int = 0, rank: int = 0, world: int = 1) -> Iterator[list[int]]:
    order = Order(batch=batch, seed=5, first_step=first, rank=rank, world=world)
    return map(list, order.groups(images))


@given(SIZES)
@settings(max_examples=50, deadline=None)
def test_a_local_permutation_has_every_index_once(sizes: list[int]) -> None:
    order = LocalPermutation(np.array(sizes), generator())
    assert sorted(order[place] for place in range(sum(sizes))) == list(range(sum(sizes)))


def test_a_window_of_places_reads_few_blocks_and_mixes_them() -> None:
    sizes = np.full(64, 10)
    order = LocalPermutation(sizes, generator())
    blocks = [order[place] // 10 for place in range(640)]
    for start in range(0, 640, 10 * WINDOW_BLOCKS):
        assert len(set(blocks[start : start + 10 * WINDOW_BLOCKS])) == WINDOW_BLOCKS
        assert len(set(blocks[start : start + 10])) > 2
    assert blocks[:80] != sorted(blocks[:80])
    assert blocks != [LocalPermutation(sizes, generator(1))[place] // 10 for place in range(640)]


def test_blocks_without_images_take_no_place_in_a_window() -> None:
    sizes = np.array([10, 0, 0, 0] * 64)
    order = LocalPermutation(sizes, generator())
    places = [order[place] for place in range(640)]
    assert sorted(places) == list(range(640))
    for start in range(0, 640, 10 * WINDOW_BLOCKS):
        window = places[start : start + 10 * WINDOW_BLOCKS]
        assert len({index // 10 for index in window}) == WINDOW_BLOCKS


@given(SIZES, st.integers(1, 9), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_a_resumed_stream_of_blocks_goes_on_where_it_was(sizes: list[int], batch: int, first: int) -> None:
    images = InBlocks(np.array(sizes))
    whole = list(islice(epochs(images, batch), first + 3))
    assert list(islice(epochs(images, batch, first=first), 3)) == whole[first:]


def test_two_processes_share_no_image_of_an_epoch() -> None:
    images = InBlocks(np.array([7, 0, 5, 12] * 5))
    ranks = [chain.from_iterable(islice(epochs(images, 4, rank=rank, world=2), 15)) for rank in range(2)]
    assert sorted(chain(*ranks)) == list(range(120))


@given(SIZES, st.data())
@settings(max_examples=25, deadline=None)
def test_the_blocks_of_a_subset_count_its_images_in_each_block(sizes: list[int], data: st.DataObject) -> None:
    block_of = [block for block, size in enumerate(sizes) for _ in range(size)]
    indices = sorted(data.draw(st.sets(st.sampled_from(range(len(block_of))))))
    expected = [sum(block_of[index] == block for index in indices) for block in range(len(sizes))]
    assert subset_sizes(np.array(sizes), indices).tolist() == expected


def test_a_set_without_blocks_keeps_its_uniform_order() -> None:
    assert block_sizes_of(range(6)) is None
    first = list(chain.from_iterable(islice(Order(batch=3, seed=5).groups(range(6)), 2)))
    assert first == torch.randperm(6, generator=generator(5 << 31)).tolist()

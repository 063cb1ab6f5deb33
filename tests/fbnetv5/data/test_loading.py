from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.errors import UserError
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.loading import (
    SUBSTITUTES,
    Order,
    Reading,
    Transform,
    batches,
    even_batches,
    images_per_batch,
    in_order,
    some_indices,
)
from fbnetv5.data.sample import Sample
from fbnetv5.data.scenes import Scenes
from fbnetv5.data.splits import Subset
from fbnetv5.data.targets import CLASS, Target


@dataclass
class Numbered:
    """Images whose label is their index."""

    length: int
    targets: ClassVar[Mapping[str, Target]] = {"label": Target(kind=CLASS)}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        image = torch.zeros(3, 1, 1, dtype=torch.uint8)
        return Sample(image=image, targets={"label": index})


def labels(
    length: int, steps: int, *, batch: int, seed: int = 0, first: int = 0, rank: int = 0, world: int = 1
) -> list[list[int]]:
    stream = batches(Numbered(length), Order(batch=batch, seed=seed, first_step=first, rank=rank, world=world))
    return [item.targets["label"].tolist() for item in islice(stream, steps)]


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [((64, 64), 128, 128), ((512, 512), 128, 64), ((512, 512), 16, 16), ((1024, 2048), 64, 8), ((4096, 4096), 64, 2)],
)
def test_large_images_run_in_smaller_batches(size: tuple[int, int], most: int, expected: int) -> None:
    assert images_per_batch(Scenes("test", size=size, count=1), most) == expected


def test_a_set_without_images_has_a_batch_size() -> None:
    assert images_per_batch(Subset(Scenes("test", size=(64, 64), count=1), []), 64) == 64


@given(length=st.integers(1, 20), batch=st.integers(1, 30), seed=st.integers(0, 2**31), first=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_a_resumed_stream_goes_on_where_it_was(length: int, batch: int, seed: int, first: int) -> None:
    whole = labels(length, first + 3, batch=batch, seed=seed)
    assert labels(length, 3, batch=batch, seed=seed, first=first) == whole[first:]
    assert all(len(step) == batch for step in whole)


@given(length=st.integers(1, 20), batch=st.integers(1, 7), world=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_ranks_share_out_what_one_process_would_take(length: int, batch: int, world: int) -> None:
    alone = labels(length, 4, batch=batch * world)
    ranks = [labels(length, 4, batch=batch, rank=rank, world=world) for rank in range(world)]
    assert [list(chain.from_iterable(shares)) for shares in zip(*ranks, strict=True)] == alone


def test_every_epoch_holds_every_image_once_in_another_order() -> None:
    flat = list(chain.from_iterable(labels(12, 8, batch=3)))
    epochs = [flat[:12], flat[12:24]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert epochs[0] != epochs[1]
    assert labels(12, 4, batch=3) != labels(12, 4, batch=3, seed=1)


def test_a_set_smaller_than_a_batch_wraps() -> None:
    (step,) = labels(3, 1, batch=7)
    assert sorted(Counter(step).values()) == [2, 2, 3]


def test_in_order_takes_each_once_up_to_the_limit() -> None:
    sizes = [item.targets["label"].tolist() for item in in_order(Numbered(7), batch=3)]
    assert sizes == [[0, 1, 2], [3, 4, 5], [6]]
    assert [item.targets["label"].tolist() for item in in_order(Numbered(7), batch=3, limit=4)] == [[0, 1, 3], [5]]
    assert sum(len(item.targets["label"]) for item in in_order(Numbered(7), batch=3, limit=99)) == 7


def test_workers_change_nothing_but_the_time() -> None:
    with_workers = [
        item.targets["label"].tolist()
        for item in in_order(Numbered(9), batch=2, reading=Reading(num_workers=2, prefetch=1))
    ]
    assert with_workers == [item.targets["label"].tolist() for item in in_order(Numbered(9), batch=2)]
    stream = batches(Numbered(9), Order(batch=4, seed=3), reading=Reading(num_workers=1))
    assert [item.targets["label"].tolist() for item in islice(stream, 3)] == labels(9, 3, batch=4, seed=3)


def test_torch_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    labels(5, 4, batch=2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_a_user_error(image_folder: Path, workers: int) -> None:
    path = image_folder / "images/03.png"
    path.write_bytes(path.read_bytes()[:600])
    folder = open_folder(image_folder).resized((64, 64))
    with pytest.raises(UserError, match=r"^cannot read .*03\.png") as caught:
        list(in_order(folder, batch=4, reading=Reading(num_workers=workers)))
    assert "\n" not in str(caught.value)


@dataclass
class Damaged(Numbered):
    """Images of which some cannot be read."""

    damaged: frozenset[int] = frozenset()

    def __getitem__(self, index: int) -> Sample:
        if index in self.damaged:
            raise UserError(f"image {index} is damaged")
        return super().__getitem__(index)


@pytest.mark.parametrize("transform", [None, lambda sample, _: sample], ids=["plain", "transformed"])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_readable_image_replaces_one_of_a_training_batch(workers: int, transform: Transform | None) -> None:
    damaged = Damaged(6, damaged=frozenset({2, 3, 5}))
    stream = batches(damaged, Order(batch=3, seed=1), reading=Reading(num_workers=workers), transform=transform)
    items = list(islice(stream, 4))
    instead = {0: 0, 1: 1, 2: 4, 3: 4, 4: 4, 5: 0}
    found = [item.targets["label"].tolist() for item in items]
    assert found == [[instead[label] for label in step] for step in labels(6, 4, batch=3, seed=1)]
    assert [[index % 6 for index in item.indices.tolist()] for item in items] == found
    assert {error for item in items for error in item.unreadable} == {f"image {n} is damaged" for n in (2, 3, 5)}


def test_a_set_without_readable_images_is_a_user_error() -> None:
    damaged = Damaged(SUBSTITUTES + 2, damaged=frozenset(range(SUBSTITUTES + 1)))
    with pytest.raises(UserError, match="image 0 is damaged"):
        list(even_batches(damaged, batch=1, count=1))


def test_processes_share_the_batches_of_an_evaluation() -> None:
    whole = [item.indices.tolist() for item in in_order(Numbered(11), batch=2)]
    shares = [[item.indices.tolist() for item in in_order(Numbered(11), batch=2, rank=r, world=3)] for r in range(3)]
    assert [shares[number % 3][number // 3] for number in range(6)] == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_has_the_indices_of_its_images(workers: int) -> None:
    for batch in islice(batches(Numbered(10), Order(batch=4, seed=0), reading=Reading(num_workers=workers)), 4):
        assert batch.indices.tolist() == batch.targets["label"].tolist()


@pytest.mark.parametrize(("length", "batch", "count"), [(100, 8, 3), (24, 8, 3), (20, 8, 3), (5, 8, 2), (3, 1, 2)])
def test_even_batches_are_each_evenly_spaced_over_the_set(length: int, batch: int, count: int) -> None:
    groups = [item.targets["label"].tolist() for item in even_batches(Numbered(length), batch=batch, count=count)]
    everything = sorted(label for labels in groups for label in labels)
    assert len(groups) <= count
    assert max(map(len, groups)) <= batch
    assert len(set(everything)) == len(everything) == min(length, batch * count)
    for labels in groups:
        gaps = np.diff([-length / len(labels) / 2, *labels, length + length / len(labels) / 2])
        assert max(gaps) <= 2 * length / len(labels)


def test_images_that_represent_a_set_are_spaced_out_or_the_first_ones_of_a_set_in_blocks() -> None:
    @dataclass
    class InBlocks(Numbered):
        block_sizes = np.array([4, 4, 2])

    assert list(some_indices(Numbered(10), 3)) == [0, 3, 6]
    assert some_indices(InBlocks(10), 3) == range(3)
    assert len(some_indices(InBlocks(10), 30)) == len(some_indices(Numbered(10), 30)) == 10


def test_a_transform_gets_each_image_in_order_with_a_distinct_draw() -> None:
    def transform(sample: Sample, draw: int) -> Sample:
        seen.append((sample.targets["label"], draw))
        return replace(sample, targets={"label": 1000 + draw})

    seen: list[tuple[int, int]] = []
    stream = batches(Numbered(5), Order(batch=3, seed=2), transform=transform)
    results = list(chain.from_iterable(batch.targets["label"].tolist() for batch in islice(stream, 10)))
    assert [label for label, _ in seen[:30]] == list(chain.from_iterable(labels(5, 10, batch=3, seed=2)))
    assert results == [1000 + draw for _, draw in seen[:30]]
    assert len({draw for _, draw in seen[:30]}) == 30
    assert all(draw % 5 == label for label, draw in seen)

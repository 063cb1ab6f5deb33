import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from export.errors import UserError
from fbnetv5.spaces import read_space
from fbnetv5.spaces.fbnetv3 import FBNETV3, STRIDES
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.scaled import (
    MAX_BLOCKS,
    ScaledSpace,
    block_counts,
    choices_of,
    scale_counts,
    scaled_space,
    sequences,
)

SPACE = FourPathSpace(stages=2, blocks_per_path=2)
PATHS = {"t": STRIDES}


def blocks_of(letter: str) -> list[int]:
    return [1 + group.repeats for group in FBNETV3[letter].groups]


def random_choices(seed: int) -> Any:
    return np.random.default_rng(seed).integers(2, size=len(SPACE.variables))


def test_the_defaults_are_variant_a() -> None:
    assert ScaledSpace().nodes == FourPathSpace().nodes
    assert ScaledSpace().label == "variant a of width 1"


def test_largest_remainders_make_f_of_e() -> None:
    assert scale_counts(blocks_of("e"), sum(blocks_of("f"))) == blocks_of("f")


CASES = {
    "nothing changes": ([3, 0, 5], 8, [3, 0, 5]),
    "the largest remainder first": ([3, 0, 5], 9, [3, 0, 6]),
    "of equal remainders the first": ([2, 2], 5, [3, 2]),
    "no sequence disappears": ([1, 1, 8], 5, [1, 1, 4]),
    "nor one of the smallest": ([1, 1, 1], 1, [1, 1, 1]),
    "a full sequence": ([1, 9], 30, [3, 16]),
    "twice": ([1, 3, 0], 8, [2, 6, 0]),
}


@pytest.mark.parametrize(("counts", "total", "expected"), CASES.values(), ids=CASES)
def test_counts_are_scaled_in_proportion(counts: list[int], total: int, expected: list[int]) -> None:
    assert scale_counts(counts, total) == expected


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 9), min_size=1).filter(any), total=st.integers(1, 200))
@example(counts=[1, 1, 1, 1, 3], total=5)
def test_scaled_counts_have_the_sum_unless_sequences_are_one_or_full(counts: list[int], total: int) -> None:
    scaled = scale_counts(counts, total)
    assert [number > 0 for number in scaled] == [number > 0 for number in counts]
    raised = sum(0 < total * count < sum(counts) for count in counts)
    if max(scaled) < MAX_BLOCKS:
        assert total <= sum(scaled) <= total + raised


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), more=st.integers(0, 3))
def test_a_scaled_network_has_the_blocks_and_edges_that_it_should(seed: int, more: int) -> None:
    graph = SPACE.graph(random_choices(seed), PATHS)
    counts = [number + more * (number > 0) for number in block_counts(SPACE, graph)]
    space = scaled_space(SPACE, counts, 1.3)
    scaled = space.graph(choices_of(space, counts, graph), PATHS)
    assert block_counts(space, scaled) == counts
    assert [step.node for step in scaled.steps if "_from_" in step.node] == [
        step.node for step in graph.steps if "_from_" in step.node
    ]
    assert scaled.channels("t") == (32, 56, 160, 288)  # 1.3 times 24, 40, 120, 224: 31.2, 52, 156, 291.2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_same_counts_and_widths_give_equal_blocks(seed: int) -> None:
    graph = SPACE.graph(random_choices(seed), PATHS)
    counts = block_counts(SPACE, graph)
    space = scaled_space(SPACE, counts, 1.0)
    scaled = space.graph(choices_of(space, counts, graph), PATHS)
    assert [step.block for step in scaled.steps] == [step.block for step in graph.steps]


def test_every_inverted_residual_is_in_one_sequence() -> None:
    space = ScaledSpace(variant="c", stages=2, blocks_per_path=3, repeats=(2, 1, 0, 7, 5, 5, 1))
    names = [name for sequence in sequences(space) for name in sequence]
    assert len(names) == len(set(names))
    assert set(names) == {node.name for node in space.nodes if "_from_" not in node.name} - {"s0_p4_0"}


def test_a_scaled_space_is_scaled_again() -> None:
    counts = [1] * (7 + 8)
    twice = scaled_space(scaled_space(SPACE, counts, 1.5), counts, 2.0)
    assert (twice.width, twice.repeats, twice.blocks_per_path) == (3.0, (0,) * 7, 1)


def test_a_scaled_space_is_read_as_it_was_written() -> None:
    space = ScaledSpace(variant="ac", width=1.25, repeats=(1, 2, 3, 4, 5, 6, 7))
    assert read_space(json.loads(json.dumps(space.to_json()))) == space


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "too narrow": ({"width": 0.01}, "width: must be greater than or equal to 0.05"),
    "a group is missing": ({"repeats": (1,) * 6}, "repeats"),
    "too many repeats": ({"repeats": (17,) * 7}, "must be less than or equal to 16"),
}


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG)
def test_an_invalid_space_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ScaledSpace(**fields)

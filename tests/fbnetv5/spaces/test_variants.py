from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.errors import UserError
from fbnetv5.blocks.specs import InvertedResidual
from fbnetv5.spaces.fbnetv3 import VARIANTS
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices
from fbnetv5.spaces.variants import group_nodes, move_choices, stage_zero, widen_choices
from fbnetv5.spaces.wide import WideSpace

NAMES: tuple[Any, ...] = tuple(VARIANTS)
SPACES = {variant: FourPathSpace(variant=variant, stages=1, blocks_per_path=1) for variant in NAMES}


def by_name(space: FourPathSpace, choices: Choices) -> dict[str, int]:
    return {variable.name: int(choice) for variable, choice in zip(space.variables, choices, strict=True)}


def without(space: FourPathSpace, *names: str) -> Choices:
    """The full architecture without the nodes of these names."""
    assert set(names) <= {variable.name for variable in space.variables}
    return np.array([int(variable.name not in names) for variable in space.variables])


@pytest.mark.parametrize("variant", SPACES)
def test_the_groups_have_every_block_of_stage_zero_but_the_stem(variant: str) -> None:
    network = SPACES[variant].encoder
    groups = group_nodes(network)
    assert [name for names in groups for name in names] == stage_zero(network)[1:]
    candidates = {node.name: node.candidates[0] for node in SPACES[variant].nodes}
    for names, group in zip(groups, network.groups, strict=True):
        blocks = [candidates[name] for name in names]
        assert len(blocks) == 1 + group.repeats
        assert all(isinstance(block, InvertedResidual) and block.out_channels == group.channels for block in blocks)


@settings(max_examples=20, deadline=None)
@given(choices=st.lists(st.integers(0, 1), min_size=200, max_size=200), variant=st.sampled_from(sorted(VARIANTS)))
def test_the_own_variant_changes_nothing(choices: list[int], variant: str) -> None:
    space = SPACES[variant]
    own = np.array(choices[: len(space.variables)])
    assert (move_choices(own, space, space) == own).all()


@pytest.mark.parametrize(("source", "target"), list(permutations(VARIANTS, 2)))
def test_nodes_of_later_stages_keep_their_choices(source: str, target: str) -> None:
    skipped = ("s1_p8_0", "s1_p16_from_p8")
    moved = by_name(SPACES[target], move_choices(without(SPACES[source], *skipped), SPACES[source], SPACES[target]))
    assert {name for name, choice in moved.items() if choice == 0} == set(skipped)


CASES = {
    # Group 1 (stride 4) has 3 repeats in a and 4 in c and f: the fourth has the choice of the third.
    "an additional repeat follows the last": ("a", "c", ("s0_p4_6",), {"s0_p4_6", "s0_p4_7"}),
    "another repeat is alone": ("a", "c", ("s0_p4_5",), {"s0_p4_5"}),
    # Group 0 has one repeat in a and two in f, so the nodes of group 1 are one further.
    "blocks correspond by group, not by position": ("a", "f", ("s0_p4_4",), {"s0_p4_5"}),
    # Group 4 has 5 repeats in a and 8 in f.
    "several additional repeats": ("a", "f", ("s0_p16_10",), {f"s0_p16_{number}" for number in range(10, 14)}),
    "a repeat that is missing is dropped": ("c", "a", ("s0_p4_7",), set()),
    "the first ones stay": ("f", "a", ("s0_p16_12", "s0_p16_6"), {"s0_p16_6"}),
    "the nodes of ac are those of a": ("f", "ac", ("s0_p16_12", "s0_p16_6"), {"s0_p16_6"}),
    # The last block of c keeps its width and may be skipped; that of a may not.
    "a block that always runs": ("c", "a", ("s0_p32_6",), set()),
}


@pytest.mark.parametrize(("source", "target", "skipped", "expected"), CASES.values(), ids=CASES)
def test_blocks_of_stage_zero_move_by_group_and_number(
    source: str, target: str, skipped: tuple[str, ...], expected: set[str]
) -> None:
    moved = move_choices(without(SPACES[source], *skipped), SPACES[source], SPACES[target])
    assert {name for name, choice in by_name(SPACES[target], moved).items() if choice == 0} == expected


def test_spaces_of_other_stages_are_refused() -> None:
    with pytest.raises(UserError, match="not between spaces of other stages or blocks"):
        move_choices(SPACES["a"].full(), SPACES["a"], FourPathSpace(variant="c", stages=2, blocks_per_path=1))


@settings(max_examples=20, deadline=None)
@given(choices=st.lists(st.integers(0, 1), min_size=200, max_size=200), strict=st.booleans())
def test_a_network_is_the_same_in_the_wide_space(choices: list[int], strict: bool) -> None:
    source, paths = FourPathSpace(variant="c", stages=2, blocks_per_path=1, strict=strict), {"seg": (4, 8, 16, 32)}
    target = WideSpace(variant="c", stages=2, blocks_per_path=1)
    own = np.array(choices[: len(source.variables)])
    widened = target.check(widen_choices(own, source, target).tolist())
    steps = [
        [(step.name, step.block, step.inputs) for step in space.graph(network, paths).steps]
        for space, network in ((source, own), (target, widened))
    ]
    assert steps[0] == steps[1]


def test_a_network_of_other_blocks_is_in_no_other_space() -> None:
    wide, default = (kind(stages=1, blocks_per_path=1) for kind in (WideSpace, FourPathSpace))
    with pytest.raises(UserError, match="not in the space of variant a: s0_p4_3 has another block there"):
        widen_choices(wide.full(), wide, default)


def test_a_network_of_other_nodes_is_in_no_other_space() -> None:
    longer = FourPathSpace(stages=2, blocks_per_path=1)
    with pytest.raises(UserError, match="the nodes of variant a are not those of variant a, wide"):
        widen_choices(longer.full(), longer, WideSpace(stages=1, blocks_per_path=1))

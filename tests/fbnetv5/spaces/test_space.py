"""What every space has in common, on a small one whose variables set several nodes and whose nodes have several."""

import itertools
from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import pytest

from fbnetv5.blocks.specs import Block, InvertedResidual, Stem
from fbnetv5.costs.tables import CostTable
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.graph import SKIPPED, Node, Variable
from fbnetv5.spaces.space import Choices, Space

KERNELS, DEPTH, EXPANSION = 0, 1, 2


def residual(kernel: int, expansion: int) -> Block:
    return InvertedResidual(kernel=kernel, in_channels=16, out_channels=16, expansion=expansion)


class StageSpace(Space):
    """A stage of four blocks: one kernel for all, a depth of two to four, and the expansion of the first two."""

    title: ClassVar[str] = "space"
    kind: Literal["stage"] = "stage"

    @property
    def label(self) -> str:
        return "one stage"

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        return (
            Variable(name="kernel", choices=("3", "5", "7")),
            Variable(name="depth", choices=("2", "3", "4")),
            Variable(name="expansion", choices=("1", "2")),
        )

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        wide = tuple(residual(kernel, expansion) for kernel in (3, 5, 7) for expansion in (1, 2))
        plain = tuple(residual(kernel, 1) for kernel in (3, 5, 7))
        stem = Node(name="stem", inputs=(), candidates=(Stem(out_channels=16),), stride=2, stage=0)
        first = [
            Node(
                name=f"b{number}",
                inputs=(previous,),
                candidates=wide,
                stride=2,
                stage=1,
                variables=(KERNELS, EXPANSION),
                table=tuple(range(6)),
            )
            for number, previous in ((0, "stem"), (1, "b0"))
        ]
        rest = [
            Node(
                name=f"b{number}",
                inputs=(f"b{number - 1}",),
                candidates=plain,
                stride=2,
                stage=1,
                variables=(DEPTH, KERNELS),
                table=tuple(k if 2 + depth > number else SKIPPED for depth in range(3) for k in range(3)),
            )
            for number in (2, 3)
        ]
        return (stem, *first, *rest)

    @cached_property
    def ends(self) -> Mapping[int, str]:
        return {2: "b3"}


SPACE = StageSpace()
EVERYTHING: Choices = np.array(list(itertools.product(range(3), range(3), range(2))))


def blocks_by_definition(choices: Choices) -> list[Block]:
    kernel, depth, expansion = (3, 5, 7)[choices[KERNELS]], 2 + choices[DEPTH], 1 + choices[EXPANSION]
    first = [residual(kernel, expansion)] * 2
    return [Stem(out_channels=16), *first, *[residual(kernel, 1)] * (depth - 2)]


@pytest.mark.parametrize("choices", EVERYTHING, ids=str)
def test_variables_set_their_nodes(choices: Choices) -> None:
    graph = SPACE.graph(choices, {"t": (2,)})
    assert [step.block for step in graph.steps] == blocks_by_definition(choices)
    assert graph.features["t"] == (f"b{1 + choices[DEPTH]}",)
    assert graph.channels("t") == (16,)


def test_a_batch_has_the_candidates_of_its_members() -> None:
    single = [SPACE.candidates(choices[None])[0] for choices in EVERYTHING]
    np.testing.assert_array_equal(SPACE.candidates(EVERYTHING), np.stack(single))
    np.testing.assert_array_equal(SPACE.live(EVERYTHING, [2]), np.stack(single) != SKIPPED)


def test_a_variable_affects_a_network_while_one_of_its_nodes_runs() -> None:
    affects = SPACE.affects(EVERYTHING, [2])
    assert affects[:, [KERNELS, EXPANSION]].all()
    np.testing.assert_array_equal(affects[:, DEPTH], EVERYTHING[:, DEPTH] > 0)
    assert SPACE.needed(EVERYTHING, [2]).all()


def test_full_skips_nothing_and_empty_what_can_be_skipped() -> None:
    assert SPACE.empty().tolist() == [0, 0, 0]
    assert SPACE.full().tolist() == [0, 2, 0]
    assert SPACE.live(SPACE.full()[None], [2]).all()
    assert SPACE.choice_counts == (3, 3, 2)
    assert [node.skippable for node in SPACE.nodes] == [False, False, False, True, True]


def test_the_largest_and_the_smallest_cost_are_those_of_enumeration() -> None:
    values = np.zeros((5, 6))
    for row, node in enumerate(SPACE.nodes):
        for column, block in enumerate(node.candidates):
            values[row, column] = (block.kernel * block.expansion if isinstance(block, InvertedResidual) else 1) + row
    table = CostTable(space=SPACE, paths=(2,), unit="macs", blocks=values, head=0.5)
    costs = table(EVERYTHING)
    expected = [
        0.5 + sum(values[r, c] for r, c in enumerate(row) if c != SKIPPED) for row in SPACE.candidates(EVERYTHING)
    ]
    np.testing.assert_allclose(costs, expected)
    assert (table.min_cost, table.max_cost) == (costs.min(), costs.max())


@pytest.mark.parametrize("seed", range(3))
def test_sources_are_the_inputs_of_the_steps_of_a_graph(seed: int) -> None:
    space = FourPathSpace(stages=2, blocks_per_path=1)
    choices = np.random.default_rng(seed).integers(2, size=len(space.variables))
    sources, names = space.sources(choices[None])[0], [node.name for node in space.nodes]
    for step in space.graph(choices, {"seg": (4, 8, 16, 32)}).steps:
        column = names.index(step.node)
        assert sources[column] == column
        assert tuple(names[sources[each]] for each in space.input_columns[column]) == step.inputs
    assert space.end_columns((8, 32)) == tuple(names.index(space.ends[path]) for path in (8, 32))

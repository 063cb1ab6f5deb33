import json
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.errors import UserError
from fbnetv5.blocks.specs import Fusion, InvertedResidual
from fbnetv5.costs.tables import Counter
from fbnetv5.data.scenes import CLASSES
from fbnetv5.spaces import read_space
from fbnetv5.spaces.fbnetv3 import STRIDES
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.graph import Node
from fbnetv5.spaces.space import SKIP, Choices, Space
from fbnetv5.tasks import make_tasks

SPACES = {
    "a": FourPathSpace(variant="a"),
    "c": FourPathSpace(variant="c"),
    "ac": FourPathSpace(variant="ac"),
    "a-lite": FourPathSpace(variant="a-lite"),
    "f, strict": FourPathSpace(variant="f", strict=True),
    "a, small": FourPathSpace(stages=2, blocks_per_path=1),
    "a, no later stages": FourPathSpace(stages=0),
}
FIELDS = {"variant": "a", "stages": 4, "blocks_per_path": 2, "strict": False}
PATH_SETS = [(4, 8, 16, 32), (8, 16, 32), (32,), (4,), (16, 4)]


class WiderSpace(FourPathSpace):
    """Every inverted residual that keeps its input's shape may also have kernel 7 or a doubled expansion."""

    @cached_property
    def _positions(self) -> tuple[Node, ...]:
        return tuple(replace(node, candidates=widened(node)) for node in super()._positions)


def widened(node: Node) -> tuple[Any, ...]:
    (block,) = node.candidates
    if not isinstance(block, InvertedResidual) or not block.keeps_shape:
        return (block,)
    return (block, replace(block, kernel=7), replace(block, expansion=block.expansion * 2))


def choice_of(node: Node, choices: Choices) -> int | None:
    """The choice of the variable that sets a node, if one does."""
    return int(choices[node.variables[0]]) if node.variables else None


def drawn(space: Space, seed: int, count: int = 1) -> Choices:
    return np.random.default_rng(seed).integers(np.array(space.choice_counts), size=(count, len(space.variables)))


def live_by_recursion(space: Space, choices: Choices, paths: tuple[int, ...]) -> set[str]:
    """The definition, followed backwards from the features: a skipped node stands for its first input."""
    nodes = {node.name: node for node in space.nodes}

    @cache
    def ancestors(name: str) -> frozenset[str]:
        node = nodes[name]
        if choice_of(node, choices) == SKIP:
            return ancestors(node.inputs[0])
        return frozenset({name}).union(*(ancestors(source) for source in node.inputs))

    return set().union(*(ancestors(space.ends[path]) for path in paths))


@pytest.mark.parametrize(
    ("variant", "repeats"),
    [
        ("a", 2 + 3 + 4 + 4 + 5 + 5),
        ("c", 2 + 4 + 4 + 4 + 5 + 5 + 1),
        ("f", 3 + 4 + 4 + 4 + 8 + 6),
        ("ac", 23),
        ("a-lite", 23),
    ],
)
def test_variables_are_repeats_fusion_edges_and_later_blocks(variant: Any, repeats: int) -> None:
    edges, blocks = 4 * 6, 4 * 4 * 2
    assert len(FourPathSpace(variant=variant, strict=True).variables) == blocks
    assert len(FourPathSpace(variant=variant).variables) == repeats + edges + blocks


@pytest.mark.parametrize("variant", ["a", "c", "f", "ac", "a-lite"])
def test_the_strict_reading_chooses_later_blocks_alone(variant: Any) -> None:
    for node in FourPathSpace(variant=variant, strict=True).skippable:
        assert isinstance(node.candidates[0], InvertedResidual)
        assert node.name.startswith(("s1_", "s2_", "s3_", "s4_"))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_feature_halves_and_every_width_fits(space: Space) -> None:
    nodes = {node.name: node for node in space.nodes}
    for node in space.nodes:
        block = node.candidates[0]
        height, width = 64 * block.stride // node.stride, 96 * block.stride // node.stride
        given_shapes = [
            (nodes[name].candidates[0].out_channels, 64 // nodes[name].stride, 96 // nodes[name].stride)
            for name in node.inputs
        ] or [(3, 64, 96)]
        assert list(block.input_shapes(height, width)) == given_shapes
    for path in STRIDES:
        end = nodes[space.ends[path]]
        assert (end.stride, (end.channels,)) == (path, space.channels([path]))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_skippable_node_keeps_shape(space: FourPathSpace) -> None:
    nodes = {node.name: node for node in space.nodes}
    assert [node.variables for node in space.skippable] == [(index,) for index in range(len(space.variables))]
    assert [node.name for node in space.skippable] == [variable.name for variable in space.variables]
    for node in space.skippable:
        first = nodes[node.inputs[0]]
        assert node.stride == first.stride
        assert {block.out_channels for block in node.candidates} == {first.candidates[0].out_channels}


def test_equal_parameters_give_equal_nodes() -> None:
    assert FourPathSpace(variant="c").nodes == FourPathSpace(variant="c").nodes
    assert len({node.name for node in SPACES["a"].nodes}) == len(SPACES["a"].nodes)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(SPACES)), paths=st.sampled_from(PATH_SETS), seed=st.integers(0, 2**32))
def test_liveness_follows_its_definition(name: str, paths: tuple[int, ...], seed: int) -> None:
    space = SPACES[name]
    keep = np.random.default_rng(seed).random() ** 2
    choices = (np.random.default_rng(seed + 1).random(len(space.variables)) < keep).astype(np.int64)
    expected = live_by_recursion(space, choices, paths)
    live = space.live(choices[None], paths)[0]
    assert {node.name for node, runs in zip(space.nodes, live, strict=True) if runs} == expected
    assert [step.name for step in space.graph(choices, {"t": paths}).steps] == [
        node.name for node in space.nodes if node.name in expected
    ]


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(sorted(SPACES)), paths=st.sampled_from(PATH_SETS), seed=st.integers(0, 2**32))
def test_a_variable_is_needed_if_keeping_it_would_make_it_live(name: str, paths: tuple[int, ...], seed: int) -> None:
    space, rng = SPACES[name], np.random.default_rng(seed)
    choices = (rng.random(len(space.variables)) < rng.random()).astype(np.int64)
    needed = space.needed(choices[None], paths)[0]
    for variable, node in enumerate(space.skippable):
        kept = choices.copy()
        kept[variable] = 1
        assert needed[variable] == (node.name in live_by_recursion(space, kept, paths))


def test_a_batch_is_as_live_as_its_members() -> None:
    space = SPACES["a, small"]
    batch = drawn(space, seed=3, count=64)
    single = [space.live(choices[None], (8, 16, 32))[0] for choices in batch]
    assert np.array_equal(space.live(batch, (8, 16, 32)), np.stack(single))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("paths", PATH_SETS)
def test_a_graph_reads_only_what_already_ran(space: Space, paths: tuple[int, ...]) -> None:
    graph = space.graph(drawn(space, seed=5)[0], {"t": paths})
    done: set[str] = set()
    for step in graph.steps:
        assert done.issuperset(step.inputs)
        done.add(step.name)
    assert len(graph.features["t"]) == len(paths)
    assert done.issuperset(graph.features["t"])


def test_skipped_nodes_pass_their_first_input_through() -> None:
    space = SPACES["a, small"]
    stage_zero = {
        stride: [n.name for n in space.nodes if n.stride == stride and n.name[:2] == "s0"] for stride in STRIDES
    }
    graph = space.graph(space.empty(), {"t": STRIDES})
    fixed = [node.name for node in space.nodes if not node.variables]
    assert [step.name for step in graph.steps] == fixed
    for stride, name in zip(STRIDES, graph.features["t"], strict=True):
        assert name == [node for node in stage_zero[stride] if node in fixed][-1]


def test_keeping_everything_makes_everything_live() -> None:
    space = SPACES["a"]
    assert space.live(space.full()[None], STRIDES).all()
    fused = [step for step in space.graph(space.full(), {"t": STRIDES}).steps if isinstance(step.block, Fusion)]
    assert len(fused) == 4 * 6


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), paths=st.sampled_from(PATH_SETS))
def test_a_space_may_have_wider_choices(seed: int, paths: tuple[int, ...]) -> None:
    space = WiderSpace(stages=1, blocks_per_path=1)
    assert set(space.choice_counts) == {2, 4}
    (choices,) = drawn(space, seed)
    steps = space.graph(space.check(choices.tolist()), {"t": paths}).steps
    assert {step.name for step in steps} == live_by_recursion(space, choices, paths)
    nodes = {node.name: node for node in space.nodes}
    for step in steps:
        choice = choice_of(nodes[step.name], choices)
        assert step.candidate == (0 if choice is None else choice - 1)
        assert step.block == nodes[step.name].candidates[step.candidate]


def test_valid_choices_become_an_array() -> None:
    space = SPACES["a, small"]
    checked = space.check([1, *space.empty()[1:]])
    assert checked.dtype == np.int64
    assert checked.tolist() == [1] + [0] * (len(space.variables) - 1)


@pytest.mark.parametrize("wrong", [2, -1, True, False, 1.0, "1", None], ids=repr)
def test_a_choice_that_does_not_fit_is_refused(wrong: Any) -> None:
    space = SPACES["a, small"]
    choices = space.empty().tolist()
    choices[3] = wrong
    with pytest.raises(UserError, match=rf"variable {space.variables[3].name}: choice must be 0 to 1, not "):
        space.check(choices)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_wrong_number_of_choices_is_refused(length: int) -> None:
    with pytest.raises(UserError, match=rf"^{length} choices do not fit a space of 32 variables$"):
        FourPathSpace(strict=True).check([0] * length)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_space_is_loaded_from_json(space: Space) -> None:
    assert read_space(json.loads(json.dumps(space.to_json()))) == space


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({**FIELDS, "width": 1}, "space: there is no field 'width'; there are: kind, variant, stages"),
        ({"variant": "a"}, "space: blocks_per_path, stages, strict missing"),
        ([], r"a space is an object of fields, not \[\]"),
        ({**FIELDS, "kind": ["four_path"]}, "unknown kind of space"),
        (
            {**FIELDS, "kind": "ring"},
            "'ring'; there are: branching, four_path, scaled, stages, wide$",
        ),
        ({**FIELDS, "variant": "b"}, "space: variant: must be 'a', 'c', 'f', 'ac' or 'a-lite', not 'b'"),
        ({**FIELDS, "variant": "ar"}, "variant AR is variant a at a smaller resolution, which is part of the budget"),
        ({**FIELDS, "variant": ["a"]}, "space: variant: must be 'a', 'c', 'f', 'ac' or 'a-lite'"),
        ({**FIELDS, "stages": -1}, "stages: must be greater than or equal to 0, not -1"),
        ({**FIELDS, "stages": 17}, "stages: must be less than or equal to 16, not 17"),
        ({**FIELDS, "blocks_per_path": 2.0}, "blocks_per_path: must be a valid integer, not 2.0"),
        ({**FIELDS, "stages": True}, "stages: must be a valid integer, not True"),
        ({**FIELDS, "strict": "no"}, "strict: must be a valid boolean, not 'no'"),
        ({**FIELDS, "stages": 0, "strict": True}, "this space has no choices"),
        ({**FIELDS, "blocks_per_path": 0, "strict": True}, "this space has no choices"),
    ],
)
def test_an_invalid_space_is_refused(document: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_space(document)


def test_without_later_stages_the_repeats_of_stage_0_remain() -> None:
    space = SPACES["a, no later stages"]
    assert len(space.variables) == 23
    assert all(node.name.startswith("s0_") for node in space.nodes)


def test_the_largest_networks_of_ac_cost_half_of_those_of_a() -> None:
    (task,) = make_tasks(("cls",), CLASSES).values()
    tables = [Counter((224, 224)).table(SPACES[variant], task, "macs") for variant in ("ac", "a")]
    assert tables[0].max_cost / tables[1].max_cost == pytest.approx(0.5, abs=0.02)
    assert tables[0].min_cost < 0.6 * tables[1].min_cost

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.errors import UserError
from fbnetv5.blocks.specs import InvertedResidual, Stem
from fbnetv5.costs.counting import count
from fbnetv5.costs.tables import CostTable, Counter, block_key, block_shapes, head_key, keyed_table
from fbnetv5.data.resolution import Resolution
from fbnetv5.networks.backbone import Network, task_network
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.graph import Node
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.tasks import make_tasks

SPACE = FourPathSpace(stages=2, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "c"), "boxes": ("a", "b"), "mask": ("w", "x", "y", "z")}
TASKS = make_tasks(("cls", "det", "seg"), CLASSES)
NAMES = tuple(TASKS)
SMALL: Resolution = (64, 64)
COUNTERS = {resolution: Counter(resolution) for resolution in (SMALL, (96, 160), (224, 224))}
STAGES = StageSpace(width=0.25)
"""A space whose heads read features of different widths."""
TABLES = {
    (name, unit): COUNTERS[SMALL].table(SPACE, TASKS[name], unit) for name in NAMES for unit in ("macs", "params")
}


class WiderSpace(FourPathSpace):
    """Every inverted residual that may be skipped may also be cheaper or more expensive than its first candidate."""

    @cached_property
    def _positions(self) -> tuple[Node, ...]:
        return tuple(widened(node) for node in super()._positions)


def widened(node: Node) -> Node:
    (block,) = node.candidates
    if not isinstance(block, InvertedResidual) or not block.keeps_shape:
        return node
    return replace(node, candidates=(block, replace(block, expansion=block.expansion * 2), replace(block, expansion=1)))


def drawn(space: Space, seed: int, count: int = 1) -> Choices:
    return np.random.default_rng(seed).integers(np.array(space.choice_counts), size=(count, len(space.variables)))


def built(name: str, space: Space, choices: Choices) -> Network:
    with torch.device("meta"):
        return task_network(TASKS[name], space, choices).eval()


def torch_macs(network: nn.Module, resolution: Resolution) -> int:
    """Multiply-adds as torch's own counter finds them, which counts each twice."""
    with torch.no_grad(), FlopCounterMode(display=False) as mode:
        network(torch.empty(1, 3, *resolution, device="meta"))
    total = mode.get_total_flops()
    assert total % 2 == 0
    return int(total) // 2


def weights(network: nn.Module) -> int:
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    return sum(layer.weight.numel() for layer in layers)


def assert_table_equals_network(name: str, space: Space, choices: Choices, resolution: Resolution) -> None:
    counter, network = COUNTERS[resolution], built(name, space, choices)
    whole = count(lambda: network, [(3, *resolution)])
    assert counter.table(space, TASKS[name], "macs").cost_of(choices) == whole.macs
    assert counter.table(space, TASKS[name], "params").cost_of(choices) == whole.params == weights(network)
    assert torch_macs(network, resolution) == whole.macs_conv


@pytest.mark.parametrize("resolution", [(64, 64), (224, 224), (96, 160)])
@pytest.mark.parametrize("name", NAMES)
def test_a_table_equals_the_network_that_is_built(name: str, resolution: Resolution) -> None:
    (choices,) = drawn(SPACE, seed=sum(resolution))
    assert_table_equals_network(name, SPACE, choices, resolution)


@pytest.mark.parametrize("name", NAMES)
def test_wider_choices_have_costs(name: str) -> None:
    space = WiderSpace(stages=1, blocks_per_path=1)
    assert_table_equals_network(name, space, drawn(space, seed=1)[0], SMALL)


@pytest.mark.parametrize(
    ("name", "variant"), [("cls", "a"), ("det", "c"), ("seg", "f"), ("det", "ac"), ("cls", "a-lite")]
)
def test_the_default_space_of_each_variant_has_costs(name: str, variant: Any) -> None:
    space = FourPathSpace(variant=variant)
    assert_table_equals_network(name, space, drawn(space, 0)[0], (224, 224))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), key=st.sampled_from(sorted(TABLES)))
def test_no_architecture_is_outside_the_smallest_and_largest_cost(seed: int, key: tuple[str, str]) -> None:
    table = TABLES[key]
    costs = table(drawn(SPACE, seed, count=64))
    assert table.min_cost <= costs.min()
    assert costs.max() <= table.max_cost
    assert table.min_cost == table.cost_of(SPACE.empty())


def test_the_largest_cost_takes_the_most_expensive_candidates() -> None:
    space = WiderSpace(stages=1, blocks_per_path=1)
    table = COUNTERS[SMALL].table(space, TASKS["seg"], "macs")
    doubled = np.array([2 if len(node.candidates) > 1 else 1 for node in space.skippable])
    assert table.max_cost == table.cost_of(doubled) > table.cost_of(space.full())
    assert table.max_cost >= table(drawn(space, 0, count=256)).max()


def test_other_counters_count_nothing_again() -> None:
    channels = SPACE.channels(TASKS["seg"].paths)
    assert Counter(SMALL).head(TASKS["seg"], channels) is COUNTERS[SMALL].head(TASKS["seg"], channels)
    assert Counter(SMALL).block(Stem(out_channels=16), 2) is COUNTERS[SMALL].block(Stem(out_channels=16), 2)


def test_a_batch_costs_what_its_members_cost() -> None:
    batch = drawn(SPACE, 7, count=16)
    for table in TABLES.values():
        assert table(batch).tolist() == [table.cost_of(choices) for choices in batch]


def test_keys_have_the_size_of_the_first_input() -> None:
    block = InvertedResidual(kernel=5, in_channels=24, out_channels=40, expansion=5, stride=2, squeeze=True)
    assert block_key(block, 8, (320, 640)) == "ir_k5_c24-40_e5_s2_se@80x160"
    assert block_shapes(block, 8, (320, 640)) == ((24, 80, 160),)
    assert block_key(Stem(out_channels=16), 2, (320, 640)) == "stem_c16@320x640"
    assert head_key(TASKS["det"], (40, 120, 224), (320, 640)) == "head_det_c40-120-224_n2@320x640"


def made_up(keys: Sequence[str]) -> Mapping[str, float]:
    """Milliseconds that differ from key to key."""
    return {key: 0.01 * (1 + len(key)) for key in keys}


def milliseconds(name: str) -> CostTable:
    return keyed_table(SPACE, TASKS[name], (96, 160), made_up)


@pytest.mark.parametrize("name", NAMES)
def test_milliseconds_are_the_sum_over_live_blocks_and_the_head(name: str) -> None:
    (choices,) = drawn(SPACE, 1)
    graph = SPACE.graph(choices, {name: TASKS[name].paths})
    keys = [block_key(step.block, step.stride, (96, 160)) for step in graph.steps]
    keys.append(head_key(TASKS[name], graph.channels(name), (96, 160)))
    assert milliseconds(name).cost_of(choices) == pytest.approx(sum(made_up([key])[key] for key in keys))
    assert milliseconds(name).unit == "ms"


def test_a_block_without_a_measured_time_is_an_error() -> None:
    def incomplete(keys: Sequence[str]) -> Mapping[str, float]:
        return dict.fromkeys(keys[:-2], 1.0)

    def refusing(keys: Sequence[str]) -> Mapping[str, float]:
        raise UserError(f"no time for {keys[0]}")

    with pytest.raises(KeyError):
        keyed_table(SPACE, TASKS["cls"], SMALL, incomplete)
    with pytest.raises(UserError, match="no time for stem_c16@64x64"):
        keyed_table(SPACE, TASKS["cls"], SMALL, refusing)


def test_each_time_is_looked_up_once() -> None:
    asked: list[str] = []

    def recording(keys: Sequence[str]) -> Mapping[str, float]:
        asked.extend(keys)
        return made_up(keys)

    keyed_table(SPACE, TASKS["cls"], SMALL, recording)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("unit", ["macs", "params"])
@pytest.mark.parametrize("name", NAMES)
def test_a_table_has_the_cost_of_heads_on_features_of_any_width(name: str, unit: str) -> None:
    architectures = drawn(STAGES, seed=2, count=8)
    table = COUNTERS[SMALL].table(STAGES, TASKS[name], unit)
    task = {name: TASKS[name]}
    graphs = [STAGES.graph(choices, {name: TASKS[name].paths}) for choices in architectures]
    assert len({graph.channels(name) for graph in graphs}) > 1
    assert table(architectures).tolist() == [getattr(COUNTERS[SMALL].graph(each, task), unit) for each in graphs]
    assert table.min_cost <= table(architectures).min() <= table(architectures).max() <= table.max_cost


def test_a_network_of_varying_widths_costs_what_its_table_states() -> None:
    assert_table_equals_network("seg", STAGES, drawn(STAGES, seed=3)[0], SMALL)


def test_only_heads_on_features_of_one_width_have_a_fixed_cost() -> None:
    assert TABLES["det", "macs"].fixed_head > 0
    table = COUNTERS[SMALL].table(STAGES, TASKS["det"], "macs")
    with pytest.raises(TypeError, match="differs between the architectures of FBNetV3's stages"):
        _ = table.fixed_head


def test_milliseconds_of_varying_heads_are_looked_up_by_their_widths() -> None:
    table = keyed_table(STAGES, TASKS["det"], SMALL, made_up)
    (choices,) = drawn(STAGES, 4)
    graph = STAGES.graph(choices, {"det": TASKS["det"].paths})
    keys = [block_key(step.block, step.stride, SMALL) for step in graph.steps]
    keys.append(head_key(TASKS["det"], graph.channels("det"), SMALL))
    assert table.cost_of(choices) == pytest.approx(sum(made_up([key])[key] for key in keys))

import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.costs.counting import count
from fbnetv5.costs.tables import Counter, block_key, head_key, latency_table
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy import profile as profiling
from fbnetv5.deploy.profile import Scope, block_facts, fresh_networks, graphs_of, networks_to_fit
from fbnetv5.networks.backbone import Network
from fbnetv5.spaces.four_path import FourPathSpace

SCOPE = Scope(
    space=FourPathSpace(stages=1, blocks_per_path=1), tasks=("cls", "det", "seg"), classes=CLASSES, resolution=(64, 64)
)


def test_every_key_of_every_task_is_timed() -> None:
    keys = [graph.key for graph in graphs_of(SCOPE)]
    assert len(set(keys)) == len(keys)
    values = dict.fromkeys(keys, 1.0)
    for task in SCOPE.built_tasks:
        assert latency_table(SCOPE.space, task, SCOPE.resolution, lambda _: values).head == 1.0


def test_a_networks_blocks_and_multiply_adds_are_those_of_the_network_built() -> None:
    counter = Counter(SCOPE.resolution)
    macs = {
        block_key(block, node.stride, SCOPE.resolution): counter.block(block, node.stride).macs
        for node in SCOPE.space.nodes
        for block in node.candidates
    }
    for task in SCOPE.built_tasks:
        channels = SCOPE.space.channels(task.paths)
        macs[head_key(task, channels, SCOPE.resolution)] = counter.head(task, channels).macs
    for network in networks_to_fit(SCOPE, 6):
        module = network.build().eval()
        assert isinstance(module, Network)
        assert f"{module.task.name}@64x64_" in network.key
        assert network.task == module.task.name
        channels = module.backbone.graph.channels(module.task.name)
        assert head_key(module.task, channels, SCOPE.resolution) in network.blocks
        assert sum(network.blocks.values()) == len(module.backbone.blocks) + 1
        assert network.macs == sum(macs[key] * times for key, times in network.blocks.items())
        assert network.macs == count(network.build, network.input_shapes).macs


def test_block_facts_cover_every_key_and_add_up_to_the_networks() -> None:
    facts = {block.key: block for block in block_facts(SCOPE)}
    assert list(facts) == [graph.key for graph in graphs_of(SCOPE)]
    for network in networks_to_fit(SCOPE, 3):
        assert network.macs == sum(facts[key].macs * times for key, times in network.blocks.items())


def test_block_facts_have_every_stage_and_stride_of_a_block() -> None:
    scope = Scope(space=FourPathSpace(stages=3), tasks=("det",), classes=CLASSES, resolution=(64, 64))
    facts = {block.key: block for block in block_facts(scope)}
    for node in scope.space.nodes:
        block = facts[block_key(node.candidates[0], node.stride, (64, 64))]
        assert block.strides == (node.stride,)
        assert int(node.name[1]) in block.stages
    edges = [block for key, block in facts.items() if key.startswith("fuse_")]
    assert {block.stages for block in edges} == {(1, 2, 3)}
    assert sum(len(block.stages) for block in facts.values()) == len(
        {(node.name[:2], node.candidates[0], node.stride) for node in scope.space.nodes}
    )
    (head,) = [block for key, block in facts.items() if key.startswith("head_")]
    assert (head.strides, head.stages) == (scope.built_tasks[0].paths, ())


def test_networks_to_fit_are_always_the_same_and_more_begin_with_them() -> None:
    few, many = networks_to_fit(SCOPE, 6), networks_to_fit(SCOPE, 12)
    assert [network.key for network in few] == [network.key for network in many[:6]]
    assert len({network.key for network in many}) == 12
    assert {network.task for network in few} == {"cls", "det", "seg"}


def test_fresh_networks_differ_each_time() -> None:
    scope = Scope(space=FourPathSpace(), tasks=("det",), classes=CLASSES, resolution=(64, 64))
    drawn = [network.key for _ in range(2) for network in fresh_networks(scope, 4)]
    assert len({*drawn, *(network.key for network in networks_to_fit(scope, 4))}) == 12


def test_networks_cover_the_space_from_min_to_max_cost() -> None:
    scope = Scope(space=FourPathSpace(), tasks=("seg",), classes=CLASSES, resolution=(64, 64))
    table = Counter((64, 64)).table(scope.space, scope.built_tasks[0], "macs")
    parts = [(n.macs - table.min_cost) / (table.max_cost - table.min_cost) for n in networks_to_fit(scope, 40)]
    assert np.histogram(parts, bins=4, range=(0, 1))[0].min() >= 4


def test_too_many_and_too_few_are_refused() -> None:
    tiny = Scope(
        space=FourPathSpace(stages=1, blocks_per_path=1, strict=True),
        tasks=("cls",),
        classes=CLASSES,
        resolution=(64, 64),
    )
    with pytest.raises(UserError, match="fewer than 50 different networks"):
        networks_to_fit(tiny, 50)
    with pytest.raises(UserError, match="at least 2 networks, not 1"):
        fresh_networks(tiny, 1)


def test_excluded_networks_are_not_drawn() -> None:
    first = networks_to_fit(SCOPE, 9)
    again = profiling._networks(SCOPE, 9, np.random.default_rng(0), {network.key for network in first[:5]})
    assert [network.key for network in again[:4]] == [network.key for network in first[5:]]

from fbnetv5.costs.tables import block_key, keyed_table
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy.profile import Scope, block_facts, graphs_of
from fbnetv5.deploy.profile_networks import networks_to_fit
from fbnetv5.spaces.four_path import FourPathSpace

SCOPE = Scope(
    space=FourPathSpace(stages=1, blocks_per_path=1), tasks=("cls", "det", "seg"), classes=CLASSES, resolution=(64, 64)
)


def test_every_key_of_every_task_is_timed() -> None:
    keys = [graph.key for graph in graphs_of(SCOPE)]
    assert len(set(keys)) == len(keys)
    values = dict.fromkeys(keys, 1.0)
    for task in SCOPE.built_tasks:
        assert keyed_table(SCOPE.space, task, SCOPE.resolution, lambda _: values).head == 1.0


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

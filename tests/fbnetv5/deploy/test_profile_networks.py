from pathlib import Path

import numpy as np
import pytest
import torch

from export.errors import UserError
from export.files import write_json
from fbnetv5.architecture import make_architecture
from fbnetv5.costs.counting import count
from fbnetv5.costs.tables import Counter, block_key, head_key
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy import profile_networks
from fbnetv5.deploy.profile import Scope, block_facts
from fbnetv5.deploy.profile_networks import (
    found_networks,
    fresh_networks,
    networks_of_table,
    networks_to_fit,
    random_tree,
)
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.derivation import DerivationConfig
from fbnetv5.search.bmtas.prepare import tree_costs
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPaths, FourPathSpace
from fbnetv5.spaces.wide import WideSpace
from latency.correction import MeasuredNetwork
from latency.protocol import Measurement, Timing
from latency.table import LatencyTable

SCOPE = Scope(
    space=FourPathSpace(stages=1, blocks_per_path=1), tasks=("cls", "det", "seg"), classes=CLASSES, resolution=(64, 64)
)


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


def test_networks_to_fit_are_always_the_same_and_more_begin_with_them() -> None:
    few, many = networks_to_fit(SCOPE, 6), networks_to_fit(SCOPE, 12)
    assert [network.key for network in few] == [network.key for network in many[:6]]
    assert len({network.key for network in many}) == 12
    assert {network.task for network in few} == {"cls", "det", "seg"}


def test_fresh_networks_differ_each_time() -> None:
    scope = Scope(space=FourPathSpace(), tasks=("det",), classes=CLASSES, resolution=(64, 64))
    drawn = [network.key for _ in range(2) for network in fresh_networks(scope, 4)]
    assert len({*drawn, *(network.key for network in networks_to_fit(scope, 4))}) == 12


@pytest.mark.parametrize("space", [FourPathSpace(), WideSpace()], ids=lambda space: space.label)
def test_networks_cover_the_space_from_min_to_max_cost(space: FourPaths) -> None:
    scope = Scope(space=space, tasks=("seg",), classes=CLASSES, resolution=(64, 64))
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
    again = profile_networks._networks(SCOPE, 9, np.random.default_rng(0), {network.key for network in first[:5]})
    assert [network.key for network in again[:4]] == [network.key for network in first[5:]]


TREES = Scope(
    space=BranchingSpace(width=0.25, copies=3), tasks=("cls", "det", "seg"), classes=CLASSES, resolution=(64, 64)
)


def test_a_tree_is_one_network_of_all_tasks_whose_blocks_add_up() -> None:
    macs = {block.key: block.macs for block in block_facts(TREES)}
    for network in networks_to_fit(TREES, 4):
        module = network.build().eval()
        assert isinstance(module, Network)
        assert network.task == "cls+det+seg"
        assert network.output_names == ("cls_logits", "det_boxes", "det_scores", "det_labels", "seg_logits")
        assert len(module(torch.zeros(1, 3, 64, 64))) == 5
        assert sum(network.blocks.values()) == len(module.backbone.blocks) + 3
        assert network.macs == sum(macs[key] * times for key, times in network.blocks.items())


def test_trees_cover_the_space_from_all_shared_to_all_separate() -> None:
    tasks = {task.name: task for task in TREES.built_tasks}
    tables = {name: Counter((64, 64)).table(TREES.space, task, "macs") for name, task in tasks.items()}
    costs = tree_costs(BranchingSpace(width=0.25, copies=3), tasks, tables)
    span = costs.all_separate - costs.all_shared
    parts = [(network.macs - costs.all_shared) / span for network in networks_to_fit(TREES, 40)]
    assert np.histogram(parts, bins=4, range=(0, 1))[0].min() >= 4


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_random_trees_are_valid_and_name_groups_by_their_first_task(tasks: int) -> None:
    rng, space = np.random.default_rng(0), BranchingSpace(copies=tasks)
    for _ in range(50):
        tree = random_tree(tasks, len(space.layers), rng)
        space.check_tasks({str(task): row for task, row in enumerate(tree)})
        for groups in tree.T.tolist():
            assert all(groups.index(group) == group for group in groups)


def test_the_networks_of_a_branched_run_are_its_tree_those_of_the_front_and_the_extremes(tmp_path: Path) -> None:
    layers = len(TREES.space.variables)
    tree = {"cls": (0,) * layers, "det": (0,) * layers, "seg": (0,) * 4 + (2,) * (layers - 4)}
    make_architecture(TREES.space, tree, CLASSES, (64, 64), provenance={}).save(tmp_path / "branched.json")
    DerivationConfig(run="r", budget="9M", task_names=TREES.tasks).save(tmp_path)
    assert len(found_networks(tmp_path)[1]) == 3
    other = tree | {"det": (0,) * 9 + (1,) * (layers - 9)}
    write_json(
        tmp_path / "pareto.json", {"schema": 1, "unit": "macs", "points": [{"choices": tree}, {"choices": other}]}
    )
    scope, networks = found_networks(tmp_path)
    assert scope == TREES
    assert len(networks) == 4
    macs = [network.macs for network in networks]
    assert (min(macs), max(macs)) == (macs[1], macs[2])
    write_json(tmp_path / "pareto.json", {"schema": 1, "points": [{"choices": {"cls": [0]}}]})
    with pytest.raises(UserError, match=r"pareto\.json is damaged"):
        found_networks(tmp_path)


def test_the_networks_of_a_table_are_drawn_again() -> None:
    drawn = networks_to_fit(TREES, 3)
    one_ms = Measurement(latency_ms_median=1, latency_ms_p90=1, latency_ms_p99=1, runs=9, cv=0, drift=0)
    measured = {n.key: MeasuredNetwork(task=n.task, blocks=dict(n.blocks), macs=1, measurement=one_ms) for n in drawn}
    table = LatencyTable(device="cpu", fingerprint={}, timing=Timing(), entries={}, networks=measured)
    assert [network.key for network in networks_of_table(TREES, table)] == [network.key for network in drawn]

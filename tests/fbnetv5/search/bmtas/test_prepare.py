from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.architecture import make_architecture
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.tables import block_key, head_key
from fbnetv5.data.scenes import CLASSES
from fbnetv5.search.bmtas.prepare import Prepared, check_budget, prepare
from fbnetv5.search.bmtas.results import branched_architecture
from fbnetv5.search.bmtas.trees import best_tree
from fbnetv5.tasks import make_tasks
from latency.protocol import Measurement, Timing
from latency.table import NULL_KEY, LatencyTable
from tests.fbnetv5.search.bmtas.conftest import TASKS, tiny_config

ONE_MS = Measurement(latency_ms_median=1, latency_ms_p90=1, latency_ms_p99=1, runs=9, cv=0, drift=0)


@pytest.mark.parametrize("separate", [False, True])
def test_the_extremes_are_counted_exactly(prepared: Prepared, separate: bool) -> None:
    layers = len(prepared.space.layers)
    choices = {task: (number * separate,) * layers for number, task in enumerate(TASKS)}
    classes = next(iter(prepared.tasks.values())).classes
    cost = make_architecture(prepared.space, choices, classes, (224, 224), provenance={}).cost
    assert cost.macs == (prepared.costs.all_separate if separate else prepared.costs.all_shared)


def test_the_expected_cost_at_first_lies_between_the_extremes(prepared: Prepared) -> None:
    costs = prepared.costs
    assert costs.all_shared < costs.uniform < costs.all_separate


@pytest.mark.parametrize("limit", [1e6, 1e12])
def test_a_budget_outside_the_range_is_refused(prepared: Prepared, limit: float) -> None:
    with pytest.raises(UserError, match=r"if all tasks share every layer, .* if they share none"):
        check_budget(tiny_config(budget=Budget(limit=limit, unit="macs")), prepared.costs)


def test_a_table_that_lacks_the_blocks_names_the_command_that_adds_them(tmp_path: Path) -> None:
    path = tmp_path / "my tables" / "cpu-fp32-b1-t2.json"
    LatencyTable(device="cpu", fingerprint={}, timing=Timing(), entries={NULL_KEY: ONE_MS}, threads=2).save(path)
    command = "fbnetv5 profile --device cpu --threads 2 --encoder fbnetv3-a --width 0.25 --resolution 224x224 "
    others = f"--tasks cls,det,seg --luts '{path.parent}'"
    with pytest.raises(UserError, match=rf"lacks (\d+) of \1 blocks of .*: {command}{others}$"):
        prepare(tiny_config(table=str(path), other_machine_table=True))


@pytest.mark.parametrize(("unit", "limit"), [("ms", 40.0), ("macs", 150e6)])
def test_a_table_predicts_the_latency_of_trees_for_any_budget(
    tmp_path: Path, unit: Literal["ms", "macs"], limit: float
) -> None:
    config = tiny_config(budget=Budget(limit=limit, unit=unit))
    tasks = make_tasks(config.tasks, CLASSES)
    keys = {block_key(node.candidates[0], node.stride, (224, 224)) for node in config.space.nodes}
    keys |= {head_key(task, config.space.channels(task.paths), (224, 224)) for task in tasks.values()}
    entries = dict.fromkeys([*keys, NULL_KEY], ONE_MS)
    path = tmp_path / "table.json"
    LatencyTable(device="other", fingerprint={}, timing=Timing(), entries=entries).save(path)
    prepared = prepare(config.changed(table=str(path), other_machine_table=True))
    assert prepared.latency_costs is not None
    layers = len(config.space.layers)
    assert prepared.latency_costs.all_shared == 1 + layers + 3
    assert prepared.latency_costs.all_separate == 1 + 3 * layers + 3
    tree = best_tree(np.zeros((layers, 5)), prepared.costs, limit)
    latency = branched_architecture(prepared, tree).cost.latency_ms
    assert latency is not None
    assert latency.value == prepared.latency_costs.of(tree.groups)


def test_a_table_that_is_not_needed_is_left_out_if_it_is_missing(tmp_path: Path) -> None:
    config = tiny_config(table=str(tmp_path / "gone.json"))
    assert prepare(config, needs_table=False).latency_costs is None
    with pytest.raises(UserError, match=r"gone\.json does not exist"):
        prepare(config)

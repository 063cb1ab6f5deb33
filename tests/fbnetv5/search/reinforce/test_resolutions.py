from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.errors import UserError
from export.files import read_json
from fbnetv5.architecture import load_architecture
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.cost_files import CostFile
from fbnetv5.costs.tables import table_keys
from fbnetv5.data.resolution import Resolution
from fbnetv5.evaluate import evaluate_file
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.derive import derive, with_budgets
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.search.reinforce.resolutions import (
    ChosenNetworks,
    at_resolution,
    derive_resolutions,
    describe_choice,
)
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.spaces.four_path import FourPathSpace
from latency.protocol import Measurement, Timing
from latency.table import NULL_KEY, LatencyTable

MakeConfig = Callable[..., SearchConfig]
SPACE = FourPathSpace(stages=1, blocks_per_path=1)
BUDGETS = {task: (Budget(limit=22e6, unit="macs", resolution=(64, 64)),) for task in ("cls", "seg")}
SIZES: list[Resolution] = [(64, 64), (64, 96)]
ONE_MS = Measurement(latency_ms_median=1, latency_ms_p90=1, latency_ms_p99=1, runs=9, cv=0, drift=0)
OPTIONS: dict[str, Any] = {"table": None, "other_machine": False, "progress": lambda *_: None}


def quiet(*_: object) -> None:
    """Show nothing."""


@pytest.fixture(scope="module")
def run(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search on images of 32x32."""
    folder, prepared = start_run(
        make_config(budgets=BUDGETS, space=SPACE), tmp_path_factory.mktemp("runs") / "s", quiet, quiet
    )
    run_search(folder, prepared, quiet, quiet)
    return folder


@pytest.fixture(scope="module")
def chosen(run: Path) -> ChosenNetworks:
    return derive_resolutions(run, with_budgets(run, {"macs": "24M"}), SIZES, **OPTIONS)


def test_each_task_has_the_network_of_the_lowest_loss_at_its_own_resolution(run: Path, chosen: ChosenNetworks) -> None:
    config = with_budgets(run, {"macs": "24M"})
    alone = [derive(run, at_resolution(config, size), **OPTIONS).architectures for size in SIZES]
    for task in BUDGETS:
        losses = [each[task].provenance["loss"] for each in alone]
        assert losses[0] != losses[1]
        best, network = alone[int(np.argmin(losses))][task], chosen.architectures[task]
        assert (network.choices, network.resolution) == (best.choices, best.resolution)
        assert [each["loss"] for each in network.provenance["resolutions"]] == losses
        assert [each["resolution"] for each in network.provenance["resolutions"]] == list(map(list, SIZES))
        assert network.provenance["trained_at"] == list(network.resolution)
        assert 0.85 * 24e6 <= network.cost.macs <= 24e6


def test_the_files_are_those_of_a_derived_network(chosen: ChosenNetworks, tmp_path: Path) -> None:
    chosen.write(tmp_path)
    assert read_json(tmp_path / "pareto.json", what="Pareto front", schema=1)["tasks"].keys() == BUDGETS.keys()
    for task, architecture in chosen.architectures.items():
        file = tmp_path / f"{task}.json"
        assert load_architecture(file) == architecture
        evaluated = evaluate_file(file, task=task, weights=None, data=None, size=None, fit=None)[task]
        assert evaluated.size == architecture.resolution


def test_the_line_has_all_resolutions_and_the_chosen_one(chosen: ChosenNetworks) -> None:
    network = chosen.architectures["seg"]
    first, second = network.provenance["resolutions"]
    line = describe_choice(network)
    assert line.startswith(f"seg: 64x64 loss {first['loss']:.4f}, miou {first['score']:.4f} (")
    assert f"; 64x96 loss {second['loss']:.4f}" in line
    assert line.endswith(f"{network.resolution[0]}x{network.resolution[1]} is chosen")


def test_a_table_is_left_out_at_resolutions_that_it_is_not_for(make_config: MakeConfig) -> None:
    config = make_config(budgets=BUDGETS, space=SPACE, table="t.json")
    assert at_resolution(config, (64, 64)).table == "t.json"
    assert at_resolution(config, (96, 96)).table is None
    mixed = {**BUDGETS, "seg": (Budget(limit=22e6, unit="macs", resolution=(96, 96)),)}
    assert at_resolution(config.changed(budgets=mixed), (64, 64)).table is None  # it may lack the head of seg there
    slow = {"cls": (Budget(limit=8.0, unit="ms"),)}
    assert at_resolution(config.changed(budgets=slow), (96, 96)).table == "t.json"


def test_a_table_that_is_named_is_used_at_its_own_resolution_alone(run: Path, tmp_path: Path) -> None:
    config = with_budgets(run, {"macs": "24M"})
    tasks = prepare(config).tasks.values()
    keys = {key for task in tasks for key in table_keys(SPACE, task, (64, 64))}
    entries = dict.fromkeys([NULL_KEY, *keys], ONE_MS)
    file = tmp_path / "other-fp32-b1.json"
    LatencyTable(device="other", fingerprint={}, timing=Timing(), entries=entries).save(file)
    options = {**OPTIONS, "table": file, "other_machine": True}
    chosen = derive_resolutions(run, config, SIZES, **options)
    for network in chosen.architectures.values():
        assert (network.cost.latency_ms is None) == (network.resolution != (64, 64))


def test_the_budget_of_a_cost_file_holds_at_every_resolution(run: Path) -> None:
    config = with_budgets(run, {"energy_mJ": "24"})
    tasks = prepare(with_budgets(run, {"macs": "24M"})).tasks.values()
    keys = {key for task in tasks for size in SIZES for key in table_keys(SPACE, task, size)}
    cost = CostFile(name="energy", unit="mJ", values=dict.fromkeys(keys, 1.0))
    chosen = derive_resolutions(run, config.changed(costs=(cost,)), SIZES, **OPTIONS)
    for network in chosen.architectures.values():
        assert 0.85 * 24 <= network.cost.quantities["energy_mJ"] <= 24
    less = cost.changed(values={key: 1.0 for key in keys if key.endswith("@64x64")})
    with pytest.raises(UserError, match="the cost file of energy has no value for"):
        derive_resolutions(run, config.changed(costs=(less,)), SIZES, **OPTIONS)


def test_a_budget_that_does_not_fit_one_resolution_is_refused_before_any_work(run: Path) -> None:
    done = list[object]()
    options = {**OPTIONS, "progress": lambda *state: done.append(state)}
    with pytest.raises(UserError, match="at 128x128 is outside what this space offers"):
        derive_resolutions(run, with_budgets(run, {"macs": "24M"}), [(64, 64), (128, 128)], **options)
    assert done == []

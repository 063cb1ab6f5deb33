from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.errors import UserError
from export.files import read_json
from fbnetv5.architecture import load_architecture
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.resolution import Resolution
from fbnetv5.evaluate import evaluate_file
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.derive import derive, with_budgets
from fbnetv5.search.reinforce.resolutions import (
    ChosenNetworks,
    at_resolution,
    derive_resolutions,
    describe_choice,
)
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.spaces.four_path import FourPathSpace

MakeConfig = Callable[..., SearchConfig]
SPACE = FourPathSpace(stages=1, blocks_per_path=1)
BUDGETS = {task: (Budget(limit=22e6, unit="macs", resolution=(64, 64)),) for task in ("cls", "seg")}
SIZES: list[Resolution] = [(64, 64), (64, 96)]
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
    slow = {"cls": (Budget(limit=8.0, unit="ms"),)}
    assert at_resolution(config.changed(budgets=slow), (96, 96)).table == "t.json"


def test_a_budget_that_does_not_fit_one_resolution_is_refused_before_any_work(run: Path) -> None:
    done = list[object]()
    options = {**OPTIONS, "progress": lambda *state: done.append(state)}
    with pytest.raises(UserError, match="at 128x128 is outside what this space offers"):
        derive_resolutions(run, with_budgets(run, {"macs": "24M"}), [(64, 64), (128, 128)], **options)
    assert done == []

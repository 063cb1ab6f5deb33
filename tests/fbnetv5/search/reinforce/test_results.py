from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fbnetv5.architecture import load_architecture
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import Constraints
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import load_tensors
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.final_phase import TaskResult
from fbnetv5.search.reinforce.panel import FitQuality
from fbnetv5.search.reinforce.prepare import Prepared, prepare
from fbnetv5.search.reinforce.results import best_architecture, pareto_document, write_results
from fbnetv5.search.scoring import Finalist

MakeConfig = Callable[..., SearchConfig]


@pytest.fixture
def prepared(make_config: MakeConfig) -> Prepared:
    return prepare(make_config("cls"))


def result_of(prepared: Prepared, losses: tuple[float, ...] = (0.5, 0.75, 0.25)) -> TaskResult:
    """Three finalists: the empty, a half-full and the full network, with the losses in that order."""
    count = len(prepared.config.space.variables)
    networks = [tuple(int(variable < kept) for variable in range(count)) for kept in (0, count // 2, count)]
    costs = prepared.constraints["cls"].tables[0](np.array(networks))
    quality = FitQuality(architectures=3, rank_correlation=0.5, p_value=0.25, evidence=9.0)
    finalists = [
        Finalist(choices=choices, costs=(float(cost),), loss=loss, expected_loss=loss, score=1 - loss)
        for choices, cost, loss in zip(networks, costs, losses, strict=True)
    ]
    return TaskResult(fit_quality=quality, finalists=finalists)


def test_the_architecture_is_that_of_the_best_finalist_with_its_provenance(prepared: Prepared) -> None:
    config = prepared.config.changed(data=prepared.config.data.changed(fit="letterbox"))
    architecture = best_architecture(config, prepared.tasks["cls"], result_of(prepared), None)
    assert (architecture.provenance["fit"], architecture.provenance["trained_at"]) == ("letterbox", [32, 32])
    assert architecture.choices_array.tolist() == prepared.config.space.full().tolist()
    assert architecture.cost.macs == prepared.constraints["cls"].tables[0].max_cost
    assert architecture.cost.latency_ms is None
    assert architecture.provenance["loss"] == 0.25
    assert architecture.provenance["score"] == 0.75
    assert architecture.provenance["panel"]["has_signal"] is False


def test_the_pareto_document_leaves_out_beaten_finalists(prepared: Prepared) -> None:
    document = pareto_document(prepared.constraints, {"cls": result_of(prepared)})
    front = document["tasks"]["cls"]
    assert front["unit"] == "macs"
    assert [point["loss"] for point in front["points"]] == [0.5, 0.25]
    assert [point["cost"] for point in front["points"]] == [
        prepared.constraints["cls"].tables[0].min_cost,
        prepared.constraints["cls"].tables[0].max_cost,
    ]


def test_several_budgets_are_in_the_provenance_and_their_costs_in_the_front(prepared: Prepared) -> None:
    budgets = (*prepared.config.budgets["cls"], Budget(limit=9e6, unit="params"))
    config = prepared.config.changed(budgets={"cls": budgets})
    result = result_of(prepared)
    finalists = [replace(finalist, costs=(*finalist.costs, 1e6)) for finalist in result.finalists]
    result = replace(result, finalists=finalists)
    architecture = best_architecture(config, prepared.tasks["cls"], result, None)
    assert "budget" not in architecture.provenance
    assert architecture.provenance["budgets"][1] == {"limit": 9e6, "unit": "params"}
    own = prepared.constraints["cls"]
    constraints = Constraints(budgets=budgets, tables=[own.tables[0], replace(own.tables[0], unit="params")])
    point = pareto_document({"cls": constraints}, {"cls": result})["tasks"]["cls"]["points"][0]
    assert point["costs"] == {"macs": point["cost"], "params": 1e6}


def test_a_front_in_estimated_milliseconds_says_so(prepared: Prepared) -> None:
    own = prepared.constraints["cls"]
    constraints = {"cls": replace(own, tables=[replace(own.tables[0], unit="estimated ms")])}
    assert pareto_document(constraints, {"cls": result_of(prepared)})["tasks"]["cls"]["unit"] == "estimated ms"


def test_written_weights_are_those_of_the_supernet_with_their_own_statistics(
    prepared: Prepared, tmp_path: Path
) -> None:
    supernet = Supernet(prepared.config.space, prepared.tasks)
    result = result_of(prepared)
    architecture = best_architecture(prepared.config, prepared.tasks["cls"], result, None)
    write_results(tmp_path, supernet, prepared, {"cls": architecture}, {"cls": result})
    assert load_architecture(tmp_path / "cls.json") == architecture
    network = architecture.load(tmp_path / "cls.safetensors")
    expected = dict(supernet.derive("cls", architecture.choices_array).named_parameters())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=0, atol=0)
    means = [tensor for name, tensor in load_tensors(tmp_path / "cls.safetensors").items() if "running_mean" in name]
    assert all(bool(mean.any()) for mean in means)

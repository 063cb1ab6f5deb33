"""Writes a search's results: per task an architecture with its weights, and the Pareto fronts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.files import write_json
from fbnetv5 import __version__
from fbnetv5.architecture import Architecture, Latency, make_architecture
from fbnetv5.costs.budgets import Budget, priced, quantity_of
from fbnetv5.costs.constraints import AnyTable, Constraints
from fbnetv5.costs.tables import keyed_table
from fbnetv5.networks.backbone import recalibrate
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.final_phase import TaskResult
from fbnetv5.search.reinforce.finalists import pareto_front
from fbnetv5.search.reinforce.prepare import Prepared
from fbnetv5.search.scoring import Finalist, calibration_images
from fbnetv5.tasks.task import Task
from latency.estimate import EstimatedTable

PARETO = "pareto.json"
"""Name of the file of a search's finalists."""


def best_architecture(
    config: SearchConfig, task: Task, result: TaskResult, table: AnyTable | None, **provenance: Any
) -> Architecture:
    """The architecture of a task's best finalist, with its latency where there is a table, and its provenance."""
    finalist = result.best
    budgets = config.budgets[task.name]
    latency = None
    if table is not None:
        costs = keyed_table(config.space, task, budgets[0].resolution, table.values_ms)
        value = costs.cost_of(np.array(finalist.choices, dtype=np.int64))
        latency = Latency(value=value, table=table.name, estimated=isinstance(table, EstimatedTable))
    return make_architecture(
        config.space,
        {task.name: finalist.choices},
        task.classes,
        budgets[0].resolution,
        latency_ms=latency,
        quantities={
            budget.unit: cost
            for budget, cost in zip(priced(budgets), finalist.costs, strict=True)
            if quantity_of(budget.unit) is not None
        },
        peak_activation_bytes=finalist.peak_activation_bytes,
        provenance={
            "version": __version__,
            "seed": config.seed,
            **budget_fields(budgets),
            "trained_at": list(config.data.size),
            "fit": config.data.fit,
            "metric": task.metric.name,
            "score": finalist.score,
            "loss": finalist.loss,
            "expected_loss": finalist.expected_loss,
            "panel": result.fit_quality.to_json(),
            **provenance,
        },
    )


def budget_fields(budgets: Sequence[Budget]) -> dict[str, Any]:
    """The fields of a provenance that name the budgets of a network."""
    limits = [{"limit": budget.limit, "unit": budget.unit} for budget in budgets]
    return {"budget": limits[0]} if len(limits) == 1 else {"budgets": limits}


def write_results(
    folder: Path,
    supernet: Supernet,
    prepared: Prepared,
    architectures: Mapping[str, Architecture],
    results: Mapping[str, TaskResult],
) -> None:
    """Write the networks, and last the Pareto fronts."""
    write_networks(folder, supernet, prepared, architectures)
    write_json(folder / PARETO, pareto_document(prepared.constraints, results))


def write_networks(
    folder: Path, supernet: Supernet, prepared: Prepared, architectures: Mapping[str, Architecture]
) -> None:
    """Write each network's weights, recalibrated on images that weights learn from, then its architecture file.

    Where an architecture file exists, so do its weights.
    """
    device = next(supernet.parameters()).device
    images = calibration_images(prepared.splits.weights, device)
    for name, architecture in architectures.items():
        network = supernet.derive(name, architecture.choices_array).to(device).to(memory_format=torch.channels_last)
        recalibrate(network, images, network)
        save_tensors(folder / f"{name}.safetensors", network.state_dict())
        architecture.save(folder / f"{name}.json")


def pareto_document(constraints: Mapping[str, Constraints], results: Mapping[str, TaskResult]) -> dict[str, Any]:
    """The document ``pareto.json``: per task, the finalists that no other beats in all costs and expected loss.

    A task with several budgets has all costs of a point by unit in "costs"; "cost" is the first.
    """
    fronts = {}
    for name, result in results.items():
        units = [table.unit for table in constraints[name].tables]
        fronts[name] = {"unit": units[0], "points": [_point(point, units) for point in pareto_front(result.finalists)]}
    return {"schema": 1, "tasks": fronts}


def merged_fronts(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The document ``pareto.json`` of the finalists of several such documents, whose budgets have the same units."""
    fronts = {}
    for name, front in documents[0]["tasks"].items():
        points = [point for document in documents for point in document["tasks"][name]["points"]]
        units = list(points[0].get("costs", {front["unit"]: None}))
        finalists = [
            Finalist(
                choices=tuple(point["choices"]),
                costs=tuple(point.get("costs", {front["unit"]: point["cost"]}).values()),
                loss=point["loss"],
                expected_loss=point.get("expected_loss", point["loss"]),
                score=point["score"],
                peak_activation_bytes=point.get("peak_activation_bytes"),
            )
            for point in points
        ]
        fronts[name] = {"unit": front["unit"], "points": [_point(point, units) for point in pareto_front(finalists)]}
    return {"schema": 1, "tasks": fronts}


def _point(finalist: Finalist, units: Sequence[str]) -> dict[str, Any]:
    costs = {"costs": dict(zip(units, finalist.costs, strict=True))} if len(units) > 1 else {}
    peak = finalist.peak_activation_bytes
    memory = {} if peak is None else {"peak_activation_bytes": peak}
    losses = {"loss": finalist.loss, "expected_loss": finalist.expected_loss}
    figures = {"cost": finalist.costs[0], **costs, **memory, **losses, "score": finalist.score}
    return {**figures, "choices": list(finalist.choices)}

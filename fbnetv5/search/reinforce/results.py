"""What a search writes at its end: per task an architecture with its weights, and the Pareto fronts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fbnetv5 import __version__
from fbnetv5.architecture import Architecture, Latency, make_architecture
from fbnetv5.costs.ranges import AnyTable
from fbnetv5.costs.tables import latency_table
from fbnetv5.data.splits import Splits
from fbnetv5.networks.backbone import recalibrate
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.derive import Derived
from fbnetv5.search.reinforce.finalists import pareto_front
from fbnetv5.search.scoring import calibration_images
from fbnetv5.tasks.task import Task
from latency.estimate import EstimatedTable


def describe(config: SearchConfig, task: Task, derived: Derived, table: AnyTable | None) -> Architecture:
    """The architecture record of a task's best finalist."""
    result = derived.best
    budget = config.budgets[task.name]
    latency = None
    if table is not None:
        costs = latency_table(config.space, task, budget.resolution, table.values_ms)
        value = costs.one(np.array(result.choices, dtype=np.int64))
        latency = Latency(value=value, table=table.name, estimated=isinstance(table, EstimatedTable))
    return make_architecture(
        config.space,
        {task.name: result.choices},
        task.classes,
        budget.resolution,
        latency_ms=latency,
        provenance={
            "version": __version__,
            "seed": config.seed,
            "budget": {"limit": budget.limit, "unit": budget.unit},
            "trained_at": list(config.data.size),
            "metric": task.metric.name,
            "score": result.score,
            "loss": result.loss,
            "panel": derived.check.to_json(),
        },
    )


def write_results(folder: Path, supernet: Supernet, parts: Splits, found: Mapping[str, Architecture]) -> None:
    """Write each network's recalibrated weights, then its architecture file, which says that both are there."""
    device = next(supernet.parameters()).device
    images = calibration_images(parts.weights, device)
    for name, architecture in found.items():
        network = supernet.derive(name, architecture.choices_array).to(device).to(memory_format=torch.channels_last)
        recalibrate(network, images, network)
        save_tensors(folder / f"{name}.safetensors", network.state_dict())
        architecture.save(folder / f"{name}.json")


def pareto_document(config: SearchConfig, derived: Mapping[str, Derived]) -> dict[str, Any]:
    """Per task, the finalists that no other beats in both cost and loss."""
    fronts = {
        name: {
            "unit": config.budgets[name].unit,
            "points": [
                {"cost": point.cost, "loss": point.loss, "score": point.score, "choices": list(point.choices)}
                for point in pareto_front(found.finalists)
            ],
        }
        for name, found in derived.items()
    }
    return {"schema": 1, "tasks": fronts}

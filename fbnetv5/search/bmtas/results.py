"""Builds the trees that a finished search found, with their weights, and writes its results."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.files import write_json
from fbnetv5 import __version__
from fbnetv5.architecture import Architecture, Latency, make_architecture
from fbnetv5.evaluate import in_run_precision, measure_share
from fbnetv5.networks.backbone import Network, recalibrate
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.runs.folder import BRANCHED
from fbnetv5.runs.processes import make_accelerator
from fbnetv5.search.bmtas.prepare import Prepared
from fbnetv5.search.bmtas.supernet import BranchedSupernet
from fbnetv5.search.bmtas.trees import Floats, Tree, copies_of_groups, hull, routing_scores
from fbnetv5.search.scoring import calibration_images, held_out_batches
from latency.estimate import EstimatedTable

_PRICES = tuple(2.0**power for power in range(-4, 9))
PRICES = (*(-price for price in _PRICES), 0.0, *_PRICES)
"""Prices of the trees in ``pareto.json``."""


def choices_of(tree: Tree, tasks: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """By task: the group of each layer, as the architecture file has it."""
    return {task: tuple(groups[number] for groups in tree.groups) for number, task in enumerate(tasks)}


def build_tree(supernet: BranchedSupernet, architecture: Architecture, log_probabilities: Floats) -> Network:
    """The network of a tree with the weights of the supernet: every group has those of its copy."""
    tasks = list(architecture.choices)
    groups = [tuple(row) for row in zip(*architecture.choices.values(), strict=True)]
    layers = {node.name: number for number, node in enumerate(supernet.space.layers)}
    copies = copies_of_groups(log_probabilities, groups)
    network = architecture.build()
    of_steps = {
        step.name: copies[layers[step.node]][groups[layers[step.node]][tasks.index(step.tasks[0])]]
        for step in network.backbone.graph.steps
        if step.node in layers
    }
    supernet.copy_into(network, of_steps)
    return network


@torch.no_grad()
def score(network: Network, prepared: Prepared, device: torch.device) -> dict[str, float]:
    """The metric of every task on the same held-out images, after the statistics of batch norm were recomputed.

    Processes share the images.
    """
    network.to(device).to(memory_format=torch.channels_last)
    accelerator = make_accelerator()
    run = in_run_precision(network.raw, device, accelerator)
    recalibrate(network, calibration_images(prepared.splits.weights, device), run)
    images = prepared.config.score_images
    batches = held_out_batches(prepared.splits, prepared.tasks.values(), images=images, device=device)
    own = batches[accelerator.process_index :: accelerator.num_processes]
    return {name: metric.compute() for name, metric in measure_share(network.tasks, run, own).items()}


def branched_architecture(prepared: Prepared, tree: Tree) -> Architecture:
    """The record of a tree, with its predicted latency where there is a table."""
    config = prepared.config
    latency = None
    if prepared.table is not None and prepared.latency_costs is not None:
        value, estimated = prepared.latency_costs.of(tree.groups), isinstance(prepared.table, EstimatedTable)
        latency = Latency(value=value, table=prepared.table.name, estimated=estimated)
    return make_architecture(
        prepared.space,
        choices_of(tree, config.tasks),
        next(iter(prepared.tasks.values())).classes,
        config.budget.resolution,
        latency_ms=latency,
        provenance={
            "version": __version__,
            "seed": config.seed,
            "budget": {"limit": config.budget.limit, "unit": config.budget.unit},
            "trained_at": list(config.data.size),
            "fit": config.data.fit,
            "routing": config.routing,
            "all_shared": prepared.costs.all_shared,
            "all_separate": prepared.costs.all_separate,
        },
    )


def write_network(folder: Path, network: Network, architecture: Architecture) -> None:
    """Write the weights, then the architecture file; where that exists, so do the weights."""
    save_tensors(folder / f"{BRANCHED}.safetensors", network.state_dict())
    architecture.save(folder / f"{BRANCHED}.json")


def write_pareto(folder: Path, prepared: Prepared, log_probabilities: Floats) -> None:
    """Write ``pareto.json``."""
    write_json(folder / "pareto.json", pareto_document(prepared, log_probabilities))


def pareto_document(prepared: Prepared, log_probabilities: Floats) -> dict[str, Any]:
    """The document ``pareto.json``: the most likely trees of their costs, from cheap to costly."""
    trees = hull(routing_scores(log_probabilities), prepared.costs, PRICES)
    points = [
        {
            "cost": tree.cost,
            "log_probability": tree.score,
            "choices": {task: list(of_task) for task, of_task in choices_of(tree, prepared.config.tasks).items()},
        }
        for tree in trees
    ]
    return {"schema": 1, "unit": prepared.costs.unit, "points": points}


def log_probabilities_of(logits: torch.Tensor) -> Floats:
    """[L, T, T]: the logarithms of the routing's probabilities, computed on the CPU: not all devices have doubles."""
    values: Floats = logits.detach().cpu().double().log_softmax(-1).numpy()
    return np.asarray(values, dtype=np.float64)

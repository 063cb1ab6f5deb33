"""From the trained routing and weights to the network of a budget: at the end of a search, and for other budgets later.

A finished run keeps its last checkpoint, which has the routing's logits and the weights of all copies. So the network
of another budget takes seconds, without another search.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from export.errors import UserError
from export.progress import Progress
from fbnetv5.architecture import Architecture
from fbnetv5.costs.budgets import MEMORY, parse_budgets
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import by_group, load_checkpoint, load_weights
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.runs.processes import make_accelerator
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.bmtas.prepare import Prepared, check_budget, prepare
from fbnetv5.search.bmtas.results import branched_architecture, build_tree, log_probabilities_of, score, write_network
from fbnetv5.search.bmtas.supernet import BranchedSupernet
from fbnetv5.search.bmtas.table import profile_options as profile_options
from fbnetv5.search.bmtas.trees import Floats, best_tree, routing_scores


def best_network(
    prepared: Prepared, supernet: BranchedSupernet, log_probabilities: Floats, device: torch.device
) -> tuple[Architecture, Network]:
    """The best tree of the configuration's budget: its record, and its network with weights and statistics.

    Args:
        prepared: the configuration, opened.
        supernet: with trained weights.
        log_probabilities: [L, T, T], of the trained routing.
        device: that scores the network on held-out images.
    """
    tree = best_tree(routing_scores(log_probabilities), prepared.costs, prepared.config.budget.limit)
    record = branched_architecture(prepared, tree)
    network = build_tree(supernet, record, log_probabilities)
    scores = score(network, prepared, device)
    return record.changed(provenance={**record.provenance, "scores": scores}), network


def with_budgets(run: Path, texts: Mapping[str, str]) -> BranchConfig:
    """The configuration of a search for a branched network, with another budget.

    Args:
        run: the run folder of such a search.
        texts: the budget by its unit; without a resolution, the resolution of the run's budget holds.

    Raises:
        UserError: there are several budgets, it is one of memory, or it cannot be parsed.
    """
    config = BranchConfig.load(run)
    if MEMORY in texts:
        raise UserError(f"{run} has a branched network, to which --memory does not apply: leave it out")
    if len(texts) > 1:
        raise UserError(f"{run} has one branched network, which takes one budget; {len(texts)} were given")
    budgets = parse_budgets(texts, tasks=("network",), resolutions={"network": config.budget.resolution})
    return config.changed(budget=budgets["network"][0])


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedNetwork:
    """The network of another budget, not yet written."""

    architecture: Architecture
    network: Network
    recipe: None = None

    @property
    def architectures(self) -> dict[str, Architecture]:
        """The architecture, by the name of its file."""
        return {self.architecture.file_name: self.architecture}

    def write(self, folder: Path) -> None:
        """Write the architecture and its weights."""
        write_network(folder, self.network, self.architecture)


def derive(
    run: Path, config: BranchConfig, *, table: Path | None, other_machine: bool, progress: Progress
) -> DerivedNetwork:
    """The network of another budget from a finished search for a branched network.

    Args:
        run: the run folder.
        config: that of the run, with the other budget.
        table: latency table file; None for that of the run. Under a budget in multiply-adds, the run's table only
            predicts the latency of the network, and is left out where it is missing or lacks blocks.
        other_machine: whether that table may be of another machine.
        progress: not called, it takes a moment.

    Raises:
        UserError: the run is unfinished or damaged, the budget is outside the range of costs, or a latency has no
            table.
    """
    if config.budget.unit == "ms" and table is None and config.table is None:
        raise UserError(f"--latency needs a latency table, and {run} has none: add --device cpu, or --table FILE")
    if table is not None:
        config = config.with_table(table, other_machine=other_machine)
    weights, state = _trained(run, config.steps)
    prepared = prepare(config, needs_table=config.budget.unit == "ms" or table is not None)
    check_budget(config, prepared.costs)
    supernet = BranchedSupernet(prepared.space, prepared.tasks)
    load_weights(supernet, weights, run / CHECKPOINT)
    device = make_accelerator().device
    architecture, network = best_network(prepared, supernet, log_probabilities_of(state["logits"]), device)
    own = BranchConfig.load(run).budget
    origin = {"run": str(run.resolve()), "budget": {"limit": own.limit, "unit": own.unit}}
    architecture = architecture.changed(provenance={**architecture.provenance, "derived_from": origin})
    return DerivedNetwork(architecture=architecture, network=network)


def _trained(run: Path, steps: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights of all copies and the state of the routing, of the checkpoint of the last step.

    Raises:
        UserError: the search is unfinished, or its checkpoint is missing or damaged.
    """
    checkpoint = load_checkpoint(run / CHECKPOINT)
    done = 0 if checkpoint is None else int(checkpoint[1]["step"])
    if checkpoint is None or done < steps:
        raise UserError(
            f"{run} is unfinished: its checkpoint is of step {done} of {steps}. Finish it with: "
            f"fbnetv5 branch --resume {run}"
        )
    groups = by_group(checkpoint[0])
    return groups["weights"], groups["state"]

"""Opens the inputs of a later task: those of a search of the task alone, the trunk, and the architectures to run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from torch import Tensor

from export.manifest import file_sha256
from fbnetv5.costs.constraints import check_budgets
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import by_group, load_weights
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.controller import Controller, uniform_controller
from fbnetv5.search.reinforce.derive import final_checkpoint
from fbnetv5.search.reinforce.finalists import policy_near_budgets, pool_in_window
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.search.reinforce.prepare import Prepared, prepare
from fbnetv5.spaces.space import Choices


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterPrepared(Prepared):
    """A later task and its inputs, opened once; ``config`` is that of a search of the task alone."""

    later: LaterConfig
    trunk: Mapping[str, Tensor]
    """Weights of the blocks at the end of the search, by name."""
    checksum: str
    """SHA-256 of the file of these weights."""
    controller: Controller
    """The policy of the task: all choices are equally probable."""
    architectures: Choices
    """[B, S]: random architectures of the window of its budgets, of which every step runs one."""

    def without_table(self) -> Self:
        """The same without the latency table, so that no latency is predicted."""
        later = self.later.changed(table=None, other_machine_table=False)
        return replace(self, table=None, config=later.as_search(), later=later)

    def make_supernet(self) -> Supernet:
        """The supernet with the frozen trunk and a fresh, random head.

        Raises:
            UserError: the weights of the trunk are of another space.
        """
        supernet = Supernet(self.config.space, self.tasks)
        load_weights(supernet.blocks, self.trunk, Path(self.later.run) / CHECKPOINT)
        supernet.blocks.requires_grad_(requires_grad=False)
        return supernet


def prepare_later(config: LaterConfig) -> LaterPrepared:
    """Open the trunk of the run, the images, the task on their classes, and the cost table.

    Raises:
        UserError: the run is unfinished or damaged, an input is missing or does not fit the others, or no network has
            costs in the window of the budgets.
    """
    run = Path(config.run)
    tensors, state = final_checkpoint(run, steps=SearchConfig.load(run).total_steps)
    return prepare_on_trunk(config, tensors, run / CHECKPOINT / f"step-{state['step']}.safetensors")


def prepare_on_trunk(config: LaterConfig, tensors: Mapping[str, Tensor], file: Path) -> LaterPrepared:
    """The same for the tensors of a supernet's checkpoint, which were read from ``file``.

    Raises:
        UserError: an input is missing or does not fit the others, or no network has costs in the window of the budgets.
    """
    prepared = prepare(config.as_search())
    check_budgets(prepared.constraints)
    ((name, constraints),) = prepared.constraints.items()
    controller, rng = uniform_controller(config.space, 1), np.random.default_rng(config.seed)
    policy = policy_near_budgets(controller, 0, constraints, rng)
    return LaterPrepared(
        config=prepared.config,
        splits=prepared.splits,
        tasks=prepared.tasks,
        table=prepared.table,
        constraints=prepared.constraints,
        later=config,
        trunk={
            name.removeprefix("blocks."): tensor
            for name, tensor in by_group(tensors)["weights"].items()
            if name.startswith("blocks.")
        },
        checksum=file_sha256(file),
        controller=controller,
        architectures=pool_in_window(name, policy, constraints, rng),
    )

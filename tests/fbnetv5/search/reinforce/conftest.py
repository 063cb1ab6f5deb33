"""A search small enough for tests: one block on each path of one later stage, four images of 32x32 a step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import Constraints, cost_table
from fbnetv5.data.config import DataConfig
from fbnetv5.networks.supernet import Supernet
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.prepare import Prepared, prepare
from fbnetv5.spaces.four_path import FourPathSpace

SPACE = FourPathSpace(stages=1, blocks_per_path=1, strict=True)
LIMITS = {"cls": 425e6, "det": 445e6, "seg": 450e6}

MakeConfig = Callable[..., SearchConfig]
MakeLoop = Callable[..., SearchLoop]


def tiny_config(*tasks: str, **changes: Any) -> SearchConfig:
    fields: dict[str, Any] = {
        "budgets": {task: (Budget(limit=LIMITS[task], unit="macs"),) for task in tasks},
        "space": SPACE,
        "data": DataConfig(size=(32, 32), scenes=(24, 24, 16)),
        "batch": 4,
        "policy_batch": 4,
        "warmup_steps": 2,
        "steps": 4,
        "policy_every": 2,
        "panel_draws": 16,
        "panel_checks": 3,
        "finalists": 2,
        "score_images": 16,
        "checkpoint_every": 2,
    }
    return SearchConfig(**fields | changes)


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    """(tasks, **fields that differ) -> a search's configuration."""
    return tiny_config


@pytest.fixture(scope="session")
def constraints() -> dict[str, Constraints]:
    """Of every task on ``SPACE``; counting takes longer than a step."""
    return prepare(tiny_config(*LIMITS)).constraints


@pytest.fixture
def make_loop(tmp_path: Path, constraints: dict[str, Constraints], monkeypatch: pytest.MonkeyPatch) -> MakeLoop:
    """(tasks, **fields that differ) -> the loop of a fresh search in the test's folder; it logs every step."""
    monkeypatch.setattr("fbnetv5.runs.loop.LOG_EVERY", 1)

    def constrain(space: Any, tasks: Any, budgets: Any, table: Any, costs: Any) -> dict[str, Constraints]:
        counted = {(name, "macs"): constraints[name].tables[0] for name in tasks}
        return {
            name: Constraints(
                budgets=own,
                tables=[counted.get((name, b.unit)) or cost_table(space, tasks[name], b, None) for b in own],
            )
            for name, own in budgets.items()
        }

    monkeypatch.setattr("fbnetv5.search.reinforce.prepare.constrain", constrain)

    def make(*tasks: str, **changes: Any) -> SearchLoop:
        config = tiny_config(*tasks, **changes)
        prepared: Prepared = prepare(config)
        torch.manual_seed(config.seed)
        supernet = Supernet(config.space, prepared.tasks)
        return SearchLoop(config, tmp_path, supernet, prepared.splits, prepared.constraints)

    return make

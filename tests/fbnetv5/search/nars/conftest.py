"""A search for pairs that is small enough for tests: narrow networks, images of 32x32 and trainings of four steps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import Constraints
from fbnetv5.data.config import DataConfig
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.jobs import in_this_process
from fbnetv5.search.nars.pairs import PairSpace
from fbnetv5.search.nars.prepare import Prepared, prepare
from fbnetv5.search.nars.recipes import RecipeVariable, default_recipes
from fbnetv5.search.nars.run import NarsResult, run_nars, start_nars
from fbnetv5.search.nars.scale import Scale
from fbnetv5.spaces.space import Choices
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.tasks import task_types

SIZE = (32, 32)
SPACE = StageSpace(width=0.25)
IDENTITY = Scale(quantiles=np.array([0.0, 1.0]), scores=np.array([0.0, 1.0]))
"""Quantiles that are scores."""
PAIRS = PairSpace(SPACE, default_recipes(task_types()["cls"]))
MACS = Budget(limit=2e6, unit="macs", resolution=SIZE)
RECIPES = {
    "lr": RecipeVariable(low=1e-3, high=1e-2, levels=8, log=True),
    "optimizer": RecipeVariable(values=("adamw", "sgd", "rmsprop")),
    "mixup": RecipeVariable(values=(0.0, 0.2)),
}


def tiny_config(**changes: Any) -> NarsConfig:
    """A search of 6 trainings, one of which is a finalist."""
    fields: dict[str, Any] = {
        "task_name": "cls",
        "budgets": (MACS,),
        "space": SPACE,
        "data": DataConfig(size=SIZE, scenes=(48, 24, 16)),
        "recipes": RECIPES,
        "training": {"steps": 4, "evaluate_every": 2, "batch": 8, "held_out": 16, "warmup_steps": 1},
        "first_batch": 3,
        "batch": 2,
        "iterations": 2,
        "pool": 64,
        "pretraining_pool": 256,
        "pretraining_epochs": 2,
        "members": 2,
        "finalists": 1,
    }
    return NarsConfig(**fields | changes)


@pytest.fixture(scope="session")
def prepared() -> Prepared:
    """The inputs of the default configuration."""
    return prepare(tiny_config())


@pytest.fixture(scope="session")
def constrain(prepared: Prepared) -> Callable[..., Constraints]:
    """(share of the range, by unit) -> budgets of the space at this share between its smallest and largest cost."""

    def make(**shares: float) -> Constraints:
        budgets = []
        for unit, share in shares.items():
            table = prepared.cost(unit)
            limit = table.min_cost + share * (table.max_cost - table.min_cost)
            budgets.append(Budget(limit=limit, unit=unit, resolution=SIZE))
        return prepared.constraints(budgets)

    return make


def draw(pairs: PairSpace, count: int, seed: int = 0) -> Choices:
    """Random pairs [B, S + R]."""
    return np.random.default_rng(seed).integers(pairs.counts, size=(count, len(pairs.counts)))


def search(folder: Path, prepared: Prepared, config: NarsConfig | None = None, runner: Any = None) -> NarsResult:
    """A whole search in this process; ``prepared`` lends its images unless ``config`` differs."""
    own = prepared if config is None else replace(prepared, config=config)
    started, _ = start_nars(own.config, folder, lambda constraints: None, lambda line: None)
    return run_nars(started, own, runner or in_this_process(silent), lambda entry: None)


def silent(stage: str, done: int, total: int) -> None:
    """Progress that is not shown."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Path:
    """The folder of a finished search, which no test may change."""
    folder = tmp_path_factory.mktemp("nars") / "run"
    search(folder, prepared)
    return folder

"""A finished search of two tasks, to which a third is added."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbnetv5.costs.budgets import Budget
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.spaces.four_path import FourPathSpace

SPACE = FourPathSpace(stages=1, blocks_per_path=1)
BUDGET = Budget(limit=20e6, unit="macs", resolution=(64, 64))

MakeLater = Callable[..., LaterConfig]


@pytest.fixture(scope="session")
def searched(make_config: Callable[..., SearchConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search, which no test may change."""
    config = make_config(budgets={"cls": BUDGET, "seg": BUDGET}, space=SPACE)
    quiet = lambda *_: None  # noqa: E731
    folder, prepared = start_run(config, tmp_path_factory.mktemp("runs") / "s", quiet, quiet)
    run_search(folder, prepared, quiet, quiet)
    return folder


@pytest.fixture(scope="session")
def make_later(searched: Path) -> MakeLater:
    """(fields that differ) -> the configuration of depth as a later task of ``searched``, with six steps."""

    def make(**changes: Any) -> LaterConfig:
        fields: dict[str, Any] = {
            "run": str(searched),
            "budgets": {"depth": BUDGET},
            "space": SPACE,
            "data": SearchConfig.load(searched).data,
            "steps": 6,
            "batch": 4,
            "panel_draws": 16,
            "panel_checks": 3,
            "finalists": 2,
            "score_images": 16,
            "checkpoint_every": 2,
        }
        return LaterConfig(**fields | changes)

    return make


def files_of(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

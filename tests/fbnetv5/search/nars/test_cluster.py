from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.search.nars.cluster import on_cluster
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.jobs import in_this_process
from fbnetv5.search.nars.recipes import default_recipes
from fbnetv5.search.nars.run import run_nars, start_nars
from fbnetv5.search.nars.trial import RESULT
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.tasks.depth import Depth

pytest.importorskip("ray")


def config() -> NarsConfig:
    return NarsConfig(
        task_name="depth",
        recipes=default_recipes(Depth),
        budgets=(Budget(limit=5e6, unit="macs", resolution=(64, 64)),),
        space=StageSpace(width=0.25),
        data=DataConfig(scenes=(128, 64, 32)),
        training={"steps": 8, "evaluate_every": 4, "batch": 8, "checkpoint_every": 2, "warmup_steps": 2},
        first_batch=4,
        batch=3,
        iterations=2,
        finalists=1,
        pool=64,
        pretraining_pool=64,
    )


@pytest.mark.slow
def test_a_search_ends_as_on_one_machine_although_a_node_is_removed(cluster: Any, tmp_path: Path) -> None:
    second = cluster.worker_nodes.copy().pop()
    removed: list[str] = []

    def remove_once(stage: str, done: int, total: int) -> None:
        if done == 1 and not removed:
            cluster.remove_node(second, allow_graceful=False)
            removed.append(stage)

    runners = {"cluster": on_cluster(cluster.address, 0.0, remove_once), "here": in_this_process(lambda *stage: None)}
    results = {}
    for name, runner in runners.items():
        folder, prepared = start_nars(config(), tmp_path / name, lambda costs: None, lambda line: None)
        results[name] = run_nars(folder, prepared, runner, lambda entry: None)
    assert removed
    assert results["cluster"].recipe == results["here"].recipe
    assert results["cluster"].architecture.choices == results["here"].architecture.choices


@pytest.mark.slow
def test_a_damaged_trial_ends_the_search_with_its_own_error(cluster: Any, tmp_path: Path) -> None:
    folder, prepared = start_nars(config(), tmp_path / "run", lambda costs: None, lambda line: None)

    def damage(stage: str, done: int, total: int) -> None:
        if done == 0:
            (folder / "trials" / "001" / RESULT).write_text("{")

    with pytest.raises(UserError, match="trials/001"):
        run_nars(folder, prepared, on_cluster(cluster.address, 0.0, damage), lambda entry: None)

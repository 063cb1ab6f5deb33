"""Finished searches, as far as the benchmarks read them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import judge
from benchmarks.architectures import random_matched
from fbnetv5.architecture import Architecture, make_architecture
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.tables import CostTable, Counter
from fbnetv5.data.config import DataConfig
from fbnetv5.data.scenes import CLASSES
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.panel import PANEL, Observations, Panel
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks import make_tasks

BUDGET = Budget(limit=400e6, unit="macs")
COUNTER = Counter(BUDGET.resolution)


def counted(space: Space, task: str, unit: str = "macs") -> CostTable:
    """The task's table at the budget's resolution."""
    return COUNTER.table(space, make_tasks((task,), CLASSES)[task], unit)


def record(space: Space, task: str, choices: Choices) -> Architecture:
    """The architecture of choices [S]."""
    return make_architecture(space, {task: choices}, CLASSES, BUDGET.resolution, provenance={})


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two searches of det and seg on 32x32 scenes, which have network random networks."""
    folders = [tmp_path / "s0", tmp_path / "s1"]
    for seed, folder in enumerate(folders):
        config = SearchConfig(
            budgets={"det": (BUDGET,), "seg": (BUDGET,)},
            data=DataConfig(size=(32, 32), scenes=(16, 8, 8)),
            batch=4,
            seed=seed,
        )
        folder.mkdir()
        config.save(folder)
        for task in config.tasks:
            network = random_matched(counted(config.space, task), BUDGET, 2, seed=7)[seed]
            record(config.space, task, np.array(network)).save(folder / f"{task}.json")
        panel_of(config).save(folder / PANEL)
    return folders


def panel_of(config: SearchConfig) -> Panel:
    """A panel whose loss is the number of live late blocks, beside noise of .1."""
    rng = np.random.default_rng(config.seed)
    choices = rng.integers(0, 2, (320, len(config.space.variables)))
    losses = [late_blocks(counted(config.space, task), choices) for task in config.tasks]
    noise = rng.normal(scale=0.1, size=(len(config.tasks), len(choices)))
    batches = np.arange(len(choices)) % 8
    rows = Observations(choices=choices, batches=batches, losses=np.transpose(losses + noise) + batches[:, None])
    return Panel(drawn=rows.part(0, 240), checks=rows.part(240, 320))


def late_blocks(table: CostTable, choices: Choices) -> NDArray[np.float64]:
    """[B, S] -> [B]: the number of live blocks of the last stage, by a table of ones."""
    ones = np.array([[float(node.stage == 4)] * table.blocks.shape[1] for node in table.space.nodes])
    return replace(table, blocks=ones, head=0.0)(choices)


def quiet(*_: object) -> None:
    """Say nothing."""


def tiny_judge(folder: Path, *, supernets: int) -> tuple[SearchConfig, Path, Path]:
    """A search of seg with 250M in a small space and its judge, a step each: its configuration and both folders."""
    config = SearchConfig(
        budgets={"seg": (BUDGET.changed(limit=250e6),)},
        space=FourPathSpace(stages=1, blocks_per_path=1),
        data=DataConfig(size=(32, 32), scenes=(16, 8, 8)),
        batch=4,
        warmup_steps=1,
        steps=1,
        panel_draws=16,
        panel_checks=3,
        finalists=2,
        score_images=8,
    )
    run = start_run(config, folder / "s0", quiet, quiet)[0]
    run_search(run, prepare(config), quiet, quiet)
    judged = folder / "judge"
    judging = [
        str(run),
        "--output",
        str(judged),
        "--steps",
        "1",
        "--images",
        "8",
        "--supernets",
        str(supernets),
        "--count",
        "2",
    ]
    judge.main([*judging, "--controls", "0", "--planted", "0", "--processes", "1"])
    return config, run, judged

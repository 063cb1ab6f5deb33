"""Every task of a published multi-task data set can be trained on a folder in its layout."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fbnetv5.architecture import make_architecture
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.data.splits import targets_of
from fbnetv5.data.targets import class_names
from fbnetv5.search.bmtas.run import run_branch, start_branch
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.run import run_training, start_training
from tests.fbnetv5.data.multi_task_folders import make_pascal_context
from tests.fbnetv5.search.bmtas.conftest import tiny_config

MakeTraining = Callable[..., TrainConfig]
SPACE = FourPathSpace(stages=1, blocks_per_path=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pascal_context(tmp_path_factory.mktemp("data") / "PASCAL_MT")


@pytest.mark.parametrize("task", ["seg", "parts", "saliency", "normals", "edges"])
def test_a_task_is_trained_on_pascal_context(
    make_training: MakeTraining, root: Path, tmp_path: Path, task: str
) -> None:
    classes = class_names(targets_of(root))
    architecture = make_architecture(SPACE, {task: SPACE.empty()}, classes, (32, 32), provenance={})
    architecture.save(tmp_path / "network.json")
    config = make_training(task, folder=root, steps=2, init="scratch", scale=(0.7, 1.4))
    folder, prepared = start_training(config, tmp_path / "network.json", tmp_path / "run")
    result = run_training(folder, prepared, lambda entry: None, lambda line: None)
    assert math.isfinite(result.best[task])


@pytest.mark.slow
def test_a_branched_network_is_searched_for_all_tasks_of_pascal_context(root: Path, tmp_path: Path) -> None:
    config = tiny_config(
        task_names=("seg", "parts", "saliency", "normals", "edges"),
        budget=Budget(limit=250e6, unit="macs"),
        data=DataConfig.of(root, size=(32, 32)),
        routing="sampled",
        steps=2,
    )
    folder, prepared = start_branch(config, tmp_path / "run", lambda costs: None, lambda line: None)
    network = run_branch(folder, prepared, lambda entry: None).build().eval()
    shapes = [output.shape[1] for output in network(torch.zeros(1, 3, 32, 32))]
    assert shapes == [21, 7, 1, 3, 1]

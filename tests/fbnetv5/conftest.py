"""Small networks to train, on images of 32x32: of each task, of nothing that a choice can skip; and a tree of tasks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fbnetv5.architecture import make_architecture
from fbnetv5.data.config import DataConfig
from fbnetv5.data.scenes import CLASSES
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks
from fbnetv5.training.config import TrainConfig

SPACE = FourPathSpace(stages=1, blocks_per_path=1)
SIZE = (32, 32)

MakeTraining = Callable[..., TrainConfig]


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of architecture files with weights, as a search leaves them."""
    folder = tmp_path_factory.mktemp("networks")
    for name, task in make_tasks(("cls", "det", "seg"), CLASSES).items():
        architecture = make_architecture(
            SPACE,
            {name: SPACE.empty()},
            CLASSES,
            SIZE,
            provenance={"trained_at": list(SIZE), "metric": task.metric.name, "score": 0.0},
        )
        architecture.save(folder / f"{name}.json")
        torch.manual_seed(1)
        save_tensors(folder / f"{name}.safetensors", architecture.build().state_dict())
    return folder


@pytest.fixture(scope="session")
def branched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The architecture file of a tree of three tasks, with weights: det leaves the others early, cls and seg late."""
    space = BranchingSpace(width=0.25)
    layers = len(space.variables)
    choices = {"cls": [0] * layers, "det": [0, 0] + [1] * (layers - 2), "seg": [0] * (layers - 3) + [2] * 3}
    architecture = make_architecture(space, choices, CLASSES, SIZE, provenance={"trained_at": list(SIZE)})
    file = tmp_path_factory.mktemp("branched") / "branched.json"
    architecture.save(file)
    torch.manual_seed(1)
    save_tensors(file.with_suffix(".safetensors"), architecture.build().state_dict())
    return file


@pytest.fixture(scope="session")
def make_training() -> MakeTraining:
    """(names of tasks, such as "cls+det", **fields that differ) -> a training of six steps."""

    def make(
        tasks: str,
        *,
        folder: Path | None = None,
        size: tuple[int, int] = SIZE,
        scenes: Any = (24, 12, 16),
        **changes: Any,
    ) -> TrainConfig:
        fields: dict[str, Any] = {
            "data": DataConfig.of(folder, size=size).changed(scenes=scenes),
            "held_out": 8,
            "steps": 6,
            "batch": 4,
            "warmup_steps": 2,
            "lr": 1e-3,
            "scale": (0.7, 1.4),
            "evaluate_every": 2,
            "checkpoint_every": 2,
        }
        return TrainConfig(task_names=tuple(tasks.split("+")), **fields | changes)

    return make


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes on this machine, each with one core."""
    ray, utils = pytest.importorskip("ray"), pytest.importorskip("ray.cluster_utils")
    nodes = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    yield nodes
    ray.shutdown()
    nodes.shutdown()

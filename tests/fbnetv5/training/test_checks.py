from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.data.sample import Sample
from fbnetv5.data.scenes import CLASSES, TARGETS, Scenes
from fbnetv5.data.targets import SOFT_LABEL, Target
from fbnetv5.tasks import make_tasks
from fbnetv5.tasks.detection import Detection
from fbnetv5.tasks.task import Task
from fbnetv5.training.checks import check_recipe, check_soft_labels, check_teacher
from fbnetv5.training.config import TrainConfig
from tests.samples import make_sample


class Listed(list[Sample]):
    """Samples as an image set."""

    def __init__(self, samples: list[Sample], targets: dict[str, Target]) -> None:
        super().__init__(samples)
        self.targets = targets


MakeTraining = Callable[..., TrainConfig]


def test_smoothing_must_change_the_loss_of_some_task(make_training: MakeTraining) -> None:
    tasks = make_tasks(("det", "cls"), CLASSES)
    check_recipe(make_training("det+cls", label_smoothing=0.1), list(tasks.values()), TARGETS)
    with pytest.raises(UserError, match="label_smoothing has no effect on the loss of det: set it to 0"):
        check_recipe(make_training("det", label_smoothing=0.1), [tasks["det"]], TARGETS)


def test_a_network_of_any_width_may_teach(networks: Path, branched: Path) -> None:
    for task in ("cls", "det", "seg"):
        check_teacher(str(branched), load_architecture(networks / f"{task}.json").build(), (32, 64))


def test_a_task_without_a_distillation_loss_is_refused(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detection, "distillation_losses", Task.distillation_losses)
    with pytest.raises(UserError, match="task det has no distillation loss: train it without a teacher"):
        check_teacher(str(networks / "det.json"), load_architecture(networks / "det.json").build(), (32, 32))


def test_soft_labels_must_exist() -> None:
    scenes, tasks = Scenes("train", size=(32, 32), count=4), make_tasks(("cls",), CLASSES)
    with pytest.raises(UserError, match="the images have no soft labels of cls: store them with fbnetv5 label"):
        check_soft_labels(tasks, scenes)
    one = [make_sample(torch.zeros(3, 32, 32)), make_sample(torch.zeros(3, 32, 32), soft_label="any")]
    check_soft_labels(tasks, Listed(one, {"soft_label": Target(kind=SOFT_LABEL)}))
    with pytest.raises(UserError, match="no soft labels"):
        check_soft_labels(tasks, Listed(one[:1], {"soft_label": Target(kind=SOFT_LABEL)}))

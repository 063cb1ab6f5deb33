"""Checks before a training starts: whether its recipe suits its tasks, and its teacher its network."""

from collections.abc import Mapping, Sequence

import torch

from export.errors import UserError
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.sample import ImageSet
from fbnetv5.data.targets import Target
from fbnetv5.networks.backbone import Network, task_network
from fbnetv5.spaces.space import Space
from fbnetv5.tasks.task import Task
from fbnetv5.training.config import SOFT_LABELS, TrainConfig
from fbnetv5.training.distillation import open_distillation_teacher
from fbnetv5.training.mix import check_mixable
from fbnetv5.training.objective import soft_targets


def check_recipe(config: TrainConfig, tasks: Sequence[Task], targets: Mapping[str, Target]) -> None:
    """Raise a ``UserError`` if CutMix or mosaic does not suit a task, or label smoothing changes the loss of none."""
    check_mixable(config, tasks, targets)
    if config.label_smoothing and not any(task.can_smooth for task in tasks):
        raise UserError(
            f"training: label_smoothing has no effect on the loss of {', '.join(config.tasks)}: set it to 0. It is for "
            "tasks with cross entropy over classes"
        )


def check_soft_labels(tasks: Mapping[str, Task], images: ImageSet) -> None:
    """Raise a ``UserError`` if no image has a soft label of one of the tasks. Images are read up to the first one."""
    targets = soft_targets(tasks, images.targets).values()
    if not any(target in images[index].targets for index in range(len(images) if targets else 0) for target in targets):
        raise UserError(
            f"the images have no soft labels of {', '.join(tasks)}: store them with fbnetv5 label --soft-labels 5 "
            "--teacher cls=NETWORK, or name a network with --teacher"
        )


@torch.no_grad()
def check_teacher(name: str, network: Network, size: Resolution) -> None:
    """Open the teacher of a network, and compare their outputs for one black image of this size.

    Leaves the network in eval mode.

    Raises:
        UserError: as of ``open_distillation_teacher``; or a task has no distillation loss.
        UnavailableError: as of ``open_distillation_teacher``.
    """
    device = next(network.parameters()).device
    teacher = open_distillation_teacher(name, network.tasks, device)
    images = normalise(torch.zeros(1, 3, *size, dtype=torch.uint8, device=device))
    raw, others = network.eval().raw(images), teacher.raw(images)
    for task in teacher.tasks:
        network.tasks[task].distillation_losses(raw[task], others[task], 1.0)


def check_teacher_of_task(name: str, task: Task, space: Space, size: Resolution, *, images: ImageSet) -> None:
    """``check_teacher`` for the networks of a task in a space, which all have the same outputs.

    If the teacher is that of the soft labels of ``images``, ``check_soft_labels``.
    """
    if name == SOFT_LABELS:
        check_soft_labels({task.name: task}, images)
        return
    check_teacher(name, task_network(task, space, space.empty()), size)

"""Lines for the user of a training: soft labels that are not used, and a teacher that sees images fitted otherwise."""

import os
from collections.abc import Sequence
from pathlib import Path

from export.progress import Log
from fbnetv5.data.config import DataConfig
from fbnetv5.data.layouts import open_folder
from fbnetv5.tasks import needed_targets
from fbnetv5.training.distillation import fit_of_teacher


def describe_soft_labels(data: Path | None, tasks: Sequence[str], log: Log) -> None:
    """Log that a training without a teacher leaves the soft labels of a folder unused, if it has any."""
    if data is None or os.environ.get("RANK", "0") != "0":
        return
    soft = set(needed_targets(tasks, soft=True)) - set(needed_targets(tasks))
    if soft & open_folder(data).targets.keys():
        log(f"{data} has soft labels, which are not used; --teacher soft-labels learns from them")


def describe_teacher_fit(teacher: str | None, images: DataConfig, log: Log) -> None:
    """Log that the images of a folder reach the teacher with another fit than it was trained with, if they do."""
    if teacher is None or images.folder is None or os.environ.get("RANK", "0") != "0":
        return
    fit = fit_of_teacher(teacher)
    if fit not in (None, images.fit):
        log(
            f"teacher {teacher} was trained with --fit {fit}, and sees images with --fit {images.fit} here: it teaches "
            f"best with --fit {fit}"
        )

"""Checks of a search's recipes, labels, teacher and budgets against its inputs, before the first training."""

import numpy as np

from fbnetv5.costs.constraints import Constraints
from fbnetv5.data.splits import without_policies
from fbnetv5.evaluate import check_labelled
from fbnetv5.search.nars.prepare import Prepared
from fbnetv5.training.checks import check_recipe, check_teacher_of_task


def check_trainings(prepared: Prepared) -> None:
    """Check that every value of the recipe suits the task and its images.

    Raises:
        UserError: a value does not.
    """
    for training in prepared.config.trainings():
        check_recipe(training, [prepared.task], prepared.splits.weights.targets)


def check_labels(prepared: Prepared) -> None:
    """Check that the images that trials learn from and are scored on, and the test images, have labels of the task.

    Raises:
        UserError: none of them has.
    """
    splits = prepared.splits
    images, held_out = without_policies(splits, prepared.config.train_config({}).held_out)
    for use, part in (("learn from", images), ("hold out", held_out), ("test on", splits.test)):
        check_labelled(prepared.task, part, use)


def check_distillation(prepared: Prepared) -> None:
    """Check that the teacher, if there is one, suits the task and its images.

    Raises:
        UserError: it is missing or does not.
        UnavailableError: its library, or its weights, are not on this machine.
    """
    config = prepared.config
    if config.teacher is not None:
        check_teacher_of_task(
            config.teacher, prepared.task, config.space, config.data.size, images=prepared.splits.weights
        )


def check_budgets(prepared: Prepared, constraints: Constraints) -> None:
    """Check the budgets against the space, or against the only architecture.

    Raises:
        UserError: a budget is out of range.
    """
    fixed = prepared.config.fixed
    if fixed is None:
        constraints.check()
    else:
        constraints.check_architecture(np.array(fixed))

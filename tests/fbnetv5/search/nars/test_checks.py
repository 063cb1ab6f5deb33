from pathlib import Path

import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.search.nars.checks import check_budgets, check_distillation, check_trainings
from fbnetv5.search.nars.prepare import Prepared, prepare
from fbnetv5.search.nars.recipes import RecipeVariable
from tests.fbnetv5.search.nars.conftest import MACS, SIZE, SPACE, tiny_config


def test_the_only_architecture_must_not_exceed_a_budget(prepared: Prepared) -> None:
    largest = tuple((np.array(SPACE.choice_counts) - 1).tolist())
    own = prepare(tiny_config(fixed=largest))
    with pytest.raises(UserError, match=r"the architecture costs .*, more than the budget of 2\.0M"):
        check_budgets(own, own.constraints([MACS]))
    check_budgets(own, own.constraints([Budget(limit=1e9, unit="macs", resolution=SIZE)]))


def test_a_teacher_must_be_there_and_of_the_task(networks: Path) -> None:
    check_distillation(prepare(tiny_config()))
    check_distillation(prepare(tiny_config(teacher=str(networks / "cls.json"))))
    for name, message in (("det.json", "it cannot teach cls"), ("no.json", "does not exist")):
        with pytest.raises(UserError, match=message):
            check_distillation(prepare(tiny_config(teacher=str(networks / name))))


def test_a_recipe_that_does_not_suit_the_task_is_refused() -> None:
    config = tiny_config(task_name="det", recipes={"cutmix": RecipeVariable(values=(0.0, 1.0))})
    with pytest.raises(UserError, match="cutmix"):
        check_trainings(prepare(config))

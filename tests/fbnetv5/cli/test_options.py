from pathlib import Path
from typing import get_args

import pytest

from export.errors import UserError
from fbnetv5.cli.options import Tasks, architecture_file, task_names
from fbnetv5.tasks import default_tasks


def test_task_names_keep_their_order_and_lose_their_spaces() -> None:
    assert task_names("seg, cls") == ("seg", "cls")


def test_help_names_the_tasks_that_are_taken_without_any() -> None:
    (option,) = get_args(Tasks)[1:]
    assert task_names(None) == default_tasks() == tuple(option.show_default.split(","))


@pytest.mark.parametrize("tasks", ["", "cls,", "cls,det,cls"])
def test_what_is_no_list_of_different_tasks_is_refused(tasks: str) -> None:
    with pytest.raises(UserError, match="is not a list of different tasks, such as cls,det,seg"):
        task_names(tasks)


def test_a_network_is_named_by_its_file_or_by_its_task() -> None:
    assert architecture_file("det", None) == Path("runs/latest/det.json")
    assert architecture_file("det", Path("a.json")) == Path("a.json")
    with pytest.raises(UserError, match="name a network: --task det"):
        architecture_file(None, None)

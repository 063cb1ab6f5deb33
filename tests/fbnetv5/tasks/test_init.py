import pytest

from export.errors import UserError
from fbnetv5.data.scenes import TARGETS
from fbnetv5.tasks import default_tasks, make_tasks, needed_targets, searched_tasks, task_names, task_types


def test_the_folder_holds_these_tasks_in_their_order() -> None:
    assert list(task_types()) == ["cls", "det", "seg", "saliency", "edges", "depth", "normals", "parts"]
    assert default_tasks() == ("cls", "det", "seg")


def test_task_names_keep_their_order_and_lose_their_spaces() -> None:
    assert task_names("seg, cls") == task_names(["seg", "cls"]) == ("seg", "cls")
    assert task_names(None) == default_tasks()


@pytest.mark.parametrize("tasks", ["", "cls,", "cls,det,cls", [], ["cls", "cls"]])
def test_a_list_with_empty_or_repeated_tasks_is_refused(tasks: str | list[str]) -> None:
    with pytest.raises(UserError, match="is not a comma-separated list of different tasks, such as cls,det,seg"):
        task_names(tasks)


def test_the_targets_that_tasks_need() -> None:
    assert needed_targets(["seg", "cls", "seg"]) == ("mask", "label")
    assert needed_targets(["seg", "cls"], soft=True) == ("mask", "label", "soft_label")
    assert set(needed_targets(task_types())) == set(TARGETS)
    with pytest.raises(UserError, match="unknown task 'pose'"):
        needed_targets(["pose"])


def test_a_task_whose_target_the_data_lack_is_refused() -> None:
    has = r"no labels for task 'depth'; it has labels for: cls, det\. Add labels, or choose tasks with --tasks"
    with pytest.raises(UserError, match=has):
        make_tasks(("cls", "depth"), {"label": ("a", "b"), "boxes": ("a",)})


def test_a_class_alone_is_enough_for_boxes_but_not_to_tell_images_or_pixels_apart() -> None:
    classes = {"label": ("tree",), "boxes": ("tree",), "mask": ("tree",)}
    assert list(make_tasks(("cls", "det"), classes)) == ["cls", "det"]  # a network that exists can be loaded
    assert list(searched_tasks(("det",), classes)) == ["det"]
    for task in "cls", "seg":
        with pytest.raises(UserError, match=f"task '{task}' needs 2 classes or more, and the data set has only 'tree'"):
            searched_tasks(("det", task), classes)
    with pytest.raises(UserError, match=r"it has labels for: det\. Add"):
        make_tasks(("depth",), classes)


def test_unknown_task_is_named_with_those_there_are() -> None:
    known = "cls, det, seg, saliency, edges, depth, normals, parts"
    with pytest.raises(UserError, match=f"unknown task 'pose'; there are: {known}"):
        make_tasks(("cls", "pose"), {"label": ("a", "b")})

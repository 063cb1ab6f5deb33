from export.discovery import concrete_subclasses
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.scaled import ScaledSpace
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.tasks.detection import Detection
from fbnetv5.tasks.task import Task


def test_the_concrete_classes_of_a_package_are_found_once_and_in_their_own_module() -> None:
    tasks = concrete_subclasses("fbnetv5.tasks", Task)  # type: ignore[type-abstract]
    assert Detection in tasks
    assert len(tasks) == len(set(tasks)) == 8
    spaces = concrete_subclasses("fbnetv5.spaces", Space)  # type: ignore[type-abstract]
    assert spaces == [BranchingSpace, FourPathSpace, ScaledSpace, StageSpace, WideSpace]


def test_abstract_classes_and_other_bases_are_left_out() -> None:
    assert concrete_subclasses("fbnetv5.tasks", Space) == []  # type: ignore[type-abstract]
    assert Task not in concrete_subclasses("fbnetv5.tasks", Task)  # type: ignore[type-abstract]

import pytest

from export.errors import UserError
from fbnetv5.cli.profile.options import make_scope
from fbnetv5.spaces.four_path import FourPathSpace


def test_a_scope_has_the_space_tasks_and_resolution_of_the_options() -> None:
    scope = make_scope("a", 1, 2, "64x96", "det,cls", None)
    assert scope.space == FourPathSpace(variant="a", stages=1, blocks_per_path=2)
    assert (scope.tasks, scope.resolution) == (("det", "cls"), (64, 96))


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UserError, match="unknown task 'pose'"):
        make_scope("a", 1, 2, "64x64", "pose", None)

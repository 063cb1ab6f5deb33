from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.cli.profile.options import make_scope
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace


def test_a_scope_has_the_space_tasks_and_resolution_of_the_options() -> None:
    scope = make_scope("a", 1, 2, "64x96", "det,cls", None)
    assert scope.space == FourPathSpace(variant="a", stages=1, blocks_per_path=2)
    assert (scope.tasks, scope.resolution) == (("det", "cls"), (64, 96))


def test_an_encoder_makes_the_space_of_its_branches() -> None:
    scope = make_scope("a", 4, 2, "64x64", "det,cls", None, encoder="fbnetv3-b", width=0.5)
    assert scope.space == BranchingSpace(encoder="fbnetv3-b", width=0.5, copies=2)


WRONG = {
    "width without an encoder": ({"width": 0.5}, "add --encoder"),
    "an encoder with stages": ({"stages": 1, "encoder": "fbnetv3-b"}, "--encoder replaces --variant, --stages"),
    "an unknown encoder": ({"encoder": "vgg"}, "unknown encoder 'vgg'"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"variant": "a", "stages": 4, "blocks_per_path": 2, "resolution": "64", "tasks": "cls"}
    with pytest.raises(UserError, match=message):
        make_scope(**defaults | {"data": None} | options)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UserError, match="unknown task 'pose'"):
        make_scope("a", 1, 2, "64x64", "pose", None)

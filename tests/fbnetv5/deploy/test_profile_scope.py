from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.deploy.profile_scope import scope
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.wide import WideSpace


def test_a_scope_has_the_space_tasks_and_resolution_of_the_options() -> None:
    made = scope(stages=1, resolution="64x96", tasks="det,cls")
    assert made.space == FourPathSpace(variant="a", stages=1, blocks_per_path=2)
    assert (made.tasks, made.resolution) == (("det", "cls"), (64, 96))


def test_a_scope_may_have_the_wide_space() -> None:
    assert scope(space="wide", stages=1, resolution=64, tasks="cls").space == WideSpace(stages=1)


def test_an_encoder_makes_the_space_of_its_branches() -> None:
    made = scope(resolution=64, tasks=["det", "cls"], encoder="fbnetv3-b", width=0.5)
    assert made.space == BranchingSpace(encoder="fbnetv3-b", width=0.5, copies=2)


WRONG = {
    "width without an encoder": ({"width": 0.5}, "add --encoder"),
    "an encoder with stages": (
        {"stages": 1, "encoder": "fbnetv3-b"},
        "--encoder replaces --space, --variant, --stages",
    ),
    "an encoder with a space": ({"space": "wide", "encoder": "fbnetv3-b"}, "--encoder replaces --space"),
    "an unknown encoder": ({"encoder": "vgg"}, "unknown encoder 'vgg'"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        scope(resolution=(64, 64), tasks="cls", **options)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UserError, match="unknown task 'pose'"):
        scope(tasks="pose")

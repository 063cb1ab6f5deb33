import pytest

from export.errors import UserError
from tests.fbnetv5.search.bmtas.conftest import tiny_config


def test_the_space_has_a_copy_of_each_layer_per_task() -> None:
    config = tiny_config(task_names=("cls", "seg"))
    assert config.space.copies == 2
    assert config.tasks == ("cls", "seg")
    assert config.warmup_steps == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_names": ("cls",)}, "serves 2 to 8 tasks, not 1"),
        ({"encoder": "vgg"}, "unknown encoder 'vgg'"),
        ({"routing": "hard"}, "routing"),
        ({"warmup_share": 1.5}, "warmup_share"),
    ],
)
def test_wrong_fields_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_config(**changes)

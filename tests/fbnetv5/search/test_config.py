from collections.abc import Callable
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.search.config import SupernetConfig
from tests.fbnetv5.search.bmtas.conftest import tiny_config as tiny_branch_config
from tests.fbnetv5.search.reinforce.conftest import tiny_config as tiny_search_config


def tiny_cls_config(**changes: Any) -> SupernetConfig:
    return tiny_search_config("cls", **changes)


@pytest.mark.parametrize("make", [tiny_cls_config, tiny_branch_config])
def test_every_search_has_the_shared_fields_with_their_limits(make: Callable[..., SupernetConfig]) -> None:
    assert isinstance(make(), SupernetConfig)
    for wrong in ({"batch": 1}, {"weight_lr": 0.0}, {"clip_norm": -1.0}, {"checkpoint_every": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            make(**wrong)

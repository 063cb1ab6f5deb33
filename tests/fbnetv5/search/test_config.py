import json
import math
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.cost import Budget
from fbnetv5.search.config import SearchConfig
from fbnetv5.space import Space

BUDGETS = {
    "cls": Budget(limit=400e6, unit="macs"),
    "det": Budget(limit=1.2e9, unit="macs", resolution=(320, 640)),
}


@pytest.mark.parametrize(
    "config",
    [
        SearchConfig(budgets=BUDGETS),
        SearchConfig(
            budgets={"seg": Budget(limit=8.0, unit="ms")},
            space=Space(variant="c", stages=2, strict=True),
            data="/pictures",
            size=(96, 64),
            table="/luts/cpu.json",
            foreign_table=True,
            seed=5,
            pictures=(1, 2, 3),
            score_pictures=45,
            importance=0.5,
            policy_every=3,
            steps=0,
        ),
    ],
    ids=["defaults", "all else"],
)
def test_a_saved_configuration_comes_back(config: SearchConfig, tmp_path: Path) -> None:
    config.save(tmp_path / "config.json")
    assert SearchConfig.load(tmp_path / "config.json") == config


def test_tasks_and_steps_follow_from_the_fields() -> None:
    config = SearchConfig(budgets=BUDGETS, warmup_steps=30, steps=12)
    assert (config.tasks, config.total_steps) == (("cls", "det"), 42)


@pytest.mark.parametrize(("after", "expected"), [(0, 0), (1, 1), (3, 1), (4, 2), (12, 4)])
def test_every_so_many_th_step_trains_policies_the_first_one_too(after: int, expected: int) -> None:
    assert SearchConfig(budgets=BUDGETS, policy_every=3).policy_steps(after) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budgets": {}}, "at least one task"),
        ({"size": (64, 65)}, "multiples of 32"),
        ({"batch": 1}, "batch must be at least 2, not 1"),
        ({"policy_batch": -1}, "policy_batch must be at least 2"),
        ({"policy_every": 1}, "policy_every must be at least 2"),
        ({"panel_draws": 8}, "panel_draws must be at least 16, not 8"),
        ({"panel_checks": 2}, "panel_checks must be at least 3"),
        ({"importance": 1.5}, "importance must be from 0 to 1"),
        ({"finalists": 0}, "finalists must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, not -1"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"seed": -1}, "seed must be from 0 to 2147483647, not -1"),
        ({"seed": 2**31}, "seed must be from 0"),
        ({"weight_lr": math.nan}, "weight_lr must be from 1e-12 to 1e.12, not nan"),
        ({"policy_lr": 10**400}, "policy_lr must be from 1e-12"),
        ({"clip_norm": -5.0}, "clip_norm must be from 1e-12"),
        ({"weight_decay": -1.0}, "weight_decay must be from 0 to 1e.12"),
        ({"multiplier_lr": math.inf}, "multiplier_lr must be from 0"),
        ({"pictures": (16, 0, 4)}, "pictures must be at least 1, not 0"),
        ({"score_pictures": 0}, "score_pictures must be at least 1, not 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_out_of_range_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchConfig(**{"budgets": BUDGETS} | fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"momentum": 0.9}, "of another version; fields that differ: momentum. Start a new search"),
        ({"space": {"variant": "a"}}, "a space has the fields"),
        ({"batch": 0}, "batch must be at least 2"),
    ],
    ids=["schema", "unknown field", "half a space", "value out of range"],
)
def test_a_file_that_does_not_fit_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    SearchConfig(budgets=BUDGETS).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        SearchConfig.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"search configuration file .*nowhere\.json does not exist"):
        SearchConfig.load(tmp_path / "nowhere.json")

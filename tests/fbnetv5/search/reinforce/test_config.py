import json
import math
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.wide import WideSpace

BUDGETS: dict[str, tuple[Budget, ...]] = {
    "cls": (Budget(limit=400e6, unit="macs"),),
    "det": (Budget(limit=1.2e9, unit="macs", resolution=(320, 640)),),
}


@pytest.mark.parametrize(
    "config",
    [
        SearchConfig(budgets=BUDGETS),
        SearchConfig(
            budgets={"seg": (Budget(limit=8.0, unit="ms"), Budget(limit=5e6, unit="params"))},
            space=FourPathSpace(variant="c", stages=2, strict=True),
            data=DataConfig(folder="/images", size=(96, 64), scenes=(1, 2, 3)),
            table="/luts/cpu.json",
            other_machine_table=True,
            seed=5,
            score_images=45,
            importance=0.5,
            policy_every=3,
            steps=0,
        ),
    ],
    ids=["defaults", "all else"],
)
def test_a_saved_configuration_is_loaded_again(config: SearchConfig, tmp_path: Path) -> None:
    config.save(tmp_path)
    assert SearchConfig.load(tmp_path) == config


def test_tasks_and_steps_follow_from_the_fields() -> None:
    config = SearchConfig(budgets=BUDGETS, warmup_steps=30, steps=12)
    assert (config.tasks, config.total_steps) == (("cls", "det"), 42)


@pytest.mark.parametrize(("after", "expected"), [(0, 0), (1, 1), (3, 1), (4, 2), (12, 4)])
def test_policies_train_at_the_first_step_and_once_a_period(after: int, expected: int) -> None:
    assert SearchConfig(budgets=BUDGETS, policy_every=3).policy_steps(after) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budgets": {}}, "at least one task"),
        ({"batch": 1}, "search: batch: must be greater than or equal to 2, not 1"),
        ({"batch": 8.0}, "batch: must be a valid integer, not 8.0"),
        ({"policy_batch": -1}, "policy_batch: must be greater than or equal to 2"),
        ({"policy_every": 1}, "policy_every: must be greater than or equal to 2"),
        ({"panel_draws": 8}, "panel_draws: must be greater than or equal to 16, not 8"),
        ({"panel_checks": 2}, "panel_checks: must be greater than or equal to 3"),
        ({"importance": 1.5}, "importance: must be less than or equal to 1"),
        ({"finalists": 0}, "finalists: must be greater than or equal to 1"),
        ({"checkpoint_every": 0}, "checkpoint_every: must be greater than or equal to 1"),
        ({"warmup_steps": -1}, "warmup_steps: must be greater than or equal to 0, not -1"),
        ({"steps": -1}, "steps: must be greater than or equal to 0"),
        ({"seed": -1}, "seed: must be greater than or equal to 0, not -1"),
        ({"seed": 2**31}, "seed: must be less than or equal to 2147483647"),
        ({"weight_lr": math.nan}, "weight_lr: must be a finite number, not nan"),
        ({"policy_lr": 1e13}, "policy_lr: must be less than or equal to 1"),
        ({"clip_norm": -5.0}, "clip_norm: must be greater than 0"),
        ({"weight_decay": -1.0}, "weight_decay: must be greater than or equal to 0"),
        ({"multiplier_lr": math.inf}, "multiplier_lr: must be a finite number"),
        ({"score_images": 0}, "score_images: must be greater than or equal to 1, not 0"),
        ({"estimator": "magic"}, "estimator: must be .control., .image.,"),
        ({"data": {"size": (64, 65)}}, "multiples of 32"),
        ({"space": WideSpace(), "compile_blocks": True}, "compile_blocks does not go with variant a, wide"),
        ({"steps": 1, "step": 2, "batch": "9"}, "batch: .*; there is no field 'step'; there are: data, seed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_out_of_range_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchConfig(**{"budgets": BUDGETS} | fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99; this version reads 1 and 2"),
        ({"momentum": 0.9}, "of another version; fields that differ: momentum. Start a new search"),
        ({"space": {"variant": "a"}}, "space: blocks_per_path, stages, strict missing"),
        ({"batch": 0}, "is damaged: search: batch: must be greater than or equal to 2"),
        ({"kind": "training"}, "is the folder of a training, not of a search"),
    ],
    ids=["schema", "unknown field", "half a space", "value out of range", "kind"],
)
def test_a_file_that_does_not_fit_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    SearchConfig(budgets=BUDGETS).save(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        SearchConfig.load(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run configuration file .*nowhere/config\.json does not exist"):
        SearchConfig.load(tmp_path / "nowhere")

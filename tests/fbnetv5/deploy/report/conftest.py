"""A run folder that is quickly made: networks that were never searched, with the history and fronts of a search."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from export.files import write_json
from fbnetv5.architecture import load_architecture

TASKS = ("cls", "det", "seg")


def entry(step: int, variables: int, **changes: Any) -> dict[str, Any]:
    """An entry of the history of a search whose policies move from 0.5 to 1 in 40 steps."""
    share = round(0.5 + step / 80, 4)
    values = {task: float(step + number + 1) for number, task in enumerate(TASKS)}
    series = ("losses", "expected_cost", "entropy", "multiplier", "effective_samples", "gradient_variance")
    policies = {task: [[1 - share, share]] * variables for task in TASKS}
    return {"step": step, "phase": "weights", **dict.fromkeys(series, values), "policies": policies, **changes}


def write_history(folder: Path, entries: list[dict[str, Any]]) -> None:
    (folder / "history.jsonl").write_text("".join(json.dumps(each) + "\n" for each in entries), encoding="utf-8")


@pytest.fixture
def search_run(networks: Path, tmp_path: Path) -> Path:
    """The folder of a finished search for three tasks on images of 32x32."""
    run = Path(shutil.copytree(networks, tmp_path / "search"))
    space = load_architecture(run / "cls.json").space
    budget = {"limit": 5e6, "unit": "macs", "resolution": [32, 32]}
    config = {"schema": 2, "kind": "search", "tasks": list(TASKS), "seed": 3, "warmup_steps": 10, "steps": 30}
    config |= {"data": {"folder": None, "size": [32, 32], "fit": "stretch", "scenes": [24, 12, 16]}}
    config |= {"budgets": dict.fromkeys(TASKS, budget), "space": space.to_json(), "table": None}
    write_json(run / "config.json", config)
    write_history(run, [entry(step, len(space.variables)) for step in (10, 20, 30, 40)])
    own = [0] * len(space.variables)
    points = [
        {"cost": 3e6, "loss": 2.5, "score": 0.1, "choices": own},
        {"cost": 4e6, "loss": 2.0, "score": 0.2, "choices": [1, *own[1:]]},
    ]
    write_json(run / "pareto.json", {"schema": 1, "tasks": {key: {"unit": "macs", "points": points} for key in TASKS}})
    return run

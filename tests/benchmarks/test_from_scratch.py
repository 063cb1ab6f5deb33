"""The contestants of the from-scratch benchmark, its trainings and what it says of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.from_scratch import (
    RECIPE,
    RESULT,
    contestants,
    scaled_fbnetv3,
    stage_zero,
    summarise,
    train,
    with_choices,
)
from export.errors import UserError
from export.files import write_json
from fbnetv5.architecture import Architecture
from fbnetv5.cost import Budget, Counter
from fbnetv5.data.scenes import CLASSES
from fbnetv5.search.config import SearchConfig
from fbnetv5.space import Space
from fbnetv5.tasks import make_tasks

SPACE = Space(stages=1, blocks_per_path=1)
SIZE = (32, 32)
UNCOUNTED = Architecture(
    space=SPACE,
    task="seg",
    classes=CLASSES,
    choices=(),
    resolution=SIZE,
    macs=0,
    params=0,
    latency_ms=None,
    provenance={},
)


def test_a_training_is_done_once_and_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    with_choices(UNCOUNTED, SPACE.empty()).save(tmp_path / "seg" / "searched.json")
    recipe = {"steps": 2, "batch": 2, "pictures": [8, 4, 4], "held_out": 4, "evaluate_every": 2}
    write_json(tmp_path / "seg" / RECIPE, recipe)
    folder = tmp_path / "seed-3" / "seg" / "searched"
    folder.mkdir(parents=True)
    (folder / "seg.json").write_text("cut off")
    score = train((3, "seg", "searched"), tmp_path, SIZE, 1)
    assert 0.0 <= score < 1.0
    training = json.loads((folder / "training.json").read_text())
    assert (training["seed"], training["init"], training["size"], training["steps"]) == (3, "scratch", [32, 32], 2)
    (folder / RESULT).unlink()
    for file in (tmp_path / "seg").iterdir():
        file.unlink()  # so only the folder itself can be gone on with
    assert train((3, "seg", "searched"), tmp_path, SIZE, 1) == score
    for file in folder.rglob("step-*"):
        file.unlink()
    assert train((3, "seg", "searched"), tmp_path, SIZE, 1) == score


def test_another_variant_has_no_fbnetv3_a_to_be_held_against() -> None:
    config = SearchConfig(budgets={"seg": Budget(limit=400e6, unit="macs")}, space=Space(variant="c"))
    with pytest.raises(UserError, match="searched variant c"):
        contestants(Path("run"), config)


def test_a_training_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ended with code 2: .*random-1\.json"):
        train((0, "seg", "random-1"), tmp_path, SIZE, 1)


def test_the_searched_network_is_ranked_among_the_random_ones_by_its_mean() -> None:
    scores = {"searched": [0.3, 0.5], "fbnetv3-a": [0.9, 0.9], "random-1": [0.1, 0.1], "random-2": [0.3, 0.3]}
    found = summarise(scores | {"random-3": [0.6, 0.8]})
    assert found["random_beaten"] == 2
    assert found["random_median"] == pytest.approx(0.3)
    assert found["random_best"] == pytest.approx(0.7)
    assert found["between_seeds_sd"] == pytest.approx(np.sqrt((0.02 + 0.02) / 5))


@pytest.mark.parametrize("task", ["cls", "det", "seg"])
def test_fbnetv3_is_shortened_by_the_one_repeat_that_leaves_it_nearest_below_the_budget(task: str) -> None:
    space = Space()
    macs = Counter((224, 224)).table(space, make_tasks((task,), CLASSES)[task], "macs")
    full = stage_zero(space)
    assert full.sum() == sum(node.stage == 0 for node in space.slots)
    assert macs.one(full) > 400e6
    scaled = scaled_fbnetv3(macs, 400e6)
    assert full.sum() - scaled.sum() == 1
    assert (scaled <= full).all()
    assert 390e6 < macs.one(scaled) <= 400e6
    np.testing.assert_array_equal(scaled_fbnetv3(macs, 450e6), full)


def test_a_budget_far_below_fbnetv3_is_refused() -> None:
    macs = Counter((224, 224)).table(Space(), make_tasks(("cls",), CLASSES)["cls"], "macs")
    with pytest.raises(UserError, match="larger budget"):
        scaled_fbnetv3(macs, 200e6)

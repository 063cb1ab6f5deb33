"""The race in miniature, and that its data and its meter are what they claim."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ground_truth
from benchmarks.race import OURS, SEARCHERS, behind, summarise
from benchmarks.race_search import one_pass
from benchmarks.race_world import Estimates, Meter, World

ROOT = Path(__file__).parents[2]
PEERS = {"Optuna TPE": "optuna", "Optuna NSGA-II": "optuna", "genetic (pymoo)": "pymoo"}
HERE = [name for name in SEARCHERS if name not in PEERS or find_spec(PEERS[name]) is not None]


@pytest.fixture(scope="module")
def world() -> World:
    return World(ground_truth.load())


@pytest.mark.slow
def test_the_race_runs(tmp_path: Path) -> None:
    plot = ["--plot", str(tmp_path / "race.svg")] if find_spec("matplotlib") is not None else []
    command = [sys.executable, "-m", "benchmarks.race", "--seeds", "1", "--limits", "60", "--processes", "1"]
    command += ["--data", str(ground_truth.DATA), shutil.copy(ground_truth.DATA, str(tmp_path)), "--unseen", "2"]
    done = subprocess.run(
        [*command, "--searchers", *HERE, *plot], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout.splitlines()[-1])
    assert list(document["results"]) == HERE
    assert len(document["behind_in_files"]) == 2
    assert not plot or (tmp_path / "race.svg").stat().st_size > 1000


@pytest.mark.parametrize("name", HERE)
def test_the_networks_of_a_searcher_fit_every_tasks_budget(world: World, name: str) -> None:
    answers = SEARCHERS[name](world, 120, 0)
    assert world.fits[answers, range(world.tasks)].all()


def test_rows_are_binary_numbers_of_choices(world: World) -> None:
    rows = np.array([0, 1, 2, 4095, 1234])
    choices = world.choices(rows)
    np.testing.assert_array_equal(choices, ground_truth.everything()[rows])
    np.testing.assert_array_equal(world.rows(choices), rows)


def test_the_best_has_no_regret(world: World) -> None:
    estimates = Estimates(world)
    estimates.losses = world.truth
    np.testing.assert_array_equal(world.regret(estimates.best()), 0.0)


def test_regret_is_measured_on_chunks_that_no_searcher_sees(world: World) -> None:
    truth = ground_truth.load()
    apart = World(truth, unseen=3)
    assert apart.chunks == 5
    np.testing.assert_array_equal(apart.losses, truth.losses[:, :5])
    np.testing.assert_array_equal(apart.truth, truth.losses[:, 5:].mean(1))
    np.testing.assert_array_equal(world.truth, truth.losses.mean(1))


def test_a_world_of_one_task_is_that_part_of_the_whole(world: World) -> None:
    alone = world.only(1)
    rows = np.array([3, 77, 4000])
    assert [alone.regret(row[None])[0] for row in rows] == [world.regret(row.repeat(3))[1] for row in rows]
    assert (alone.losses.shape[2], alone.fits.shape[1], alone.tasks, world.tasks) == (1, 1, 1, 3)


def test_every_evaluation_is_counted(world: World) -> None:
    meter = Meter(world, 3)
    meter.mean(5, np.arange(3))
    with pytest.raises(RuntimeError, match="more evaluations than its limit"):
        meter(5, 0)


def test_policies_help_where_noise_is_small(world: World) -> None:
    regrets = [world.regret(one_pass(world, 400, seed)).mean() for seed in range(3)]
    assert np.mean(regrets) < 0.3  # an architecture at random within the budget: 1


def test_a_peer_ahead_is_named() -> None:
    file = ground_truth.DATA
    regrets = {(OURS, 10, 0, file): np.array([0.2, 0.1, 0.0]), ("peer", 10, 0, file): np.array([0.1, 0.1, 0.3])}
    assert behind(summarise(regrets)) == ["peer, cls, 10: 0.1 < 0.2"]

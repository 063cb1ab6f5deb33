"""The networks that a branched network's latency is compared with, and a tiny comparison from end to end."""

import json
from pathlib import Path

import pytest

from benchmarks import branched_latency
from benchmarks.branched_latency import TREES, alone, trees_of
from export.errors import UserError
from fbnetv5.architecture import make_architecture
from fbnetv5.costs.tables import Counter
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy.profile_networks import found_networks
from fbnetv5.runs.derivation import DerivationConfig
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace
from latency.correction import MeasuredNetwork
from latency.protocol import Measurement
from tests.fbnetv5.deploy.test_profile_networks import SCOPE

SPACE, SIZE = BranchingSpace(encoder="mobilenetv2", width=0.25, copies=2), (64, 64)
LAYERS = len(SPACE.layers)


def save_run(folder: Path, *, together: int) -> Path:
    """A run whose two tasks share the first layers."""
    tree = {"cls": (0,) * LAYERS, "seg": (0,) * together + (1,) * (LAYERS - together)}
    make_architecture(SPACE, tree, CLASSES, SIZE, provenance={}).save(folder / "branched.json")
    DerivationConfig(run="r", budget="9M", task_names=("cls", "seg")).save(folder)
    return folder


def test_networks_of_single_tasks_cost_what_the_tree_without_sharing_costs_and_a_stem(tmp_path: Path) -> None:
    scope, networks = found_networks(save_run(tmp_path, together=5))
    trees = trees_of(networks)
    singles = sum(alone(scope, task).macs for task in scope.tasks)
    stem = Counter(SIZE).block(SPACE.nodes[0].candidates[0], SPACE.nodes[0].stride).macs
    assert singles == trees[TREES[2]].macs + stem
    assert trees[TREES[0]].macs < trees[TREES[1]].macs < trees[TREES[2]].macs


@pytest.mark.parametrize("together", [0, LAYERS])
def test_a_tree_that_is_an_extreme_is_refused(tmp_path: Path, together: int) -> None:
    _, networks = found_networks(save_run(tmp_path, together=together))
    with pytest.raises(UserError, match="share all layers or none"):
        trees_of(networks)


def test_a_run_without_a_branched_network_is_refused() -> None:
    assert isinstance(SCOPE.space, FourPathSpace)
    with pytest.raises(UserError, match="needs a run of fbnetv5 branch"):
        alone(SCOPE, "cls")


def test_times_of_networks_that_run_one_after_the_other_add_up() -> None:
    rows = [branched_latency.row(str(count), [measured(2.0), measured(3.0)][:count]) for count in (1, 2)]
    first, last = branched_latency.summarise(rows)
    assert (last["latency_ms_p50"], last["macs"], last["share_of_latency"]) == (5.0, 200, 1.0)
    assert (first["share_of_latency"], first["share_of_macs"]) == (0.4, 0.5)


def measured(ms: float) -> MeasuredNetwork:
    measurement = Measurement(latency_ms_median=ms, latency_ms_p90=ms, latency_ms_p99=ms, runs=9, cv=0, drift=0)
    return MeasuredNetwork(task="cls", blocks={}, macs=100, measurement=measurement)


@pytest.mark.slow
def test_a_comparison_ends_in_one_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    branched_latency.main([str(save_run(tmp_path, together=5)), "--repetitions", "2"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["name"] for row in report["rows"]] == ["cls alone", "seg alone", *TREES, "2 networks, summed"]
    assert all(row["latency_ms_p50"] > 0 and row["runs"] >= 10 for row in report["rows"])

from pathlib import Path

import pytest

from fbnetv5.architecture import make_architecture
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy.profile import Scope, graphs_of
from fbnetv5.runs.derivation import DerivationConfig
from fbnetv5.spaces.branching import BranchingSpace
from latency.backends import open_backend
from latency.protocol import Measurement, Timing
from latency.table import LatencyTable
from tests.command_line import SMALL, assert_refused, document, in_process
from tests.contract.stored import STORED

AT_64 = (*SMALL, "--resolution", "64")
TABLE = "luts/cpu-fp32-b1.json"
ONE_MS = Measurement(latency_ms_median=1, latency_ms_p90=1, latency_ms_p99=1, runs=9, cv=0, drift=0)
BRIEF = Timing(repetitions=2, warmup_ms=0, min_ms=0, min_runs=2, max_cv=1e9, reference_ms=1)


def test_a_table_of_another_machine_is_refused(tmp_path: Path) -> None:
    table = LatencyTable.load(STORED / "tables" / "cpu-fp32-b1.json", other_machine=True)
    table.changed(fingerprint={**table.fingerprint, "device_name": "Other 9000"}).save(tmp_path / "t.json")
    done = in_process("profile", "verify", "t.json", "--networks", "2", *AT_64, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is of another machine" in " ".join(done.stderr.split())


def test_one_network_is_too_few(tmp_path: Path) -> None:
    table = STORED / "tables" / "cpu-fp32-b1.json"
    done = in_process("profile", "verify", str(table), "--networks", "1", *AT_64, cwd=tmp_path)
    assert done.returncode == 2
    assert "greater than or equal to 2" in " ".join(done.stderr.split())


def test_a_table_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert_refused(["profile", "verify", "luts/none.json"], "does not exist", cwd=tmp_path)


def test_a_table_is_compared_with_random_networks(work: Path) -> None:
    verification = document("profile", "verify", TABLE, "--networks", "2", "--tasks", "cls", *AT_64, cwd=work)
    errors = {"mape", "bias", "within_5", "within_10", "kendall_tau"}
    assert verification.keys() == {"networks", "standalone", "flops", "noise", "speed"} | errors
    assert verification["standalone"].keys() == verification["flops"].keys() == errors
    assert verification["networks"] == 2


def test_a_table_without_the_needed_blocks_is_refused(work: Path) -> None:
    done = in_process("profile", "verify", TABLE, "--networks", "2", *SMALL, "--resolution", "96", cwd=work)
    assert done.returncode == 2
    assert "blocks have no entry in the cpu table, first: " in done.stderr
    assert "fbnetv5 profile --device cpu" in done.stderr


def test_options_of_random_networks_are_refused_beside_a_run(tmp_path: Path) -> None:
    options = ["--blocks-per-path", "2", "--networks", "48", "--resolution", "64", "--json"]
    message = "at their tasks and resolution: leave out --blocks-per-path, --networks, --resolution"
    assert_refused(["profile", "verify", "t.json", "--run", "r", *options], message, cwd=tmp_path)


@pytest.mark.slow
def test_a_table_is_compared_with_the_networks_of_a_run(work: Path) -> None:
    verification = document("profile", "verify", TABLE, "--run", "runs/one", cwd=work)
    assert verification["networks"] == 3


def test_a_table_of_an_encoder_is_compared_with_the_trees_of_a_run(tmp_path: Path) -> None:
    space, tasks = BranchingSpace(encoder="resnet50", width=0.25, copies=2), ("cls", "seg")
    shared = {task: (0,) * len(space.variables) for task in tasks}
    make_architecture(space, shared, CLASSES, (64, 64), provenance={}).save(tmp_path / "branched.json")
    DerivationConfig(run="r", budget="9M", task_names=tasks).save(tmp_path)
    scope = Scope(space=space, tasks=tasks, classes=CLASSES, resolution=(64, 64))
    entries = dict.fromkeys([graph.key for graph in graphs_of(scope)], ONE_MS)
    fingerprint = open_backend("cpu").fingerprint()
    LatencyTable(device="cpu", fingerprint=fingerprint, timing=BRIEF, entries=entries).save(tmp_path / "t.json")
    printed = document("profile", "verify", "t.json", "--run", ".", cwd=tmp_path)
    assert (printed["networks"], printed["speed"]) == (2, None)
    assert printed["bias"] > 0  # no block of this size takes a millisecond

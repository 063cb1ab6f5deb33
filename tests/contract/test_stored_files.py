"""Run folders, tables, bundles and exported folders of earlier versions still work, through the command line."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.command_line import SMALL, document, in_process
from tests.contract.stored import STORED, TASKS, describe_graph, stored_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored_run(tmp_path_factory.mktemp("stored") / "run")


def test_an_architecture_is_shown_with_its_stored_cost(tmp_path: Path) -> None:
    file = STORED / "run" / "det.json"
    shown = document("show", str(file), cwd=tmp_path)
    stored = json.loads(file.read_text(encoding="utf-8"))["cost"]
    assert {unit: shown[unit] for unit in ("macs", "params")} == {unit: stored[unit] for unit in ("macs", "params")}


@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_exported_as_the_stored_graph(run: Path, task: str) -> None:
    exported = document("export", "--run", str(run), "--task", task, cwd=run)
    graph = describe_graph(run / exported["onnx"])
    stored = json.loads((run / "graphs.json").read_text(encoding="utf-8"))[task]
    for values in ("means", "deviations"):
        assert graph.pop(values) == pytest.approx(stored.pop(values), rel=1e-3, abs=1e-4)
    graph["blocks"] = [re.sub(rf"^{task}\b", "head", name) for name in graph["blocks"]]  # the name of a single head
    assert graph == stored


def test_a_run_without_its_checkpoint_is_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    done = in_process("search", "--resume", "run", cwd=tmp_path)
    assert done.returncode == 2
    message = " ".join(done.stderr.split())
    assert re.search(r"is of another version; fields that differ: .*\. Start a new search", message)


def test_a_table_predicts_the_stored_latencies(tmp_path: Path) -> None:
    table = STORED / "tables" / "cpu-fp32-b1.json"
    done = in_process("search", "--latency", "900ms@64x64", "--table", str(table), *SMALL, cwd=tmp_path)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "networks of this space cost" in line]
    stored = json.loads((STORED / "tables" / "ranges.json").read_text(encoding="utf-8"))
    assert [costs_of(line) for line in lines] == [costs_of(line) for line in stored]


def costs_of(line: str) -> tuple[str, ...]:
    """Task, minimum, maximum and mean of a line of costs, such as "det: ... cost 1.43 ms to 4.94 ms, ... 3.18 ms"."""
    task, _, costs = line.partition(":")
    figures = re.findall(r"[\d.]+ ms", costs)
    assert len(figures) == 3, line
    return (task, *figures)


def test_a_measured_bundle_is_imported(tmp_path: Path) -> None:
    imported = document("profile", "import", str(STORED / "bundle"), cwd=tmp_path)
    assert imported["table"] == "luts/cpu-fp32-b1.json"
    assert list(imported["latency_ms"]) == ["conv@8"]
    assert imported["held_out"]["networks"] == 3


def test_an_estimated_table_counts_networks(tmp_path: Path) -> None:
    table = STORED / "tables" / "orin-fp16-b1-estimated.json"
    done = in_process(
        "search", "--latency", "900ms@64x64", "--tasks", "cls", "--table", str(table), *SMALL, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "estimated ms" in done.stderr


def test_an_estimated_table_without_a_kernel_floor_is_not_extended(tmp_path: Path) -> None:
    table = shutil.copy(STORED / "tables" / "orin-fp16-b1-estimated.json", tmp_path)
    done = in_process(
        "profile", "estimate", "--device", "orin", "--precision", "fp16", "--luts", ".", *SMALL, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "delete it and estimate again" in " ".join(done.stderr.split())
    assert Path(table).read_bytes() == (STORED / "tables" / "orin-fp16-b1-estimated.json").read_bytes()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("tables/orin-fp16-b1-estimated.json", "this version reads schema 2 and 3"),
        ("bundle/results.json", "this version reads schema 2 and 3"),
        ("run/det.json", "this version reads schema 2 and 3"),
    ],
)
def test_other_files_are_no_measured_tables(file: str, message: str, tmp_path: Path) -> None:
    done = in_process("profile", "verify", str(STORED / file), cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_an_exported_folder_is_validated(tmp_path: Path) -> None:
    assert document("validate", str(STORED / "exported"), cwd=tmp_path)["passed"]

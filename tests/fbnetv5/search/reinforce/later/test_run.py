import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from export.errors import UserError
from export.progress import silent
from fbnetv5.architecture import load_architecture
from fbnetv5.costs.budgets import BUDGET_WINDOW
from fbnetv5.runs.checkpoint import load_checkpoint, load_tensors, save_tensors
from fbnetv5.runs.config import Run
from fbnetv5.runs.folder import networks_of
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.search.reinforce.later.loop import LaterEntry
from fbnetv5.search.reinforce.later.prepare import prepare_later
from fbnetv5.search.reinforce.later.run import run_later, start_later
from tests.fbnetv5.search.reinforce.later.conftest import BUDGET, MakeLater, files_of

RESULTS = ("depth.json", "depth.safetensors", "panel.safetensors", "pareto.json", "history.jsonl")


@pytest.fixture(scope="module", autouse=True)
def every_step() -> Iterator[None]:
    """Log every step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fbnetv5.runs.loop.LOG_EVERY", 1)
        yield


@pytest.fixture(scope="module")
def run(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the search whose files the task is added to."""
    return Path(shutil.copytree(searched, tmp_path_factory.mktemp("copy") / "s"))


@pytest.fixture(scope="module")
def before(run: Path) -> dict[str, bytes]:
    """The files of the search before the task is added."""
    return files_of(run)


@pytest.fixture(scope="module")
def added(make_later: MakeLater, run: Path, before: dict[str, bytes]) -> Path:
    """The folder of the later task, which nothing interrupted."""
    assert before
    folder, prepared = start_later(make_later(run=str(run)), run / "added" / "depth", silent, needs_table=False)
    run_later(folder, prepared, silent, silent)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def resume(folder: Path) -> None:
    run_later(folder, prepare_later(LaterConfig.load(folder)), silent, silent)


def test_no_file_of_the_search_changes(run: Path, before: dict[str, bytes], added: Path) -> None:
    after = files_of(run)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("added/depth/") for name in after.keys() - before.keys())
    assert (run.parent / "latest").is_symlink() is False


def test_the_folder_is_that_of_a_run_of_one_task(added: Path) -> None:
    assert {path.name for path in added.iterdir()} == {*RESULTS, ".lock", "config.json", "checkpoint", "tensorboard"}
    assert networks_of(added) == [["depth"]]
    assert Run.load(added).kind == "later-task"
    assert list(json.loads((added / "pareto.json").read_text())["tasks"]) == ["depth"]


def test_the_network_meets_its_budget_with_the_weights_of_the_search(run: Path, added: Path) -> None:
    architecture = load_architecture(added / "depth.json")
    assert architecture.resolution == BUDGET.resolution
    assert BUDGET_WINDOW[0] * BUDGET.limit <= architecture.cost.macs <= BUDGET.limit
    assert architecture.provenance["added_to"] == str(run)
    assert architecture.provenance["panel"]["architectures"] == 3
    network = architecture.load(added / "depth.safetensors").eval()
    checkpoint = load_checkpoint(run / "checkpoint")
    assert checkpoint is not None
    for step in network.backbone.graph.steps:
        for name, parameter in network.backbone.blocks[step.name].named_parameters():
            shared = checkpoint[0][f"weights/blocks.{step.node}.{step.candidate}.{name}"]
            assert torch.equal(parameter, shared)
    assert bool(torch.isfinite(network(torch.randn(1, 3, 64, 64))[0]).all())


@pytest.mark.parametrize("step", [1, 5, 6])
def test_an_interrupted_later_task_ends_with_the_same_files(
    make_later: MakeLater, run: Path, added: Path, tmp_path: Path, step: int
) -> None:
    folder, prepared = start_later(make_later(run=str(run)), tmp_path / "again", silent, needs_table=False)

    def interrupt(entry: LaterEntry) -> None:
        if entry.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_later(folder, prepared, interrupt, silent)
    resume(folder)
    assert contents(folder) == contents(added)


@pytest.mark.slow
def test_a_killed_later_task_ends_with_the_same_files(
    make_later: MakeLater, run: Path, added: Path, tmp_path: Path
) -> None:
    folder, _ = start_later(make_later(run=str(run)), tmp_path / "killed", silent, needs_table=False)
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "fbnetv5", "search", "--resume", str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(folder.glob("checkpoint/*.json")) and process.poll() is None:
            time.sleep(0.02)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    resume(folder)
    names = [name for name in RESULTS if name != "history.jsonl"]  # the command logs fewer steps than the tests here
    written, expected = contents(folder), contents(added)
    assert all(written[name] == expected[name] for name in names)


def test_a_later_task_does_not_go_on_with_another_trunk(
    make_later: MakeLater, searched: Path, added: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(searched, tmp_path / "run"))
    folder = Path(shutil.copytree(added, tmp_path / "depth"))
    make_later(run=str(run)).save(folder)
    (weights,) = (run / "checkpoint").glob("*.safetensors")
    tensors = load_tensors(weights)
    save_tensors(weights, {name: tensor + 1 for name, tensor in tensors.items()})
    with pytest.raises(UserError, match="was made with other trunk"):
        resume(folder)


def test_nothing_is_made_for_a_wrong_budget(make_later: MakeLater, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="outside what this space offers"):
        start_later(
            make_later(budgets={"depth": (BUDGET.changed(limit=1e6),)}),
            tmp_path / "a" / "depth",
            silent,
            needs_table=False,
        )
    assert not list(tmp_path.iterdir())

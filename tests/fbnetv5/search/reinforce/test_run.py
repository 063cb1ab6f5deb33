import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from export.errors import UserError
from export.progress import Progress
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.blocks.specs import InvertedResidual
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.ranges import CostRange
from fbnetv5.data.config import DataConfig
from fbnetv5.runs.checkpoint import load_tensors, load_weights, save_tensors
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.entry import SearchEntry
from fbnetv5.search.reinforce.panel import MIN_EVIDENCE
from fbnetv5.search.reinforce.prepare import initial_weights, prepare
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.wide import WideSpace
from tests.fbnetv5.networks.peers import live_model
from tests.fbnetv5.spaces.test_space import StageSpace

MakeConfig = Callable[..., SearchConfig]
TASKS = ("cls", "det", "seg")
FREE = FourPathSpace(stages=1, blocks_per_path=1)
"""Its largest network costs three times its smallest."""
WIDE = WideSpace(stages=1, blocks_per_path=1)
LIMIT = 250e6
RESULTS = [f"{task}.{kind}" for task in TASKS for kind in ("json", "safetensors")] + [
    "panel.safetensors",
    "pareto.json",
    "history.jsonl",
]


def quiet(*_: object) -> None:
    """Say nothing."""


@pytest.fixture(scope="module", autouse=True)
def cheaper() -> Iterator[None]:
    """Log every step; count costs once, not once a run."""
    config = SearchConfig(
        budgets={task: (Budget(limit=LIMIT, unit="macs"),) for task in TASKS}, data=DataConfig(size=(32, 32))
    )
    constraints = {space: prepare(config.changed(space=space)).constraints for space in (FREE, WIDE)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fbnetv5.runs.loop.LOG_EVERY", 1)
        patch.setattr(
            "fbnetv5.search.reinforce.prepare.constrain",
            lambda space, tasks, budgets, table, costs: {
                name: replace(constraints[space][name], budgets=own) for name, own in budgets.items()
            },
        )
        yield


def started(make_config: MakeConfig, folder: Path, space: Space = FREE, **fields: Any) -> Path:
    budgets = {task: (Budget(limit=LIMIT, unit="macs"),) for task in TASKS}
    config = make_config(budgets=budgets, space=space, warmup_steps=2, steps=6, checkpoint_every=3, **fields)
    return start_run(config, folder, quiet, quiet)[0]


def resume(folder: Path, report: Callable[[SearchEntry], None], stage: Progress) -> None:
    run_search(folder, prepare(SearchConfig.load(folder)), report, stage)


@pytest.fixture(scope="module")
def undisturbed(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that nothing interrupted."""
    folder = started(make_config, tmp_path_factory.mktemp("runs") / "first")
    resume(folder, quiet, quiet)
    return folder


def test_a_search_starts_from_weights_of_a_file_and_resumes_without_it(make_config: MakeConfig, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    published = live_model("timm", "fbnetv3_b").state_dict()
    save_tensors(file, published)
    folder = started(make_config, tmp_path / "run", init=str(file))
    resume(folder, quiet, quiet)
    stem = load_tensors(folder / "seg.safetensors")["backbone.blocks.s0_p4_0.0.weight"]
    theirs = published["conv_stem.weight"]
    assert 0 < torch.dist(stem, theirs) < 0.2 * theirs.norm()
    before = contents(folder)
    file.unlink()
    resume(folder, quiet, quiet)
    assert contents(folder) == before
    with pytest.raises(UserError, match=r"does not exist\. Name a file, or one of: scratch"):
        started(make_config, tmp_path / "other", init=str(file))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (FREE.changed(variant="c"), "timm has no weights that fit fbnetv3-c, only fbnetv3-a"),
        (StageSpace(), "--init timm is for spaces of four paths, not for "),
    ],
    ids=["variant", "space"],
)
def test_initial_weights_that_do_not_fit_are_refused(
    make_config: MakeConfig, tmp_path: Path, space: Space, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        initial_weights(make_config("cls", space=space, init="timm"), tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def test_a_search_writes_its_files(undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir()}
    assert names == {*RESULTS, ".lock", "config.json", "checkpoint", "tensorboard"}
    assert (undisturbed.parent / "latest").resolve() == undisturbed


@pytest.mark.parametrize("task", TASKS)
def test_the_searched_network_meets_its_budget_and_loads_its_weights(undisturbed: Path, task: str) -> None:
    architecture: Architecture = load_architecture(undisturbed / f"{task}.json")
    assert 0.85 * LIMIT <= architecture.cost.macs <= LIMIT
    assert architecture.provenance["budget"] == {"limit": LIMIT, "unit": "macs"}
    network = architecture.build().eval()
    load_weights(network, load_tensors(undisturbed / f"{task}.safetensors"), undisturbed)
    assert all(bool(torch.isfinite(output).all()) for output in network(torch.randn(1, 3, 32, 32)))


@pytest.mark.parametrize("task", TASKS)
def test_the_front_has_the_searched_network(undisturbed: Path, task: str) -> None:
    architecture = load_architecture(undisturbed / f"{task}.json")
    points = json.loads((undisturbed / "pareto.json").read_text())["tasks"][task]["points"]
    assert [point["cost"] for point in points] == sorted(point["cost"] for point in points)
    losses = [point["expected_loss"] for point in points]
    assert losses == sorted(losses, reverse=True)
    assert points[-1]["choices"] == list(architecture.choices[task])
    assert points[-1]["loss"] == architecture.provenance["loss"]


@pytest.mark.parametrize("task", TASKS)
def test_the_provenance_has_the_quality_of_the_panels_fit(undisturbed: Path, task: str) -> None:
    panel = load_architecture(undisturbed / f"{task}.json").provenance["panel"]
    assert panel["architectures"] == 3
    assert -1 <= panel["rank_correlation"] <= 1
    assert panel["has_signal"] is (panel["p_value"] <= 0.05 and panel["evidence"] >= MIN_EVIDENCE)


@pytest.mark.parametrize("step", [1, 5, 8])
def test_an_interrupted_search_ends_with_the_same_files(
    make_config: MakeConfig, undisturbed: Path, tmp_path: Path, step: int
) -> None:
    folder = started(make_config, tmp_path / "again")

    def interrupt(entry: SearchEntry) -> None:
        if entry.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(folder, interrupt, quiet)
    resume(folder, quiet, quiet)
    assert contents(folder) == contents(undisturbed)


@pytest.mark.slow
def test_an_interrupted_search_of_the_wide_space_ends_with_the_same_files(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    whole, folder = (started(make_config, tmp_path / name, WIDE) for name in ("whole", "again"))
    resume(whole, quiet, quiet)

    def interrupt(entry: SearchEntry) -> None:
        if entry.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(folder, interrupt, quiet)
    resume(folder, quiet, quiet)
    assert contents(folder) == contents(whole)
    architecture = load_architecture(whole / "det.json")
    assert 0.85 * LIMIT <= architecture.cost.macs <= LIMIT
    blocks = [step.block for step in architecture.graph.steps if isinstance(step.block, InvertedResidual)]
    assert len({block.kernel for block in blocks}) > 1


def test_a_search_interrupted_while_scoring_ends_with_the_same_files(
    make_config: MakeConfig, undisturbed: Path, tmp_path: Path
) -> None:
    folder = started(make_config, tmp_path / "again")

    def interrupt(what: str, done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(folder, quiet, interrupt)
    assert not (folder / "cls.json").exists()
    resume(folder, quiet, quiet)
    assert contents(folder) == contents(undisturbed)


@pytest.mark.slow
def test_a_killed_search_ends_with_the_same_files(make_config: MakeConfig, undisturbed: Path, tmp_path: Path) -> None:
    folder = started(make_config, tmp_path / "killed")
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "fbnetv5", "search", "--resume", str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(folder.glob("checkpoint/*.json")) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, 1.5))
        process.kill()
    assert process.returncode == -signal.SIGKILL
    resume(folder, quiet, quiet)
    written, expected = contents(folder), contents(undisturbed)
    del written["history.jsonl"], expected["history.jsonl"]  # a search by command logs fewer steps than those here
    assert written == expected


def test_a_finished_search_repeats_no_step(undisturbed: Path) -> None:
    before, steps = contents(undisturbed), list[SearchEntry]()
    resume(undisturbed, steps.append, quiet)
    assert not steps
    assert contents(undisturbed) == before


@pytest.mark.slow
def test_two_processes_share_a_search(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    folder = tmp_path / "runs/both"
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = {"cls.json", "cls.safetensors", "seg.json", "seg.safetensors", "pareto.json", "history.jsonl"}
    assert expected <= {path.name for path in folder.iterdir()}
    assert len((folder / "history.jsonl").read_text().splitlines()) == 1
    one = [
        sys.executable,
        "-m",
        "fbnetv5",
        "derive",
        str(folder),
        "--flops",
        "cls=425M,450M",
        "-o",
        str(tmp_path / "one"),
    ]
    done = subprocess.run(one, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = {task: load_architecture(tmp_path / "one" / f"{task}.json") for task in ("cls", "seg")}
    for task, architecture in alone.items():  # one process derives from a search of two
        assert architecture.choices == load_architecture(folder / f"{task}.json").choices
    launch = [
        *command[:-1],
        "-m",
        "fbnetv5",
        "derive",
        str(folder),
        "--flops",
        "cls=425M,449M",
        "--flops",
        "cls=425M,450M",
    ]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("derived/cls=425M,449M/seg.json") == 1  # one of the processes prints
    assert load_architecture(folder / "derived/cls=425M,450M/seg.json").choices == alone["seg"].choices


def test_a_run_is_never_overwritten(make_config: MakeConfig, undisturbed: Path) -> None:
    with pytest.raises(UserError, match=r"exists already; resume it with --resume .* or choose another --name"):
        started(make_config, undisturbed)


def test_no_folder_is_made_for_a_budget_out_of_range(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(budgets={"cls": (Budget(limit=1e6, unit="macs"),)}, space=WIDE)
    shown: list[Sequence[CostRange]] = []
    with pytest.raises(UserError, match=r"budget 1\.0M for cls at 224x224 is outside what this space offers"):
        start_run(config, tmp_path / "run", shown.append, quiet)
    assert [costs.task for costs in shown[0]] == ["cls"]
    assert not list(tmp_path.iterdir())


def test_a_latency_table_that_is_not_there_is_named(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json does not exist"):
        prepare(make_config("cls", table="nowhere.json"))

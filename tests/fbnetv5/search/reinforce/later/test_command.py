import shutil
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.later.command import add_task
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.search.reinforce.later.prepare import LaterPrepared
from fbnetv5.search.reinforce.resume import resume_search
from latency.protocol import Measurement, Timing
from latency.table import NULL_KEY, LatencyTable
from tests.fbnetv5.search.reinforce.later.conftest import BUDGET, SPACE, MakeLater


@pytest.fixture(scope="module")
def run(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the search."""
    return Path(shutil.copytree(searched, tmp_path_factory.mktemp("copy") / "s"))


class StartedError(Exception):
    """Ends the work when all inputs are checked."""


ONE_MS = Measurement(latency_ms_median=1, latency_ms_p90=1, latency_ms_p99=1, runs=9, cv=0, drift=0)


def configured(run: Path, task: str = "depth", **options: Any) -> LaterConfig:
    """The configuration that options give; nothing is trained."""

    def stop(folder: Path, prepared: LaterPrepared) -> None:
        shutil.rmtree(folder)
        raise StartedError(prepared.later)

    with pytest.raises(StartedError) as error:
        add_task(task, run=run, started=stop, **options)
    config = error.value.args[0]
    assert isinstance(config, LaterConfig)
    return config


def test_the_defaults_are_the_settings_of_the_run(run: Path) -> None:
    config, search = configured(run), SearchConfig.load(run)
    assert config.budgets == {"depth": (BUDGET,)}
    assert (config.space, config.data, config.run) == (SPACE, search.data, str(run))
    assert (config.batch, config.panel_draws, config.finalists) == (4, 16, 2)
    assert config.steps == LaterConfig.model_fields["steps"].default


def test_another_budget_has_the_resolution_of_the_run(run: Path) -> None:
    assert configured(run, flops="22M").budgets == {"depth": (BUDGET.changed(limit=22e6),)}
    other = configured(run, flops="depth=6M@32x32").budgets["depth"]
    assert other == (Budget(limit=6e6, unit="macs", resolution=(32, 32)),)


def test_a_file_sets_the_other_fields(run: Path) -> None:
    assert configured(run, config={"steps": 3, "finalists": 1}).steps == 3
    with pytest.raises(UserError, match=r"there is no field 'warmup_steps' to set"):
        add_task("depth", run=run, config={"warmup_steps": 3})


def test_images_of_another_folder_have_the_size_of_the_run(run: Path, image_folder: Path) -> None:
    config = configured(run, "saliency", data=image_folder)
    assert config.data == SearchConfig.load(run).data.changed(folder=str(image_folder))


def test_an_added_task_is_resumed_as_a_search(run: Path) -> None:
    def interrupt(entry: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_task("edges", run=run, config={"steps": 10}, report=interrupt)
    result = resume_search(run / "added" / "edges")
    assert (result.run, list(result.architectures)) == (run / "added" / "edges", ["edges"])
    assert (result.run / "edges.json").exists()
    with pytest.raises(UserError, match=r"added/edges exists already; resume it with --resume .* or choose another"):
        add_task("edges", run=run)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown task": ({"task": "pose"}, "unknown task 'pose'"),
    "a task of the run": ({"task": "seg"}, r"has a network for seg, .*seg\.json"),
    "a budget that no network meets": ({"params": "10K"}, "budget .* parameters for depth is outside"),
    "budget of another task": ({"flops": "seg=20M"}, "has no task 'seg'"),
    "latency without a table": ({"latency": "8ms"}, "needs a latency table"),
    "too small": ({"flops": "1M"}, "outside what this space offers"),
    "name": ({"name": "a/b"}, "is not the name of a folder"),
    "no such folder": ({"data": "/nowhere"}, "/nowhere"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_refused_before_anything_is_made(run: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        add_task(**{"task": "depth", "run": run, "started": StartedError, **options})
    assert not (run / "added" / "depth").exists()


def test_images_without_labels_of_the_task_are_refused(run: Path, image_folder: Path) -> None:
    shutil.rmtree(image_folder / "depth")
    with pytest.raises(UserError, match="the data set has no labels for task 'depth'"):
        add_task("depth", run=run, data=image_folder)


def test_a_run_of_another_kind_is_refused(make_later: MakeLater, tmp_path: Path) -> None:
    make_later().save(tmp_path)
    with pytest.raises(UserError, match="is the folder of a later-task, not of a search"):
        add_task("edges", run=tmp_path)


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        (BUDGET.changed(limit=21e6), {}, "have different budgets: set that of depth by --flops or --latency"),
        (BUDGET.changed(resolution=(32, 32)), {"flops": "20M"}, "write the budget as 20M@224x224"),
    ],
    ids=["limits", "resolutions"],
)
def test_a_run_with_different_budgets_needs_one_for_the_task(
    run: Path, tmp_path: Path, other: Budget, options: dict[str, Any], message: str
) -> None:
    SearchConfig.load(run).changed(budgets={"cls": (BUDGET,), "seg": (other,)}).save(tmp_path)
    with pytest.raises(UserError, match=message):
        add_task("depth", run=tmp_path, **options)


def test_a_missing_table_is_named_with_the_command_for_the_task(run: Path, tmp_path: Path) -> None:
    space = "--stages 1 --blocks-per-path 1 --resolution 64x64"
    with pytest.raises(UserError, match=f"fbnetv5 profile --device cpu {space} --tasks depth --luts {tmp_path}$"):
        add_task("depth", run=run, device="cpu", luts=tmp_path)


def test_a_table_without_the_head_predicts_no_latency(run: Path, tmp_path: Path) -> None:
    copy, table = Path(shutil.copytree(run, tmp_path / "s")), tmp_path / "table.json"
    LatencyTable(device="other", fingerprint={}, timing=Timing(), entries={NULL_KEY: ONE_MS}).save(table)
    SearchConfig.load(copy).changed(table=str(table), other_machine_table=True).save(copy)
    lines: list[str] = []
    assert configured(copy, log=lines.append).table is None
    assert lines[-1].startswith("no latency is predicted: ")
    assert "blocks have no entry in the other table" in lines[-1]
    SearchConfig.load(copy).changed(other_machine_table=False).save(copy)  # it is of another machine, and refused
    lines.clear()
    assert configured(copy, log=lines.append).table is None
    assert any(line.startswith("no latency is predicted: ") for line in lines)
    with pytest.raises(UserError, match="blocks have no entry"):
        add_task("depth", run=copy, table=table)

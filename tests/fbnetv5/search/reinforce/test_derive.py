import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.tables import table_keys
from fbnetv5.runs.checkpoint import by_group, save_checkpoint
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.derive import DerivedNetworks, derive, final_checkpoint, with_budgets
from fbnetv5.search.reinforce.panel import PANEL, Observations, Panel
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.spaces.four_path import FourPathSpace
from latency.protocol import Measurement, Timing
from latency.table import NULL_KEY, LatencyTable

MakeConfig = Callable[..., SearchConfig]
SPACE = FourPathSpace(stages=1, blocks_per_path=1)
ONE_MS = Measurement(latency_ms_median=1, latency_ms_p90=1, latency_ms_p99=1, runs=9, cv=0, drift=0)
BUDGETS = {"cls": (Budget(limit=20e6, unit="macs", resolution=(64, 64)),), "seg": (Budget(limit=250e6, unit="macs"),)}


def quiet(*_: object) -> None:
    """Show nothing."""


@pytest.fixture(scope="module")
def run(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search."""
    config = make_config(budgets=BUDGETS, space=SPACE)
    folder, prepared = start_run(config, tmp_path_factory.mktemp("runs") / "s", quiet, quiet)
    run_search(folder, prepared, quiet, quiet)
    return folder


def derived(run: Path, amount: str, unit: str = "macs", pool: Sequence[Path] = ()) -> DerivedNetworks:
    return derive(run, with_budgets(run, {unit: amount}), table=None, other_machine=False, progress=quiet, pool=pool)


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Path:
    """The folder of another finished search, by whose panel every block raises the loss."""
    folder = shutil.copytree(run, tmp_path / "other")
    panel = Panel.load(run / PANEL, variables=len(SPACE.variables), tasks=len(BUDGETS))
    Panel(drawn=raised_by_blocks(panel.drawn), checks=raised_by_blocks(panel.checks)).save(folder / PANEL)
    return folder


def raised_by_blocks(rows: Observations) -> Observations:
    """The architectures with losses that are their numbers of chosen blocks."""
    losses = np.count_nonzero(rows.choices, axis=1)[:, None].astype(np.float64)
    return replace(rows, losses=np.where(np.isnan(rows.losses), np.nan, losses))


def test_the_budgets_of_the_run_give_the_networks_of_the_run(run: Path, tmp_path: Path) -> None:
    derived(run, "cls=20M,250M").write(tmp_path)
    for name in ("cls.safetensors", "seg.safetensors"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()
    fronts = json.loads((tmp_path / "pareto.json").read_text())["tasks"]
    for task in BUDGETS:
        ours, theirs = (load_architecture(folder / f"{task}.json") for folder in (tmp_path, run))
        (point,) = fronts[task]["points"]
        assert (point["choices"], point["loss"]) == (ours.choices_array.tolist(), ours.provenance["loss"])
        origin = ours.provenance["derived_from"]
        assert origin == {"run": str(run), "budget": {"limit": BUDGETS[task][0].limit, "unit": "macs"}}
        level = {"expected_loss": ours.provenance["loss"]}  # that of one network, and not of all finalists of the run
        assert {**theirs.provenance, "derived_from": origin, **level} == ours.provenance
        assert ours.changed(provenance={}) == theirs.changed(provenance={})


def test_networks_meet_the_other_budget_at_the_resolutions_of_the_run(run: Path) -> None:
    networks = derived(run, "cls=24M,300M")
    for task, limit in (("cls", 24e6), ("seg", 300e6)):
        architecture = networks.architectures[task]
        assert architecture.resolution == BUDGETS[task][0].resolution
        assert 0.85 * limit <= architecture.cost.macs <= limit


def test_a_budget_may_change_the_resolution(run: Path) -> None:
    assert with_budgets(run, {"macs": "cls=6M@32x32,300M"}).budgets["cls"][0].resolution == (32, 32)


def test_a_search_of_several_processes_gives_the_same_networks(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "two")
    tensors, state = final_checkpoint(folder, steps=0)
    name = "arrays/baseline.means"  # a row per image that policies learned from: of two processes twice as many
    tensors[name] = torch.cat([tensors[name]] * 2)
    save_checkpoint(folder / CHECKPOINT, state.pop("step"), tensors, state | {"processes": 2})
    ours, theirs = derived(folder, "cls=24M,300M"), derived(run, "cls=24M,300M")
    for task in BUDGETS:
        assert ours.architectures[task].choices == theirs.architectures[task].choices


def test_a_table_without_the_blocks_of_a_resolution_predicts_no_latency_there(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "timed")
    prepared = prepare(with_budgets(run, {"macs": "24M"}))
    keys = [
        key for name, task in prepared.tasks.items() for key in table_keys(SPACE, task, BUDGETS[name][0].resolution)
    ]
    file = tmp_path / "t.json"
    entries = dict.fromkeys([NULL_KEY, *keys], ONE_MS)
    LatencyTable(device="other", fingerprint={}, timing=Timing(), entries=entries).save(file)
    change(folder, table=str(file), other_machine_table=True)
    own = derived(folder, "cls=24M,300M").architectures.values()
    assert all(network.cost.latency_ms is not None for network in own)
    other = derived(folder, "cls=6M@32x32,300M").architectures.values()
    assert all(network.cost.latency_ms is None for network in other)
    change(folder, other_machine_table=False)  # its name is that of another table: it is refused
    assert all(n.cost.latency_ms is None for n in derived(folder, "cls=24M,300M").architectures.values())
    config = with_budgets(folder, {"macs": "cls=6M@32x32,300M"})
    with pytest.raises(UserError, match="blocks have no entry"):  # a table that the user names must have them
        derive(folder, config, table=file, other_machine=True, progress=quiet)


def test_a_pooled_panel_changes_the_networks_and_not_their_weights(run: Path, other: Path) -> None:
    alone, pooled = derived(run, "cls=24M,300M"), derived(run, "cls=24M,300M", pool=[other])
    changed = [task for task in BUDGETS if pooled.architectures[task].choices != alone.architectures[task].choices]
    assert changed
    for task in BUDGETS:
        assert pooled.architectures[task].provenance["derived_from"]["pooled"] == [str(other)]
        assert "pooled" not in alone.architectures[task].provenance["derived_from"]
    weights = [by_group(final_checkpoint(run, steps=0)[0])["weights"], pooled.supernet.state_dict()]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name].cpu()), name


def test_the_order_of_pooled_panels_does_not_matter(run: Path, other: Path, tmp_path: Path) -> None:
    third = shutil.copytree(other, tmp_path / "third")
    first, second = (derived(run, "cls=24M,300M", pool=pool) for pool in ([other, third], [third, other]))
    for task in BUDGETS:
        assert first.architectures[task].choices == second.architectures[task].choices


def change(folder: Path, **fields: object) -> None:
    SearchConfig.load(folder).changed(**fields).save(folder)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "unfinished": (lambda folder: (folder / PANEL).unlink(), "other is unfinished"),
    "another space": (
        lambda folder: change(folder, space=FourPathSpace(stages=2, blocks_per_path=1)),
        "has other space than",
    ),
    "other images": (
        lambda folder: change(folder, data=SearchConfig.load(folder).data.changed(scenes=(99, 48, 16))),
        "has other images than .*: their panels do not go together",
    ),
}


@pytest.mark.parametrize(("damage", "message"), UNFIT.values(), ids=UNFIT)
def test_a_search_that_does_not_go_with_the_run_is_refused(
    run: Path, other: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(other)
    with pytest.raises(UserError, match=message):
        derived(run, "cls=20M,250M", pool=[other])


def test_a_search_is_pooled_once(run: Path, other: Path) -> None:
    for pool in ([run], [other, other]):
        with pytest.raises(UserError, match="is given twice: pool the panels of different searches"):
            derived(run, "cls=20M,250M", pool=pool)


def test_workers_may_differ_between_pooled_searches(run: Path, other: Path) -> None:
    change(other, data=SearchConfig.load(other).data.changed(num_workers=1))
    derived(run, "cls=20M,250M", pool=[other])


WRONG = {
    "too small": ("1M", "macs", "outside what this space offers"),
    "a task without a budget": ("cls=20M", "macs", "leaves out seg"),
    "an unknown task": ("det=20M,30M", "macs", "has no task 'det'"),
    "a latency without a table": ("8ms", "ms", "needs a latency table"),
}


@pytest.mark.parametrize(("amount", "unit", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_budget_is_refused(run: Path, amount: str, unit: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        derived(run, amount, unit)


def test_a_search_without_a_checkpoint_is_unfinished(make_config: MakeConfig, tmp_path: Path) -> None:
    make_config(budgets=BUDGETS, space=SPACE).save(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path} is unfinished"):
        derived(tmp_path, "cls=20M,250M")


def test_a_search_without_its_panel_is_unfinished(run: Path) -> None:
    moved = (run / PANEL).rename(run / "elsewhere")
    try:
        with pytest.raises(UserError, match=rf"without {PANEL}\. Finish it with: fbnetv5 search --resume {run}"):
            derived(run, "cls=20M,250M")
    finally:
        moved.rename(run / PANEL)

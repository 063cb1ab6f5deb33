import json
import shutil
from pathlib import Path

import pytest

from export.errors import UserError
from export.progress import silent
from fbnetv5.architecture import load_architecture
from fbnetv5.costs.budgets import BUDGET_WINDOW
from fbnetv5.search.reinforce.derive import DerivedNetworks
from fbnetv5.search.reinforce.later.derive import derive, with_budgets
from fbnetv5.search.reinforce.later.run import run_later, start_later
from tests.fbnetv5.search.reinforce.later.conftest import BUDGET, MakeLater


@pytest.fixture(scope="module")
def added(make_later: MakeLater, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished later task."""
    target = tmp_path_factory.mktemp("added") / "depth"
    folder, prepared = start_later(make_later(), target, silent, needs_table=False)
    run_later(folder, prepared, silent, silent)
    return folder


def derived(added: Path, amount: str) -> DerivedNetworks:
    return derive(added, with_budgets(added, {"macs": amount}), table=None, other_machine=False, progress=silent)


def test_the_own_budget_gives_the_network_of_the_task(added: Path, tmp_path: Path) -> None:
    derived(added, "20M").write(tmp_path)
    assert (tmp_path / "depth.safetensors").read_bytes() == (added / "depth.safetensors").read_bytes()
    ours, theirs = (load_architecture(folder / "depth.json") for folder in (tmp_path, added))
    assert ours.changed(provenance={}) == theirs.changed(provenance={})
    (point,) = json.loads((tmp_path / "pareto.json").read_text())["tasks"]["depth"]["points"]
    assert (point["choices"], point["loss"]) == (ours.choices_array.tolist(), ours.provenance["loss"])
    origin = {"run": str(added), "budget": {"limit": BUDGET.limit, "unit": "macs"}}
    assert ours.provenance["derived_from"] == origin


def test_the_network_meets_the_other_budget_at_the_resolution_of_the_task(added: Path) -> None:
    architecture = derived(added, "24M").architectures["depth"]
    assert architecture.resolution == BUDGET.resolution
    assert BUDGET_WINDOW[0] * 24e6 <= architecture.cost.macs <= 24e6


def test_a_task_of_several_processes_gives_the_same_network(added: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(added, tmp_path / "depth"))
    (file,) = folder.glob("checkpoint/step-6.json")
    state = json.loads(file.read_text(encoding="utf-8")) | {"processes": 2, "mixed_precision": "bf16"}
    file.write_text(json.dumps(state), encoding="utf-8")
    ours, theirs = (derived(each, "24M").architectures["depth"] for each in (folder, added))
    assert ours.choices == theirs.choices


def test_an_unfinished_task_is_refused(added: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(added, tmp_path / "depth"))
    shutil.rmtree(folder / "checkpoint")
    with pytest.raises(UserError, match=rf"{folder} is unfinished, .* fbnetv5 search --resume {folder}"):
        derived(folder, "24M")

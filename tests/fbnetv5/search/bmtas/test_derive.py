import shutil
from pathlib import Path

import pytest
import torch

from export.errors import UserError
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import load_tensors
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.bmtas.derive import derive, with_budgets
from fbnetv5.search.bmtas.prepare import prepare
from fbnetv5.search.bmtas.run import run_branch
from tests.fbnetv5.search.bmtas.conftest import tiny_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search with a budget of 150M."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    config = tiny_config(steps=4)
    config.save(folder)
    run_branch(folder, prepare(config), lambda entry: None)
    return folder


def derived(run: Path, amount: str, unit: str = "macs") -> tuple[Architecture, Network]:
    return network_of(run, with_budgets(run, {unit: amount}))


def network_of(run: Path, config: BranchConfig, table: Path | None = None) -> tuple[Architecture, Network]:
    derivation = derive(run, config, table=table, other_machine=False, progress=lambda *_: None)
    return derivation.architecture, derivation.network


def test_the_budget_of_the_run_gives_the_tree_and_the_weights_of_the_run(run: Path) -> None:
    architecture, network = derived(run, "150M")
    found = load_architecture(run / "branched.json")
    assert (architecture.choices, architecture.cost) == (found.choices, found.cost)
    assert architecture.provenance["scores"] == found.provenance["scores"]
    assert architecture.provenance["derived_from"]["budget"] == {"limit": 150e6, "unit": "macs"}
    tensors = network.state_dict()
    for name, tensor in load_tensors(run / "branched.safetensors").items():
        assert torch.equal(tensor, tensors[name])


def test_a_larger_budget_buys_a_costlier_tree(run: Path) -> None:
    small, large = (derived(run, amount)[0] for amount in ("140M", "170M"))
    assert small.cost.macs <= 140e6 < large.cost.macs <= 170e6
    assert large.provenance["budget"]["limit"] == 170e6


def test_a_budget_outside_of_the_range_and_a_latency_without_a_table_are_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"budget 1\.0M at 224x224 is outside"):
        derived(run, "1M")
    with pytest.raises(UserError, match="--latency needs a latency table"):
        derived(run, "9ms", "ms")


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "config.json", tmp_path)
    with pytest.raises(UserError, match=r"is unfinished: its checkpoint is of step 0 of 4.*branch --resume"):
        derived(tmp_path, "150M")


def test_a_budget_in_multiply_adds_does_not_need_the_table_of_the_run(run: Path) -> None:
    config = with_budgets(run, {"macs": "12M@64x64"}).changed(table="moved.json")
    architecture, _ = network_of(run, config)
    assert (architecture.resolution, architecture.cost.latency_ms) == ((64, 64), None)
    with pytest.raises(UserError, match=r"moved\.json does not exist"):
        network_of(run, config, Path("moved.json"))


def test_a_configuration_without_a_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"schema": 2}')
    with pytest.raises(UserError, match=r"config\.json is damaged: kind is missing"):
        with_budgets(tmp_path, {"macs": "150M"})

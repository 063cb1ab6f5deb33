from pathlib import Path

import pytest
import torch

from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.costs.budgets import Budget
from fbnetv5.runs.checkpoint import load_tensors, save_tensors
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.bmtas.prepare import prepare
from fbnetv5.search.bmtas.run import run_branch, start_branch
from tests.fbnetv5.networks.peers import live_model
from tests.fbnetv5.search.bmtas.conftest import tiny_config


def start(folder: Path, config: BranchConfig) -> None:
    start_branch(config, folder, lambda costs: None, lambda line: None)


@pytest.mark.parametrize("routing", ["soft", "sampled"])
def test_a_search_ends_with_a_tree_within_its_budget(tmp_path: Path, routing: str) -> None:
    config = tiny_config(routing=routing, steps=4)
    folder, prepared = start_branch(config, tmp_path / "run", lambda costs: None, lambda line: None)
    architecture = run_branch(folder, prepared, lambda entry: None)
    assert 0.9 * config.budget.limit <= architecture.cost.macs <= config.budget.limit
    assert load_architecture(folder / "branched.json") == architecture
    network = architecture.load(folder / "branched.safetensors").eval()
    assert len(network(torch.zeros(1, 3, 32, 32))) == 5  # logits; boxes, scores, labels; logits
    assert (tmp_path / "latest").resolve() == folder.resolve()


def test_a_stopped_and_resumed_search_has_the_same_files(tmp_path: Path) -> None:
    config = tiny_config(steps=4)
    for name in ("whole", "stopped"):
        start(tmp_path / name, config)
    run_branch(tmp_path / "whole", prepare(config), lambda entry: None)

    def stop(entry: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_branch(tmp_path / "stopped", prepare(config), stop)
    run_branch(tmp_path / "stopped", prepare(BranchConfig.load(tmp_path / "stopped")), lambda entry: None)
    for file in ("branched.json", "pareto.json", "history.jsonl"):
        assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    tensors = load_tensors(tmp_path / "whole" / "branched.safetensors")
    for name, value in load_tensors(tmp_path / "stopped" / "branched.safetensors").items():
        assert torch.equal(value, tensors[name])


def test_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        start(tmp_path, tiny_config())


def test_a_search_starts_from_weights_of_a_file_and_resumes_without_it(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    published = live_model("torchvision", "mobilenet_v2").state_dict()
    save_tensors(file, published)
    budget = Budget(limit=600e6, unit="macs")
    config = tiny_config(encoder="mobilenetv2", width=1.0, init=str(file), steps=2, budget=budget)
    start(tmp_path / "run", config)
    (tmp_path / "run" / "checkpoint").mkdir()  # as if it were killed while it wrote its first checkpoint
    run_branch(tmp_path / "run", prepare(config), lambda entry: None)
    stem = load_tensors(tmp_path / "run" / "branched.safetensors")["backbone.blocks.stem.0.weight"]
    theirs = published["features.0.0.weight"]
    assert 0 < torch.dist(stem, theirs) < 0.2 * theirs.norm()
    file.unlink()
    run_branch(tmp_path / "run", prepare(BranchConfig.load(tmp_path / "run")), lambda entry: None)
    with pytest.raises(UserError, match=r"does not exist\. Name a file, or one of: scratch"):
        start(tmp_path / "other", config)
    assert not (tmp_path / "other").exists()

import shutil
from pathlib import Path

import pytest
import torch

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.runs.checkpoint import load_checkpoint
from fbnetv5.search.reinforce.later.prepare import LaterPrepared, prepare_later
from fbnetv5.spaces.four_path import FourPathSpace
from tests.fbnetv5.search.reinforce.later.conftest import MakeLater


@pytest.fixture(scope="module")
def prepared(make_later: MakeLater) -> LaterPrepared:
    return prepare_later(make_later())


def test_every_architecture_to_run_lies_in_the_window(prepared: LaterPrepared) -> None:
    assert prepared.constraints["depth"].in_window(prepared.architectures).all()
    assert len({row.tobytes() for row in prepared.architectures}) == len(prepared.architectures) > 1


def test_the_trunk_has_the_final_weights_of_the_search_and_is_frozen(prepared: LaterPrepared, searched: Path) -> None:
    supernet = prepared.make_supernet()
    checkpoint = load_checkpoint(searched / "checkpoint")
    assert checkpoint is not None
    weights = {name: value for name, value in supernet.state_dict().items() if name.startswith("blocks.")}
    assert weights
    assert all(torch.equal(value, checkpoint[0][f"weights/{name}"]) for name, value in weights.items())
    trained = {name for name, parameter in supernet.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in supernet.named_parameters() if name.startswith("heads.depth.")}


def test_a_table_that_is_left_out_predicts_no_latency(prepared: LaterPrepared) -> None:
    without = prepared.without_table()
    assert (without.table, without.config.table, without.later.table) == (None, None, None)


def test_weights_of_another_space_are_refused(make_later: MakeLater) -> None:
    other = prepare_later(make_later(space=FourPathSpace(stages=1, blocks_per_path=2)))
    with pytest.raises(UserError, match="holds the weights of another network"):
        other.make_supernet()


def test_a_budget_out_of_range_is_refused(make_later: MakeLater) -> None:
    with pytest.raises(UserError, match=r"budget 1\.0M for depth at 224x224 is outside what this space offers"):
        prepare_later(make_later(budgets={"depth": (Budget(limit=1e6, unit="macs"),)}))


def test_an_unfinished_run_is_refused(make_later: MakeLater, searched: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(searched, tmp_path / "run"))
    (run / "panel.safetensors").unlink()
    with pytest.raises(UserError, match=rf"{run} is unfinished, .* Finish it with: fbnetv5 search --resume {run}"):
        prepare_later(make_later(run=str(run)))

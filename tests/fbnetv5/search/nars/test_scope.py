from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.search.nars.scope import searched_networks
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.stages import StageSpace


def test_a_space_is_named_with_its_width() -> None:
    fields = searched_networks("cls", {"macs": "2M@32x32", "params": "1M"}, arch=None, space="stages", width=0.25)
    assert fields["space"] == StageSpace(width=0.25)
    assert [(budget.unit, budget.limit) for budget in fields["budgets"]] == [("macs", 2e6), ("params", 1e6)]
    assert searched_networks("cls", {}, arch=None, space="four-path", width=1.0) == {"space": FourPathSpace()}


def test_one_architecture_has_its_own_cost_as_budget(finished: Path) -> None:
    file = finished / "cls.json"
    record = load_architecture(file)
    fields = searched_networks("cls", {}, arch=file, space="stages", width=1.0)
    assert (fields["space"], fields["fixed"]) == (record.space, record.choices["cls"])
    (budget,) = fields["budgets"]
    assert (budget.limit, budget.resolution) == (record.cost.macs, record.resolution)
    with pytest.raises(UserError, match="is a network for cls: add --task cls"):
        searched_networks("det", {}, arch=file, space="stages", width=1.0)
    for space, width in (("four-path", 1.0), ("stages", 0.5)):
        with pytest.raises(UserError, match="--arch names the only architecture: leave out --space and --width"):
            searched_networks("cls", {}, arch=file, space=space, width=width)


def test_a_budget_of_one_architecture_is_for_its_resolution(finished: Path) -> None:
    file = finished / "cls.json"
    fields = searched_networks("cls", {"params": "900M"}, arch=file, space="stages", width=1.0)
    assert fields["budgets"][0].resolution == load_architecture(file).resolution != (224, 224)
    other = searched_networks("cls", {"params": "900M@96x96"}, arch=file, space="stages", width=1.0)
    assert other["budgets"][0].resolution == (96, 96)

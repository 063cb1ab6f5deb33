import json
from collections.abc import Callable
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.costs.budgets import Budget, Repeatable
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.family import derive_family, middle_of_family, read_family
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.spaces.four_path import FourPathSpace

MakeConfig = Callable[..., SearchConfig]
SPACE = FourPathSpace(stages=1, blocks_per_path=1)
SIZE = (32, 32)


def quiet(*_: object) -> None:
    """Show nothing."""


def budgets(limit: float) -> dict[str, tuple[Budget, ...]]:
    return {"seg": (Budget(limit=limit, unit="macs", resolution=SIZE),)}


@pytest.mark.parametrize(("limits", "middle"), [([2e8, 4e8], 4e8), ([3e8, 1e8, 2e8], 2e8), ([5e8], 5e8)], ids=str)
def test_a_search_runs_for_the_middle_budget(limits: list[float], middle: float) -> None:
    own, others = middle_of_family({f"{limit / 1e6:.0f}M": budgets(limit) for limit in limits})
    assert own == budgets(middle)
    assert list(others.values()) == [budgets(limit) for limit in sorted(limits) if limit != middle]
    assert list(others) == [f"{limit / 1e6:.0f}M" for limit in sorted(limits) if limit != middle]


def test_a_family_is_read_from_repeated_budgets_of_any_kind() -> None:
    others: dict[str, Repeatable] = {"energy_mJ": ["5", 3], "bytes": "8MB"}
    own, family = read_family("9M", None, None, others, tasks=["seg"], has_table=False)
    assert [(budget.unit, budget.limit) for budget in own["seg"]] == [("macs", 9e6), ("energy_mJ", 5.0), ("bytes", 8e6)]
    assert {label: member["seg"][1].limit for label, member in family.items()} == {"9M+3mJ-energy+8MB": 3.0}
    with pytest.raises(UserError, match="--latency needs a latency table"):
        read_family(None, "8ms", None, {}, tasks=["seg"], has_table=False)
    with pytest.raises(UserError, match=r"^9M and 9.0M are one budget: give each member of a family once$"):
        read_family(["9M", "7M", "9.0M"], None, None, {}, tasks=["seg"], has_table=False)


def test_a_family_has_a_folder_per_member_and_one_front(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(budgets=budgets(7e6), family={"5M": budgets(5e6)}, space=SPACE)
    folder, prepared = start_run(config, tmp_path / "s", quiet, quiet)
    assert SearchConfig.load(folder) == config
    (own,) = run_search(folder, prepared, quiet, quiet).values()
    before = json.loads((folder / "pareto.json").read_text(encoding="utf-8"))["tasks"]["seg"]["points"]
    (member,) = derive_family(folder, config, quiet)["5M"].values()
    assert 0.85 * 5e6 <= member.cost.macs <= 5e6 < own.cost.macs <= 7e6
    derived = folder / "derived" / "5M"
    assert load_architecture(derived / "seg.json") == member
    assert {"config.json", "seg.safetensors", "pareto.json"} <= {path.name for path in derived.iterdir()}
    merged = json.loads((folder / "pareto.json").read_text(encoding="utf-8"))["tasks"]["seg"]["points"]
    theirs = json.loads((derived / "pareto.json").read_text(encoding="utf-8"))["tasks"]["seg"]["points"]
    assert [point["cost"] for point in merged] == sorted(point["cost"] for point in merged)
    expected = [point["expected_loss"] for point in merged]
    assert expected == sorted(expected, reverse=True)
    assert all(point in [*before, *theirs] for point in merged)
    assert min(point["cost"] for point in merged) <= 5e6
    # As after an interruption, nothing is repeated.
    written = (folder / "pareto.json").read_bytes()
    assert derive_family(folder, config, quiet)["5M"] == {"seg": member}
    assert (folder / "pareto.json").read_bytes() == written


def test_a_member_out_of_range_is_refused_before_the_search(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(budgets=budgets(7e6), family={"1K": budgets(1e3)}, space=SPACE)
    with pytest.raises(UserError, match=r"budget 0\.001M for seg at 32x32 is outside what this space offers"):
        start_run(config, tmp_path / "s", quiet, quiet)
    assert not list(tmp_path.iterdir())

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.tables import table_keys
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.prepare import Prepared, check_costs, check_latencies, prepare, with_usable_table
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.wide import WideSpace
from latency.protocol import Measurement, Timing
from latency.table import NULL_KEY, LatencyTable

MakeConfig = Callable[..., SearchConfig]
ONE_MS = Measurement(latency_ms_median=1, latency_ms_p90=1, latency_ms_p99=1, runs=9, cv=0, drift=0)
SIZE = (64, 64)


def with_table(prepared: Prepared, keys: Iterable[str]) -> Prepared:
    """The inputs with a latency table of these blocks and heads."""
    entries = dict.fromkeys([NULL_KEY, *keys], ONE_MS)
    return replace(prepared, table=LatencyTable(device="cpu", fingerprint={}, timing=Timing(), entries=entries))


@pytest.fixture
def wide(make_config: MakeConfig) -> Prepared:
    """The inputs of a search whose heads have a width for each combination of path widths."""
    budgets = {"seg": (Budget(limit=20e6, unit="macs", resolution=SIZE),)}
    return prepare(make_config(budgets=budgets, space=WideSpace(stages=1, blocks_per_path=1)))


def test_a_search_has_its_images_tasks_and_a_cost_table_per_task(make_config: MakeConfig) -> None:
    prepared = prepare(make_config("cls", "seg"))
    assert list(prepared.tasks) == list(prepared.constraints) == ["cls", "seg"]
    assert (len(prepared.splits.weights), len(prepared.splits.policies), len(prepared.splits.test)) == (24, 24, 16)
    assert {own.tables[0].unit for own in prepared.constraints.values()} == {"macs"}
    assert prepared.table is None


def test_a_missing_latency_table_is_named(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json does not exist"):
        prepare(make_config("cls", table="nowhere.json"))


def test_a_budget_in_milliseconds_needs_a_latency_table(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="a budget in milliseconds needs a latency table"):
        prepare(make_config("cls", budgets={"cls": Budget(limit=8.0, unit="ms")}))


def test_a_table_must_have_the_heads_of_all_widths_before_the_search(wide: Prepared) -> None:
    keys = table_keys(wide.config.space, wide.tasks["seg"], SIZE)
    check_costs(with_table(wide, keys))
    assert sum(key.startswith("head_seg") for key in keys) > 1
    with pytest.raises(UserError, match="blocks have no entry in the cpu table, first: head_seg"):
        check_costs(with_table(wide, keys[:-1]))


def test_a_table_must_have_the_blocks_of_all_members_of_a_family(make_config: MakeConfig) -> None:
    member = {"seg": (Budget(limit=6e6, unit="macs", resolution=(32, 32)),)}
    budgets = {"seg": (Budget(limit=20e6, unit="macs", resolution=SIZE),)}
    space = FourPathSpace(stages=1, blocks_per_path=1)
    prepared = prepare(make_config(budgets=budgets, family={"6M@32x32": member}, space=space))
    keys = {size: table_keys(space, prepared.tasks["seg"], size) for size in (SIZE, (32, 32))}
    check_costs(with_table(prepared, [*keys[SIZE], *keys[32, 32]]))
    with pytest.raises(UserError, match="blocks have no entry in the cpu table"):
        check_costs(with_table(prepared, keys[SIZE]))


def test_a_table_that_is_not_needed_is_left_out_where_it_lacks_blocks(wide: Prepared) -> None:
    keys = table_keys(wide.config.space, wide.tasks["seg"], SIZE)
    whole, partial = with_table(wide, keys), with_table(wide, keys[:-1])
    lines: list[str] = []
    assert with_usable_table(whole, lines.append, is_needed=False) is whole
    assert not lines
    without = with_usable_table(partial, lines.append, is_needed=False)
    assert without.table is None
    assert without.config.table is None
    assert lines[0].startswith("no latency is predicted: ")
    check_latencies(without)
    with pytest.raises(UserError, match="blocks have no entry"):
        with_usable_table(partial, lines.append, is_needed=True)

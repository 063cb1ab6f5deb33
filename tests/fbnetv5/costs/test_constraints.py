import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.blocks.specs import InvertedResidual
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import Constraints, constrain, cost_table, latency_identity
from fbnetv5.costs.memory import MemoryLimit, PeakMemory
from fbnetv5.costs.tables import CostTable, Counter
from fbnetv5.networks.backbone import Network
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.graph import Node, Variable
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.tasks import make_tasks


class KernelSpace(Space):
    """A kernel for each of five blocks that reduce the resolution: what is cheap by one unit may be dear by another."""

    title: ClassVar[str] = "space"
    label: ClassVar[str] = "kernels"
    ends: ClassVar[Mapping[int, str]] = {32: "b4"}

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(Variable(name=f"b{number}", choices=("3", "5", "7")) for number in range(5))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(
            Node(
                name=f"b{number}",
                inputs=(f"b{number - 1}",) if number else (),
                candidates=tuple(
                    InvertedResidual(kernel=k, in_channels=8, out_channels=8, expansion=1, stride=2) for k in (3, 5, 7)
                ),
                stride=2 ** (number + 1),
                stage=0,
                variables=(number,),
                table=(0, 1, 2),
            )
            for number in range(5)
        )


KERNELS = KernelSpace()
EVERYTHING: Choices = np.array(list(itertools.product(range(3), repeat=5)))
SPACE = FourPathSpace(stages=2, blocks_per_path=1, strict=True)
TASKS = make_tasks(("cls", "seg"), {"label": ("a", "b", "c"), "mask": ("a", "b")})
SIZE = (32, 32)
STAGES = StageSpace(width=0.25)


def random_table(seed: int, unit: str) -> CostTable:
    """Costs of blocks that are unlike those of other seeds."""
    blocks = 1e6 * np.random.default_rng(seed).uniform(1.0, 10.0, (5, 3))
    return CostTable(space=KERNELS, paths=(32,), unit=unit, blocks=blocks, head=1e6)


def of_stages(*units: str, shares: Sequence[float]) -> Constraints:
    """Budgets at shares of the range between the smallest and the largest cost of a space whose widths differ."""
    budgets, tables = [], []
    for unit, share in zip(units, shares, strict=True):
        table = Counter(SIZE).table(STAGES, TASKS["cls"], unit)
        limit = table.min_cost + share * (table.max_cost - table.min_cost)
        budgets.append(Budget(limit=limit, unit=unit, resolution=SIZE))
        tables.append(table)
    return Constraints(budgets=budgets, tables=tables)


def test_a_share_is_that_of_the_tightest_budget() -> None:
    constraints = of_stages("macs", "params", shares=(0.3, 0.6))
    architectures = np.random.default_rng(0).integers(STAGES.choice_counts, size=(8, len(STAGES.choice_counts)))
    limits = [budget.limit for budget in constraints.budgets]
    for architecture, share in zip(architectures, constraints.shares(architectures), strict=True):
        assert share == max(np.array(constraints.costs_of(architecture)) / limits)


def test_the_window_is_from_85_percent_of_a_budget_to_all_of_it() -> None:
    table = random_table(0, "macs")
    cost = table.cost_of(EVERYTHING[100])
    for share, excess in ((1.0, 0.0), (0.85, 0.0), (1.25, 0.25), (0.8, 0.05)):
        constraints = Constraints(budgets=[Budget(limit=cost / share, unit="macs")], tables=[table])
        assert constraints.excess(EVERYTHING[100][None]) == pytest.approx([excess], abs=1e-12)
        assert constraints.in_window(EVERYTHING[100][None]) == (excess == 0.0)


@given(st.integers(0, 2**16), st.floats(0.1, 1.0), st.floats(0.1, 1.0))
@settings(max_examples=20, deadline=None)
def test_the_window_of_several_budgets_is_that_of_the_binding_one(seed: int, first: float, second: float) -> None:
    tables = [random_table(seed, "macs"), random_table(seed + 1, "ms")]
    limits = [share * table.max_cost for share, table in zip((first, second), tables, strict=True)]
    budgets = [Budget(limit=limits[0], unit="macs"), Budget(limit=limits[1], unit="ms")]
    inside = Constraints(budgets=budgets, tables=tables).in_window(EVERYTHING)
    shares = np.stack([table(EVERYTHING) / limit for table, limit in zip(tables, limits, strict=True)]).max(0)
    sure = (np.abs(shares - 0.85) > 1e-9) & (np.abs(shares - 1) > 1e-9)
    np.testing.assert_array_equal(inside[sure], ((shares >= 0.85) & (shares <= 1))[sure])


@given(st.integers(0, 2**16), st.lists(st.floats(0.0, 0.7), min_size=2, max_size=3))
@example(11580, [0.5, 0.25])  # what meets both budgets has the min cost of no mean
@settings(max_examples=100, deadline=None)
def test_budgets_that_exclude_each_other_are_refused_and_no_others(seed: int, shares: list[float]) -> None:
    """Compared with all architectures."""
    units = ("macs", "params", "ms")[: len(shares)]
    tables = [random_table(seed + number, unit) for number, unit in enumerate(units)]
    limits = [t.min_cost + share * (t.max_cost - t.min_cost) for t, share in zip(tables, shares, strict=True)]
    budgets = [Budget(limit=limit, unit=t.unit) for limit, t in zip(limits, tables, strict=True)]
    constraints = Constraints(budgets=budgets, tables=tables)
    smallest = constraints.shares(EVERYTHING).min()
    if smallest > 1:
        with pytest.raises(UserError, match="no network for det meets its budgets together: that of min cost in "):
            constraints.check("det")
    else:
        constraints.check("det")


def test_a_refusal_says_what_networks_of_min_cost_exceed() -> None:
    macs = random_table(3, "macs")
    params = replace(macs, unit="params", blocks=11e6 - macs.blocks)
    budgets = [Budget(limit=1.1 * macs.min_cost, unit="macs"), Budget(limit=1.1 * params.min_cost, unit="params")]
    with pytest.raises(UserError) as caught:
        Constraints(budgets=budgets, tables=[macs, params]).check("seg")
    costs = params.cost_of(macs.min_cost_architecture()), macs.cost_of(params.min_cost_architecture())
    of_params, of_macs = (f"{cost / 1e6:.1f}M" for cost in costs)
    macs_limit, params_limit = (f"{budget.limit / 1e6:.1f}M" for budget in budgets)
    assert str(caught.value) == (
        "no network for seg meets its budgets together: "
        f"that of min cost in multiply-adds has {of_params} parameters, of {params_limit} allowed; "
        f"that of min cost in parameters has {of_macs} multiply-adds, of {macs_limit} allowed. Raise one of them"
    )


@pytest.mark.parametrize("share", [-0.01, 1.01])
def test_a_budget_outside_of_the_range_is_refused_with_the_range(share: float) -> None:
    of_stages("macs", "params", shares=(0.0, 1.0)).check()
    message = r"budget \d.* at 32x32 is outside what FBNetV3's stages of width 0.25 offers: "
    with pytest.raises(UserError, match=message):
        of_stages("macs", shares=[share]).check()
    with pytest.raises(
        UserError, match=r"budget \S+M parameters for cls is outside what this space .*M\. Choose .*, or another space$"
    ):
        of_stages("macs", "params", shares=(0.5, share)).check("cls")


def test_an_architecture_that_exceeds_a_budget_is_refused() -> None:
    constraints = of_stages("macs", shares=[0.5])
    constraints.check_architecture(STAGES.empty())
    largest = np.array(STAGES.choice_counts) - 1
    with pytest.raises(UserError, match=r"the architecture costs 4\.\d+M, more than the budget of 2\.\d+M"):
        constraints.check_architecture(largest)


def test_figures_of_several_budgets_have_the_name_of_their_unit() -> None:
    one, several = of_stages("macs", shares=[0.5]), of_stages("macs", "params", shares=(0.5, 0.5))
    assert (one.names("det"), several.names("det")) == (["det"], ["det/macs", "det/params"])
    assert one.texts([2e8]) == "200.0M"
    assert several.texts([2e8, 5e6]) == "200.0M multiply-adds and 5.0M parameters"


def test_a_task_is_constrained_by_a_table_per_budget() -> None:
    budgets = {"seg": (Budget(limit=1e8, unit="macs", resolution=SIZE), Budget(limit=1e6, unit="params"))}
    constraints = constrain(SPACE, TASKS, budgets, None)
    assert list(constraints) == ["seg"]
    assert [table.unit for table in constraints["seg"].tables] == ["macs", "params"]
    assert constraints["seg"].tables[0].min_cost == Counter(SIZE).table(SPACE, TASKS["seg"], "macs").min_cost


def test_a_budget_in_milliseconds_needs_a_table() -> None:
    with pytest.raises(UserError, match="needs a latency table"):
        cost_table(SPACE, TASKS["cls"], Budget(limit=2.0, unit="ms"), None)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("space", [SPACE, STAGES], ids=["four-path", "stages"])
def test_parameters_are_those_of_the_built_network(space: FourPathSpace | StageSpace, task: str) -> None:
    budget = Budget(limit=1e6, unit="params", resolution=SIZE)
    table = cost_table(space, TASKS[task], budget, None)
    for architecture in np.random.default_rng(1).integers(space.choice_counts, size=(6, len(space.choice_counts))):
        graph = space.graph(architecture, {task: TASKS[task].paths})
        network = Network({task: TASKS[task]}, graph)
        weights = [p for module in network.modules() for p in module.parameters(recurse=False) if p.dim() > 1]
        assert table.cost_of(architecture) == sum(weight.numel() for weight in weights)


def with_memory(limit: float, share: float = 0.5) -> Constraints:
    """A budget of multiply-adds, and a limit of memory, for the networks of cls in the space of stages."""
    (budget,) = of_stages("macs", shares=[share]).budgets
    memory = Budget(limit=limit, unit="bytes", resolution=SIZE)
    return constrain(STAGES, TASKS, {"cls": (budget, memory)}, None)["cls"]


def test_networks_with_a_higher_peak_are_outside_of_the_window() -> None:
    counts = np.array(STAGES.choice_counts)
    drawn = np.random.default_rng(0).integers(counts, size=(4000, len(counts)))
    free = of_stages("macs", shares=[0.5])
    constraints = with_memory(7e4)
    assert constraints.memory is not None
    assert (constraints.names("cls"), len(constraints.budgets)) == (["cls"], 1)
    peaks = constraints.memory.peak(drawn)
    inside = constraints.in_window(drawn)
    assert (inside == (free.in_window(drawn) & (peaks <= 7e4))).all()
    assert 0 < inside.sum() < free.in_window(drawn).sum()
    assert ((constraints.excess(drawn) == 0) == inside).all()
    np.testing.assert_allclose(constraints.excess(drawn) - free.excess(drawn), np.maximum(0, peaks / 7e4 - 1))
    constraints.check("cls")
    assert "peak of 0." in constraints.ranges()[1]


def test_a_limit_of_memory_that_no_network_meets_is_refused() -> None:
    message = r"no network for cls at 32x32 was found with a peak of at most 0\.0\d* MB of activations; the lowest"
    with pytest.raises(UserError, match=message):
        with_memory(6e4).check("cls")
    largest = np.array(STAGES.choice_counts) - 1
    with pytest.raises(UserError, match=r"the architecture needs more than 0\.07 MB"):
        with_memory(7e4, share=1.0).check_architecture(largest)


MACS_OF_STAGES = Counter(SIZE).table(STAGES, TASKS["cls"], "macs")


class AsCostly(PeakMemory):
    """A peak of a byte per multiply-add."""

    def __call__(self, choices: Choices) -> NDArray[np.int64]:
        return MACS_OF_STAGES(choices).astype(np.int64)


def test_a_budget_that_no_network_below_the_limit_of_memory_uses_is_refused() -> None:
    constraints, empty = of_stages("macs", shares=[1.0]), np.zeros((*MACS_OF_STAGES.blocks.shape, 1), dtype=np.int64)
    peak = AsCostly(space=STAGES, task=TASKS["cls"], resolution=SIZE, inside=empty, outputs=empty)
    limit = Budget(limit=constraints.budgets[0].limit / 2, unit="bytes", resolution=SIZE)
    constraints = replace(constraints, memory=MemoryLimit(budget=limit, peak=peak))
    with pytest.raises(UserError, match=r"no network was found that uses its budgets with at most \d\.\d+ MB of act"):
        constraints.check()


def test_latencies_that_budgets_are_compared_with_have_a_checksum() -> None:
    def identity(unit: str, seed: int) -> dict[str, str]:
        return latency_identity([random_table(0, "macs"), random_table(seed, unit)])

    assert identity("ms", 0).keys() == {"latencies"}
    assert identity("ms", 0) == identity("ms", 0) != identity("ms", 1)
    assert identity("estimated ms", 0) != identity("estimated ms", 1)
    assert identity("macs", 0) == {}  # a table that only predicts changes no search


def test_the_checksum_of_latencies_covers_the_heads_of_all_widths() -> None:
    space = WideSpace(stages=1, blocks_per_path=1)
    table = replace(Counter(SIZE).table(space, TASKS["seg"], "macs"), unit="ms")
    head = table.head
    assert callable(head)
    dearer = replace(table, head=lambda channels: head(channels) + (channels == (16, 32, 88, 168)))
    assert (16, 32, 88, 168) in space.possible_widths(table.paths)
    assert latency_identity([table]) != latency_identity([dearer])

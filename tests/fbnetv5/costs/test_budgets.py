import json
import math
from typing import Any

import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import (
    Budget,
    budget_text,
    format_cost,
    format_distinct,
    in_window,
    only_budget,
    parse_budgets,
    parse_constraints,
)

MACS_400 = Budget(limit=400e6, unit="macs")
BUDGETS: dict[str, tuple[str, str, tuple[Budget, Budget]]] = {
    "one for all": ("400M", "macs", (MACS_400, MACS_400)),
    "own size": (
        "det=1.2G@320x640,400M",
        "macs",
        (MACS_400, Budget(limit=1.2e9, unit="macs", resolution=(320, 640))),
    ),
    "default first": ("400M, det=500K", "macs", (MACS_400, Budget(limit=500e3, unit="macs"))),
    "all named": ("det=1G,cls=400M", "macs", (MACS_400, Budget(limit=1e9, unit="macs"))),
    "square": ("400M@256", "macs", (Budget(limit=400e6, unit="macs", resolution=(256, 256)),) * 2),
    "milliseconds": ("8ms", "ms", (Budget(limit=8.0, unit="ms"),) * 2),
    "other times": ("cls=500us,0.25s", "ms", (Budget(limit=0.5, unit="ms"), Budget(limit=250.0, unit="ms"))),
}
NO_AMOUNT = "is not a positive number with its unit, such as 400M or 1.2G multiply-adds"
BAD_BUDGETS = {
    "no unit": ("400", NO_AMOUNT),
    "negative": ("-1M", NO_AMOUNT),
    "zero": ("0.0M", NO_AMOUNT),
    "nothing": ("", NO_AMOUNT),
    "bits": ("1Mb", NO_AMOUNT),
    "no number": ("M", NO_AMOUNT),
    "not a number": ("nan", NO_AMOUNT),
    "infinite": ("infM", NO_AMOUNT),
    "lower case": ("400m", NO_AMOUNT),
    "a time": ("8ms", NO_AMOUNT),
    "empty part": ("400M,", NO_AMOUNT),
    "other digits": ("٤M", NO_AMOUNT),
    "task left out": ("det=400M", "leaves out cls; add a part without a name for the others"),
    "unknown task": ("depth=400M,400M", "this run has no task 'depth'; it has: cls, det"),
    "empty name": ("=400M", "this run has no task ''"),
    "task twice": ("det=1M,det=2M,3M", "sets det twice"),
    "default twice": ("400M,500M", "sets the default twice"),
    "odd size": ("400M@100x100", "resolution 100x100: height and width must be multiples of 32"),
    "no size": ("400M@", "resolution '' is not HEIGHTxWIDTH"),
}


@pytest.mark.parametrize(("text", "unit", "expected"), BUDGETS.values(), ids=BUDGETS)
def test_budgets_are_read(text: str, unit: str, expected: tuple[Budget, Budget]) -> None:
    budgets = parse_budgets(text, unit=unit, tasks=("cls", "det"))
    assert list(budgets) == ["cls", "det"]
    for budget, wanted in zip(budgets.values(), expected, strict=True):
        assert budget.limit == pytest.approx(wanted.limit)
        assert (budget.unit, budget.resolution) == (wanted.unit, wanted.resolution)


@pytest.mark.parametrize(("text", "message"), BAD_BUDGETS.values(), ids=BAD_BUDGETS)
def test_invalid_budgets_are_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_budgets(text, unit="macs", tasks=("cls", "det"))
    assert message in str(caught.value)


def test_multiply_adds_are_no_time() -> None:
    with pytest.raises(UserError, match=r"budget '400M' is not a positive number with its unit, such as 8ms"):
        parse_budgets("400M", unit="ms", tasks=("cls",))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(398.21e6, "macs", "398.2M"), (7.912, "ms", "7.91 ms"), (1234.0, "ms", "1230 ms"), (0.01234, "ms", "0.0123 ms")],
)
def test_costs_are_written_with_their_unit(value: float, unit: str, text: str) -> None:
    assert format_cost(value, unit) == text


def test_different_costs_have_different_texts() -> None:
    assert format_distinct([400e6, 400.04e6], "macs") == ["400.00M", "400.04M"]
    assert format_distinct([7.0, 8.0, 7.0], "ms") == ["7 ms", "8 ms", "7 ms"]


def test_a_derived_network_may_cost_from_85_percent_of_its_budget_to_all_of_it() -> None:
    costs = np.array([339.9, 340.0, 400.0, 400.1])
    assert in_window(costs, Budget(limit=400.0, unit="ms")).tolist() == [False, True, True, False]


DOCUMENT: dict[str, Any] = {"limit": 400000000, "unit": "macs", "resolution": [320, 640]}


def test_a_budget_is_loaded_from_json() -> None:
    budget = Budget(limit=4e8, unit="macs", resolution=(320, 640))
    assert Budget(**DOCUMENT) == Budget(**json.loads(json.dumps(budget.to_json()))) == budget


@pytest.mark.parametrize("wrong", [{"limit": 0.0}, {"limit": math.inf}, {"unit": "J"}, {"resolution": [320]}], ids=str)
def test_an_invalid_budget_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"budget: {next(iter(wrong))}"):
        Budget(**{**DOCUMENT, **wrong})


def test_a_budget_without_a_size_has_the_given_resolution() -> None:
    budgets = parse_budgets("det=1G@320x640,400M", unit="macs", tasks=("cls", "det"), resolution=(64, 64))
    assert (budgets["cls"].resolution, budgets["det"].resolution) == ((64, 64), (320, 640))


def test_budgets_that_hold_together_have_one_resolution() -> None:
    macs, params, time = parse_constraints({"macs": "40M@64x96", "params": "5M", "ms": "8ms"})
    assert (macs.limit, macs.unit, macs.resolution) == (40e6, "macs", (64, 96))
    assert (params.limit, params.unit, params.resolution) == (5e6, "params", (64, 96))
    assert (time.limit, time.unit, time.resolution) == (8.0, "ms", (64, 96))
    assert parse_constraints({"params": "500K"}) == (Budget(limit=5e5, unit="params"),)
    assert parse_constraints({"macs": "1M@64", "params": "1M@64x64"})[1].resolution == (64, 64)
    assert parse_constraints({}) == ()


WRONG_CONSTRAINTS = {
    "two resolutions": ({"macs": "40M@64x64", "params": "5M@96x96"}, "for one resolution, not for 64x64 and 96x96"),
    "parameters in seconds": ({"params": "5ms"}, "budget '5ms' is not a positive number with its unit, such as 5M par"),
    "a task": ({"macs": "cls=40M"}, "budget 'cls=40M' is not a positive number with its unit"),
    "odd resolution": ({"macs": "40M@60x60"}, "multiples of 32"),
}


@pytest.mark.parametrize(("texts", "message"), WRONG_CONSTRAINTS.values(), ids=WRONG_CONSTRAINTS)
def test_wrong_budgets_that_hold_together_are_refused(texts: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_constraints(texts)


def test_parameters_are_written_in_millions() -> None:
    assert format_cost(5.04e6, "params") == "5.0M"
    assert format_distinct([5.04e6, 5.05e6], "params") == ["5.04M", "5.05M"]


def test_the_only_budget_has_a_unit_and_a_latency_needs_a_table() -> None:
    assert only_budget("400M", None, has_table=False) == ("400M", "macs")
    assert only_budget(None, "8ms", has_table=True) == ("8ms", "ms")
    for flops, latency in ((None, None), ("400M", "8ms")):
        with pytest.raises(UserError, match="exactly one budget"):
            only_budget(flops, latency, has_table=False)
    with pytest.raises(UserError, match="needs a latency table"):
        only_budget(None, "8ms", has_table=False)


@pytest.mark.parametrize(("amount", "unit"), [(4e8, "macs"), (123_456_789, "macs"), (8, "ms"), (0.125, "ms")])
def test_a_number_is_a_budget_in_its_unit(amount: float, unit: str) -> None:
    budget = parse_budgets(budget_text(amount, unit), unit=unit, tasks=("cls",))["cls"]
    assert (budget.limit, budget.unit) == (pytest.approx(amount, rel=1e-15), unit)
    assert budget_text("1.2G@320x640", unit) == "1.2G@320x640"


@pytest.mark.parametrize("amount", [0, -4e8, math.nan, math.inf])
def test_a_number_that_is_no_budget_is_refused(amount: float) -> None:
    with pytest.raises(UserError, match="is not a positive number with its unit"):
        parse_budgets(budget_text(amount, "macs"), unit="macs", tasks=("cls",))

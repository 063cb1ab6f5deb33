import json
import math
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from export.errors import UserError
from fbnetv5.costs.budgets import (
    Budget,
    TaskBudgets,
    at_least_one_budget,
    budget_label,
    budget_text,
    budget_texts,
    check_has_table,
    family_texts,
    format_cost,
    format_distinct,
    only_budget,
    parse_budgets,
    priced,
    some_budgets,
    unit_words,
    with_memory,
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
    budgets = parse_budgets({unit: text}, tasks=("cls", "det"))
    assert list(budgets) == ["cls", "det"]
    for (budget,), wanted in zip(budgets.values(), expected, strict=True):
        assert budget.limit == pytest.approx(wanted.limit)
        assert (budget.unit, budget.resolution) == (wanted.unit, wanted.resolution)


@pytest.mark.parametrize(("text", "message"), BAD_BUDGETS.values(), ids=BAD_BUDGETS)
def test_invalid_budgets_are_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_budgets({"macs": text}, tasks=("cls", "det"))
    assert message in str(caught.value)


def test_multiply_adds_are_no_time() -> None:
    with pytest.raises(UserError, match=r"budget '400M' is not a positive number with its unit, such as 8ms"):
        parse_budgets({"ms": "400M"}, tasks=("cls",))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(398.21e6, "macs", "398.2M"), (7.912, "ms", "7.91 ms"), (1234.0, "ms", "1230 ms"), (0.01234, "ms", "0.0123 ms")],
)
def test_costs_are_written_with_their_unit(value: float, unit: str, text: str) -> None:
    assert format_cost(value, unit) == text


def test_different_costs_have_different_texts() -> None:
    assert format_distinct([400e6, 400.04e6], "macs") == ["400.00M", "400.04M"]
    assert format_distinct([1e4, 4e6], "params") == ["0.01M", "4.00M"]
    assert format_distinct([7.0, 8.0, 7.0], "ms") == ["7 ms", "8 ms", "7 ms"]


DOCUMENT: dict[str, Any] = {"limit": 400000000, "unit": "macs", "resolution": [320, 640]}


def test_a_budget_is_loaded_from_json() -> None:
    budget = Budget(limit=4e8, unit="macs", resolution=(320, 640))
    assert Budget(**DOCUMENT) == Budget(**json.loads(json.dumps(budget.to_json()))) == budget


@pytest.mark.parametrize("wrong", [{"limit": 0.0}, {"limit": math.inf}, {"unit": "J"}, {"resolution": [320]}], ids=str)
def test_an_invalid_budget_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"budget: {next(iter(wrong))}"):
        Budget(**{**DOCUMENT, **wrong})


def test_a_budget_without_a_size_has_the_given_resolution() -> None:
    texts, tasks = {"macs": "det=1G@320x640,400M"}, ("cls", "det")
    budgets = parse_budgets(texts, tasks=tasks, resolutions={"cls": (64, 64), "det": (32, 32)})
    assert [budgets[task][0].resolution for task in tasks] == [(64, 64), (320, 640)]


def test_budgets_that_hold_together_have_one_resolution() -> None:
    texts = {"macs": "40M@64x96", "ms": "8ms", "params": "5M"}
    assert parse_budgets(texts, tasks=("cls",))["cls"] == (
        Budget(limit=40e6, unit="macs", resolution=(64, 96)),
        Budget(limit=8.0, unit="ms", resolution=(64, 96)),
        Budget(limit=5e6, unit="params", resolution=(64, 96)),
    )
    same = parse_budgets({"macs": "1M@64", "params": "1M@64x64"}, tasks=("cls",))["cls"]
    assert [budget.resolution for budget in same] == [(64, 64)] * 2


def test_each_task_has_the_budgets_that_name_it_or_no_task() -> None:
    budgets = parse_budgets({"macs": "cls=1M@64,det=2M", "params": "seg=3M,4M"}, tasks=("cls", "det", "seg"))
    limits = {task: [(budget.unit, budget.limit) for budget in own] for task, own in budgets.items()}
    assert limits == {
        "cls": [("macs", 1e6), ("params", 4e6)],
        "det": [("macs", 2e6), ("params", 4e6)],
        "seg": [("params", 3e6)],
    }
    assert [own[-1].resolution for own in budgets.values()] == [(64, 64), (224, 224), (224, 224)]


WRONG_TOGETHER = {
    "two resolutions": ({"macs": "40M@64x64", "params": "5M@96x96"}, "for one resolution, not for 64x64 and 96x96"),
    "parameters in seconds": ({"params": "5ms"}, "budget '5ms' is not a positive number with its unit, such as 5M par"),
    "an unknown task": ({"macs": "cls=40M", "params": "det=1M,1M"}, "this run has no task 'det'; it has: cls, seg"),
    "odd resolution": ({"macs": "40M@60x60"}, "multiples of 32"),
    "the second unit twice": ({"macs": "40M", "params": "cls=1M,cls=2M"}, "budget 'cls=1M,cls=2M' sets cls twice"),
    "a task without any": ({"macs": "cls=4M", "ms": "cls=4ms"}, "budget 'cls=4M' and 'cls=4ms' leaves out seg"),
    "none": ({}, "leaves out cls, seg"),
}


@pytest.mark.parametrize(("texts", "message"), WRONG_TOGETHER.values(), ids=WRONG_TOGETHER)
def test_wrong_budgets_that_hold_together_are_refused(texts: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_budgets(texts, tasks=("cls", "seg"))


def test_in_a_file_one_budget_is_an_object_and_several_are_a_list() -> None:
    adapter = TypeAdapter(TaskBudgets)
    one, several = (MACS_400,), (MACS_400, Budget(limit=8.0, unit="ms"))
    assert adapter.dump_python(one, mode="json") == MACS_400.to_json()
    assert adapter.dump_python(several, mode="json") == [budget.to_json() for budget in several]
    for budgets in (one, several):
        assert adapter.validate_python(json.loads(adapter.dump_json(budgets))) == budgets


def test_parameters_are_written_in_millions() -> None:
    assert format_cost(5.04e6, "params") == "5.0M"
    assert format_distinct([5.04e6, 5.05e6], "params") == ["5.04M", "5.05M"]


def test_the_only_budget_has_a_unit_and_a_latency_needs_a_table() -> None:
    assert only_budget("400M", None, has_table=False) == {"macs": "400M"}
    assert only_budget(None, "8ms", has_table=True) == {"ms": "8ms"}
    for flops, latency in ((None, None), ("400M", "8ms")):
        with pytest.raises(UserError, match="exactly one budget"):
            only_budget(flops, latency, has_table=False)
    with pytest.raises(UserError, match="needs a latency table"):
        only_budget(None, "8ms", has_table=False)


def test_texts_of_budgets_are_by_unit_and_a_latency_needs_a_table() -> None:
    assert budget_texts(4e8, None, "5M") == {"macs": "400M", "params": "5M"}
    assert budget_texts(None, 8, None) == {"ms": "8ms"}
    check_has_table({"macs": "400M"}, has_table=False)
    with pytest.raises(UserError, match="--latency needs a latency table"):
        check_has_table({"macs": "400M", "ms": "8ms"}, has_table=False)


def test_a_number_of_numpy_is_one_budget() -> None:
    amount: Any = np.int64(400_000_000)
    assert family_texts(amount, None, None) == [{"macs": "400M"}]
    assert family_texts(list(np.array([2, 3]) * 10**8), None, None) == [{"macs": "200M"}, {"macs": "300M"}]


def test_a_repeated_budget_makes_a_family() -> None:
    assert family_texts(["200M", 4e8], None, "5M") == [
        {"macs": "200M", "params": "5M"},
        {"macs": "400M", "params": "5M"},
    ]
    assert family_texts(["200M"], [], None) == family_texts("200M", None, None) == [{"macs": "200M"}]
    for wrong, message in (
        (
            (["1M", "2M"], ["1ms", "2ms"], None),
            "repeat one of --flops, --latency, --params, --cost and --memory, not two",
        ),
        ((["1M", "2M", "1M"], None, None), "the budget 1M is repeated"),
        (([], None, None), "this needs a budget"),
    ):
        with pytest.raises(UserError, match=message):
            family_texts(*wrong)


def test_budgets_have_a_name_for_a_folder() -> None:
    assert budget_label(at_least_one_budget("700M", None, None)) == "700M"
    assert budget_label(at_least_one_budget("700M ", 8, 5e6)) == "700M+8ms+5M-params"
    with pytest.raises(UserError, match="this needs a budget: --flops, such as 400M"):
        at_least_one_budget(None, None, None)


@pytest.mark.parametrize(
    ("amount", "unit"), [(4e8, "macs"), (123_456_789, "macs"), (8, "ms"), (0.125, "ms"), (5e6, "params")]
)
def test_a_number_is_a_budget_in_its_unit(amount: float, unit: str) -> None:
    (budget,) = parse_budgets({unit: budget_text(amount, unit)}, tasks=("cls",))["cls"]
    assert budget.limit == pytest.approx(amount, rel=1e-15)
    assert budget.unit == unit
    assert budget_text("1.2G@320x640", unit) == "1.2G@320x640"


@pytest.mark.parametrize("amount", [0, -4e8, math.nan, math.inf])
def test_a_number_that_is_no_budget_is_refused(amount: float) -> None:
    with pytest.raises(UserError, match="is not a positive number with its unit"):
        parse_budgets({"macs": budget_text(amount, "macs")}, tasks=("cls",))


OF_ENERGY = {"5": 5.0, "5mJ": 5.0, "1.5e-3 mJ": 0.0015}


@pytest.mark.parametrize(("text", "limit"), OF_ENERGY.items(), ids=OF_ENERGY)
def test_a_budget_of_a_cost_file_is_in_the_unit_of_the_file(text: str, limit: float) -> None:
    budgets = parse_budgets({"energy_mJ": f"det={text}@64x96,7"}, tasks=("cls", "det"))
    assert budgets["det"] == (Budget(limit=limit, unit="energy_mJ", resolution=(64, 96)),)
    assert budgets["cls"] == (Budget(limit=7.0, unit="energy_mJ"),)


@pytest.mark.parametrize("text", ["5J", "5M", "-5", "0", "mJ", "5.mJ", "", "nan"])
def test_another_unit_than_that_of_the_file_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="of energy is not a positive number with its unit, such as 5mJ"):
        parse_budgets({"energy_mJ": text}, tasks=("cls",))


def test_costs_of_files_are_written_with_their_unit_and_name() -> None:
    assert format_cost(4.2031, "energy_mJ") + unit_words("energy_mJ") == "4.2 mJ of energy"
    assert [unit_words(unit) for unit in ("macs", "params", "ms")] == [" multiply-adds", " parameters", ""]
    texts = family_texts("400M", None, None, {"energy_mJ": [3, "4mJ"], "traffic_MB": "9"})
    assert [budget_label(each) for each in texts] == ["400M+3mJ-energy+9-traffic", "400M+4mJ-energy+9-traffic"]
    with pytest.raises(UserError, match="repeat one of --flops, --latency, --params, --cost and --memory, not two"):
        family_texts(None, None, ["1M", "2M"], {"energy_mJ": [3, 4]})


@pytest.mark.parametrize(
    ("text", "limit"), [("8MB", 8e6), ("1.5 GB", 1.5e9), ("512KiB", 512 * 1024), ("2MiB", 2 << 20)]
)
def test_a_budget_of_memory_is_in_bytes(text: str, limit: float) -> None:
    (of_macs, of_memory) = parse_budgets({"macs": "4M@64", "bytes": f"cls={text},9GB"}, tasks=("cls",))["cls"]
    assert of_memory == Budget(limit=limit, unit="bytes", resolution=(64, 64))
    assert priced((of_macs, of_memory)) == (of_macs,)


@pytest.mark.parametrize("text", ["8", "8M", "8mb", "-1MB", "0MB", "MB", "8 TB"])
def test_memory_without_a_unit_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a positive number with its unit, such as 8MB"):
        parse_budgets({"macs": "4M", "bytes": text}, tasks=("cls",))


def test_memory_alone_is_no_budget() -> None:
    with pytest.raises(UserError, match="--memory only limits what another budget allows"):
        family_texts(None, None, None, with_memory({}, "8MB"))
    assert some_budgets(None, None, None, with_memory({}, None)) == {}
    assert budget_texts("4M", None, None, with_memory({}, 8e6)) == {"macs": "4M", "bytes": "8MB"}
    with pytest.raises(UserError, match="leaves out cls"):
        parse_budgets({"macs": "det=4M", "bytes": "8MB"}, tasks=("cls", "det"))


def test_memory_is_written_in_megabytes() -> None:
    assert format_cost(6422528, "bytes") + unit_words("bytes") == "6.42 MB of activations"
    assert format_distinct([524288, 524000], "bytes") == ["0.5243 MB", "0.524 MB"]

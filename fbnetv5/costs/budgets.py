"""Budgets: the maximum cost of a deployed network, how a user writes it, and how costs are printed."""

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Annotated, ClassVar, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, Strict, WrapSerializer

from export.document import Document
from export.errors import UserError
from fbnetv5.data.resolution import DEPLOY_RESOLUTION, Resolution, parse_resolution

NAME_OF_QUANTITY = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,30}", re.ASCII)
"""What a cost file may call its quantity."""
UNIT_OF_QUANTITY = re.compile(r"[^\W\d_][^\W_]{0,11}")
"""What a cost file may call its unit."""


def quantity_of(unit: str) -> tuple[str, str] | None:
    """The quantity and its unit, such as ("energy", "mJ"), of a unit that a cost file defines; None for other units.

    The unit of such a cost, in budgets, histories and ``pareto.json``, is both in one name: "energy_mJ".
    """
    name, underscore, of_quantity = unit.partition("_")
    defined = underscore and NAME_OF_QUANTITY.fullmatch(name) and UNIT_OF_QUANTITY.fullmatch(of_quantity)
    return (name, of_quantity) if defined else None


MEMORY = "bytes"
"""Unit of the budget of peak activation memory, which is no sum over blocks and therefore a limit without a price."""


def _check_unit(unit: str) -> str:
    if unit not in ("macs", "params", "ms", MEMORY) and quantity_of(unit) is None:
        raise ValueError("must be 'macs', 'params', 'ms', 'bytes', or of a cost file, such as 'energy_mJ'")
    return unit


class Budget(Document):
    """The maximum cost of a task's deployed network, at a resolution."""

    title: ClassVar[str] = "budget"
    limit: Annotated[float, Field(gt=0.0)]
    """Maximum cost, in ``unit``."""
    unit: Annotated[str, AfterValidator(_check_unit)]
    """"macs", "params", "ms" or "bytes"; or the quantity and unit of a cost file, such as "energy_mJ"."""
    resolution: Annotated[tuple[int, int], Strict(False)] = DEPLOY_RESOLUTION
    """(height, width) of the deployed network's images."""


TaskBudgets = Annotated[
    tuple[Budget, ...],
    Strict(False),
    Field(min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, Budget | dict) else value),
    WrapSerializer(lambda budgets, serialize: serialize(budgets)[0] if len(budgets) == 1 else serialize(budgets)),
]
"""Budgets of one task that hold together, each in a unit of its own. In a file a single budget is not in a list."""

BUDGET_WINDOW = (0.85, 1.0)
"""Minimum and maximum cost of a derived network, as shares of its budget."""
AIMED_SHARE_OF_BUDGET = 0.95
"""Expected cost that policies are set to, as a share of the budget: inside ``BUDGET_WINDOW``, with room for the spread
of single draws."""

T = TypeVar("T")
Repeatable = str | float | Sequence[str | float]
"""An amount, or one per member of a family."""
_MACS = {"K": 1e3, "M": 1e6, "G": 1e9}
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[KMG]|ms|us|s)", re.ASCII)
_AMOUNT_OF_QUANTITY = re.compile(r"(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?) ?(?P<unit>\D.*)?", re.ASCII)
_BYTES = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[KMG])(?P<binary>i?)B", re.ASCII)
NO_COSTS: Mapping[str, str | float] = MappingProxyType({})


def budget_text(amount: str | float, unit: str) -> str:
    """A budget as text: text as it is, and a number in ``unit`` with its unit, such as "400M" for 4e8 multiply-adds."""
    if isinstance(amount, str):
        return amount
    if (quantity := quantity_of(unit)) is not None:
        return f"{amount:.15g}{quantity[1]}"
    if unit == MEMORY:
        return f"{amount / 1e6:.15g}MB"
    return f"{amount:.15g}ms" if unit == "ms" else f"{amount / 1e6:.15g}M"


def budget_texts(
    flops: str | float | None,
    latency: str | float | None,
    params: str | float | None = None,
    costs: Mapping[str, str | float | None] = NO_COSTS,
) -> dict[str, str]:
    """The texts of the budgets that options name, by unit: "macs", "ms", "params" or those of ``costs``.

    ``costs`` also has the limit of memory, whose unit is ``MEMORY``.
    """
    amounts = {"macs": flops, "ms": latency, "params": params, **costs}
    return {unit: budget_text(amount, unit) for unit, amount in amounts.items() if amount is not None}


def some_budgets(
    flops: str | float | None,
    latency: str | float | None,
    params: str | float | None,
    costs: Mapping[str, str | float | None] = NO_COSTS,
) -> dict[str, str]:
    """The texts of ``budget_texts``; there may be none.

    Raises:
        UserError: memory is the only budget.
    """
    texts = budget_texts(flops, latency, params, costs)
    if texts.keys() == {MEMORY}:
        raise UserError("--memory only limits what another budget allows: add one, such as --flops 400M")
    return texts


def with_memory(limits: Mapping[str, T], memory: T | None) -> dict[str, T]:
    """Budgets by unit, with that of memory if there is one."""
    return {**limits, **({} if memory is None else {MEMORY: memory})}


def family_texts(
    flops: Repeatable | None,
    latency: Repeatable | None,
    params: Repeatable | None,
    costs: Mapping[str, Repeatable] = NO_COSTS,
) -> list[dict[str, str]]:
    """The texts of every member of a family: one option has a value per member, the others hold for all.

    Raises:
        UserError: there is no budget, two options have several values, or a value is repeated.
    """
    options = (flops, latency, params, *costs.values())
    several = [option for option in options if option is not None and not isinstance(option, str | float | Real)]
    values = [list(option) for option in several if len(option) > 1]
    if len(values) > 1:
        raise UserError(
            "a family has one repeated budget: repeat one of --flops, --latency, --params, --cost and --memory, not two"
        )
    if values and (twice := [value for value in values[0] if values[0].count(value) > 1]):
        raise UserError(f"the budget {twice[0]} is repeated: give each member of a family once")

    def of_member(option: Repeatable | None, number: int) -> str | float | None:
        if option is None or isinstance(option, str | float | Real):  # also a number of NumPy
            return option
        return option[min(number, len(option) - 1)] if len(option) else None

    def texts_of(number: int) -> dict[str, str]:
        named = [of_member(option, number) for option in (flops, latency, params)]
        of_files = {unit: of_member(option, number) for unit, option in costs.items()}
        return at_least_one_budget(named[0], named[1], named[2], of_files)

    return [texts_of(number) for number in range(len(values[0]) if values else 1)]


def budget_label(texts: Mapping[str, str]) -> str:
    """Budgets by unit in one name: "700M", or "700M+8ms+5M-params+3mJ-energy"."""

    def label(unit: str, text: str) -> str:
        quantity = quantity_of(unit)
        suffix = "-params" if unit == "params" else "" if quantity is None else f"-{quantity[0]}"
        return f"{text.strip()}{suffix}"

    return "+".join(label(unit, text) for unit, text in texts.items())


def at_least_one_budget(
    flops: str | float | None,
    latency: str | float | None,
    params: str | float | None,
    costs: Mapping[str, str | float | None] = NO_COSTS,
) -> dict[str, str]:
    """The texts of ``budget_texts``.

    Raises:
        UserError: there is no budget.
    """
    if texts := some_budgets(flops, latency, params, costs):
        return texts
    raise UserError(
        "this needs a budget: --flops, such as 400M, --latency, such as 8ms, or --params, such as 5M; or that of a "
        "cost file, --cost FILE=BUDGET"
    )


def only_budget(flops: str | float | None, latency: str | float | None, *, has_table: bool) -> dict[str, str]:
    """The text of the only budget of a search with or without a latency table, by its unit, "macs" or "ms".

    Raises:
        UserError: there is no budget, or two, or a latency without a latency table.
    """
    texts = budget_texts(flops, latency)
    if len(texts) != 1:
        raise UserError("this needs exactly one budget: either --flops, such as 400M, or --latency, such as 8ms")
    check_has_table(texts, has_table=has_table)
    return texts


def check_has_table(texts: Mapping[str, str], *, has_table: bool) -> None:
    """Raise UserError for a latency among budgets by unit, without a latency table.

    Raises:
        UserError: there is no table.
    """
    if "ms" in texts and not has_table:
        raise UserError("--latency needs a latency table: add --device cpu, or --table FILE")


def parse_budgets(
    texts: Mapping[str, str], *, tasks: Sequence[str], resolutions: Mapping[str, Resolution] | None = None
) -> dict[str, tuple[Budget, ...]]:
    """Budgets per task that hold together, from a text by unit, such as {"macs": "det=1.2G@320x640,400M", "ms": "8ms"}.

    A part without a task's name holds for every task that the text does not name. ``@HxW`` sets the deploy resolution
    of all budgets of a task, which is that of ``resolutions`` otherwise, or 224x224.

    Raises:
        UserError: a part cannot be parsed, names an unknown task, or a task is left without a budget or with two
            resolutions.
    """
    parsed = {unit: _parse_parts(text, unit, tasks) for unit, text in texts.items()}
    with_price = [budgets for unit, budgets in parsed.items() if unit != MEMORY]
    missing = [task for task in tasks if not any(task in budgets for budgets in with_price)]
    if missing:
        shown = " and ".join(map(repr, texts.values()))
        raise UserError(f"budget {shown} leaves out {', '.join(missing)}; add a part without a name for the others")
    budgets = {}
    for task in tasks:
        of_task = [of_unit[task] for of_unit in parsed.values() if task in of_unit]
        sizes = list(dict.fromkeys(resolution for _, resolution in of_task if resolution is not None))
        if len(sizes) > 1:
            different = " and ".join("x".join(map(str, size)) for size in sizes)
            raise UserError(f"budgets that hold together are for one resolution, not for {different}")
        resolution = sizes[0] if sizes else (resolutions or {}).get(task, DEPLOY_RESOLUTION)
        budgets[task] = tuple(budget.changed(resolution=resolution) for budget, _ in of_task)
    return budgets


def _parse_parts(text: str, unit: str, tasks: Sequence[str]) -> dict[str, tuple[Budget, Resolution | None]]:
    """By task: the budget of a text in one unit, and its resolution if the text names one."""
    parts: dict[str, tuple[Budget, Resolution | None]] = {}
    for part in text.split(","):
        name, equals, amount = part.strip().rpartition("=")
        if equals and name not in tasks:
            raise UserError(f"budget {part.strip()!r}: this run has no task {name!r}; it has: {', '.join(tasks)}")
        budget = parse_budget(amount, unit)
        if name in parts:
            raise UserError(f"budget {text!r} sets {name or 'the default'} twice")
        parts[name] = budget
    if (default := parts.pop("", None)) is not None:
        return dict.fromkeys(tasks, default) | parts
    return parts


def parse_budget(text: str, unit: str) -> tuple[Budget, Resolution | None]:
    """A budget, and its resolution if the text names one.

    Args:
        text: such as "400M", "1.2G@320x640" or "8ms".
        unit: of ``Budget.unit``.

    Raises:
        UserError: it is not a positive number with its unit, or the resolution is none.
    """
    amount, at_sign, size = text.partition("@")
    limit = _parse_amount(amount.strip(), unit)
    if not limit:
        quantity = quantity_of(unit)
        examples = {"macs": "400M or 1.2G multiply-adds", "params": "5M parameters", "ms": "8ms", MEMORY: "8MB"}
        example = examples.get(unit)
        whose, example = ("", example) if quantity is None else (f" of {quantity[0]}", f"5{quantity[1]}")
        raise UserError(f"budget {text!r}{whose} is not a positive number with its unit, such as {example}")
    return Budget(limit=limit, unit=unit), parse_resolution(size) if at_sign else None


def _parse_amount(text: str, unit: str) -> float | None:
    """An amount in ``unit``; None if the text is no number or in another unit."""
    if (quantity := quantity_of(unit)) is not None:
        number = _AMOUNT_OF_QUANTITY.fullmatch(text)
        return float(number["number"]) if number and number["unit"] in (None, quantity[1]) else None
    if unit == MEMORY:
        return _bytes(text)
    match = _AMOUNT.fullmatch(text)
    if not match or (unit != "ms") != (match["unit"] in _MACS):
        return None
    scale = _MACS[match["unit"]] if unit != "ms" else {"ms": 1.0, "us": 1e-3, "s": 1e3}[match["unit"]]
    return float(match["number"]) * scale


def _bytes(text: str) -> float | None:
    if (match := _BYTES.fullmatch(text)) is None:
        return None
    step = 1024.0 if match["binary"] else 1000.0
    return float(match["number"]) * math.pow(step, 1 + "KMG".index(match["unit"]))


def unit_words(unit: str) -> str:
    """What is appended to a cost of ``format_cost`` in a sentence, such as " multiply-adds" or " of energy"."""
    if (quantity := quantity_of(unit)) is not None:
        return f" of {quantity[0]}"
    return {"macs": " multiply-adds", "params": " parameters", MEMORY: " of activations"}.get(unit, "")


def format_cost(value: float, unit: str, *, extra_digits: int = 0) -> str:
    """A cost as text, such as "398.2M", "7.91 ms", "7.91 estimated ms" or "4.2 mJ", with ``extra_digits`` more."""
    quantity = quantity_of(unit)
    if unit == MEMORY:
        value, quantity = value / 1e6, ("memory", "MB")
    if quantity is not None or unit.split()[-1] == "ms":
        return f"{float(f'{value:.{3 + extra_digits}g}'):.15g} {unit if quantity is None else quantity[1]}"
    return f"{value / 1e6:.{1 + extra_digits}f}M"


def priced(budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    """The budgets of costs that are sums over blocks: all but that of memory."""
    return tuple(budget for budget in budgets if budget.unit != MEMORY)


def format_distinct(values: Sequence[float], unit: str) -> list[str]:
    """Costs as texts with as many digits as are needed for different costs to differ, and small ones from 0."""
    for extra_digits in range(12):
        texts = [format_cost(value, unit, extra_digits=extra_digits) for value in values]
        vanished = any(value and not text.strip("0.M") for value, text in zip(values, texts, strict=True))
        if len(set(texts)) == len(set(values)) and not vanished:
            break
    return texts

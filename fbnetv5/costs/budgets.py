"""Budgets: the maximum cost of a deployed network, how a user writes it, and how costs are printed."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, Strict

from export.document import Document
from export.errors import UserError
from fbnetv5.data.resolution import DEPLOY_RESOLUTION, Resolution, parse_resolution


class Budget(Document):
    """The maximum cost of a task's deployed network, at a resolution."""

    title: ClassVar[str] = "budget"
    limit: Annotated[float, Field(gt=0.0)]
    """Maximum cost, in ``unit``."""
    unit: Literal["macs", "params", "ms"]
    resolution: Annotated[tuple[int, int], Strict(False)] = DEPLOY_RESOLUTION
    """(height, width) of the deployed network's images."""


BUDGET_WINDOW = (0.85, 1.0)
"""Minimum and maximum cost of a derived network, as shares of its budget."""
AIMED_SHARE_OF_BUDGET = 0.95
"""Expected cost that policies are set to, as a share of the budget: inside ``BUDGET_WINDOW``, with room for the spread
of single draws."""


def in_window(costs: NDArray[np.float64], budget: Budget) -> NDArray[np.bool_]:
    """Whether each cost lies in the budget's window ``BUDGET_WINDOW``."""
    return (costs >= BUDGET_WINDOW[0] * budget.limit) & (costs <= BUDGET_WINDOW[1] * budget.limit)


_MACS = {"K": 1e3, "M": 1e6, "G": 1e9}
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[KMG]|ms|us|s)", re.ASCII)


def budget_text(amount: str | float, unit: str) -> str:
    """A budget as text: text as it is, and a number in ``unit`` with its unit, such as "400M" for 4e8 multiply-adds."""
    if isinstance(amount, str):
        return amount
    return f"{amount:.15g}ms" if unit == "ms" else f"{amount / 1e6:.15g}M"


def one_budget(flops: str | float | None, latency: str | float | None) -> tuple[str, str]:
    """The text and the unit, "macs" or "ms", of the only budget.

    Raises:
        UserError: there is no budget, or two.
    """
    if flops is not None and latency is None:
        return budget_text(flops, "macs"), "macs"
    if latency is None or flops is not None:
        raise UserError("this needs exactly one budget: either --flops, such as 400M, or --latency, such as 8ms")
    return budget_text(latency, "ms"), "ms"


def only_budget(flops: str | float | None, latency: str | float | None, *, has_table: bool) -> tuple[str, str]:
    """The text and the unit, "macs" or "ms", of the only budget of a search with or without a latency table.

    Raises:
        UserError: there is no budget, or two, or a latency without a latency table.
    """
    amount, unit = one_budget(flops, latency)
    if unit == "ms" and not has_table:
        raise UserError("--latency needs a latency table: add --device cpu, or --table FILE")
    return amount, unit


def parse_budgets(
    text: str, *, unit: str, tasks: Sequence[str], resolutions: Mapping[str, Resolution] | None = None
) -> dict[str, Budget]:
    """Budgets per task from "400M", "det=1.2G@320x640,400M" or "8ms".

    A part without a task's name holds for every task not named; ``@HxW`` sets the deploy resolution, which is that of
    ``resolutions`` otherwise, or 224x224.

    Raises:
        UserError: a part cannot be parsed, names an unknown task, or a task is left without a budget.
    """
    amounts: dict[str, str] = {}
    default: str | None = None
    for part in text.split(","):
        name, equals, amount = part.strip().rpartition("=")
        if equals and name not in tasks:
            raise UserError(f"budget {part.strip()!r}: this run has no task {name!r}; it has: {', '.join(tasks)}")
        _parse_budget(amount, unit, DEPLOY_RESOLUTION)  # the first error of a text is that of its first wrong part
        if name in amounts or (not equals and default is not None):
            raise UserError(f"budget {text!r} sets {name or 'the default'} twice")
        if equals:
            amounts[name] = amount
        else:
            default = amount
    if default is not None:
        amounts = dict.fromkeys(tasks, default) | amounts
    missing = [task for task in tasks if task not in amounts]
    if missing:
        raise UserError(f"budget {text!r} leaves out {', '.join(missing)}; add a part without a name for the others")
    sizes = resolutions or {}
    return {task: _parse_budget(amounts[task], unit, sizes.get(task, DEPLOY_RESOLUTION)) for task in tasks}


def parse_constraints(texts: Mapping[str, str]) -> tuple[Budget, ...]:
    """Budgets that hold together, from a text by unit, such as {"macs": "40M@64x64", "params": "5M"}.

    A text without a resolution has that of the others.

    Raises:
        UserError: a text cannot be parsed, or two name different resolutions.
    """
    sizes = [size for text in texts.values() for _, at_sign, size in [text.partition("@")] if at_sign]
    resolutions = list(dict.fromkeys(map(parse_resolution, sizes)))
    if len(resolutions) > 1:
        different = " and ".join("x".join(map(str, resolution)) for resolution in resolutions)
        raise UserError(f"budgets that hold together are for one resolution, not for {different}")
    resolution = resolutions[0] if resolutions else DEPLOY_RESOLUTION
    return tuple(_parse_budget(text, unit, resolution) for unit, text in texts.items())


def _parse_budget(text: str, unit: str, default: Resolution) -> Budget:
    amount, at_sign, size = text.partition("@")
    match = _AMOUNT.fullmatch(amount.strip())
    example = {"macs": "400M or 1.2G multiply-adds", "params": "5M parameters", "ms": "8ms"}[unit]
    if not match or float(match["number"]) == 0 or (unit != "ms") != (match["unit"] in _MACS):
        raise UserError(f"budget {text!r} is not a positive number with its unit, such as {example}")
    scale = _MACS[match["unit"]] if unit != "ms" else {"ms": 1.0, "us": 1e-3, "s": 1e3}[match["unit"]]
    resolution = parse_resolution(size) if at_sign else default
    return Budget(limit=float(match["number"]) * scale, unit=cast("Any", unit), resolution=resolution)


def format_cost(value: float, unit: str, *, extra_digits: int = 0) -> str:
    """A cost as text, such as "398.2M", "7.91 ms" or "7.91 estimated ms", with ``extra_digits`` more digits."""
    if unit.split()[-1] == "ms":
        return f"{float(f'{value:.{3 + extra_digits}g}'):.15g} {unit}"
    return f"{value / 1e6:.{1 + extra_digits}f}M"


def format_distinct(values: Sequence[float], unit: str) -> list[str]:
    """Costs as texts with as many digits as are needed for different costs to differ."""
    for extra_digits in range(12):
        texts = [format_cost(value, unit, extra_digits=extra_digits) for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts

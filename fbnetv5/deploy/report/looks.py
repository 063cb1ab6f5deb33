"""Colours and names that all parts of a page share: a task has the same colour, shape and dashes everywhere."""

from functools import cache
from typing import Any

from fbnetv5.costs.budgets import format_cost, quantity_of
from fbnetv5.tasks import task_types
from fbnetv5.tasks.task import MetricInfo
from latency.page.plots import colour, dash, symbol

METHODS = {
    "search": "search for a network per task",
    "later-task": "task added to a finished search",
    "branch": "search for one branched network",
    "nars": "search for an architecture and a recipe",
    "training": "training",
    "derivation": "network of another budget",
    "label": "labelled data set",
}
"""By kind of a run: what it is, for headings."""


@cache
def _order() -> tuple[str, ...]:
    return tuple(task_types())


def look(task: str) -> int:
    """The number of a task's colour and shape, the same on all pages."""
    order = _order()
    return order.index(task) if task in order else len(order)


def line(task: str, **settings: Any) -> dict[str, Any]:
    """The line of a task's series."""
    return {"color": colour(look(task)), "dash": dash(look(task)), "width": 2, **settings}


def marker(task: str, **settings: Any) -> dict[str, Any]:
    """The points of a task's series."""
    return {"color": colour(look(task)), "symbol": symbol(look(task)), "size": 8, **settings}


def metric_of(task: str) -> MetricInfo:
    """The metric that searches and trainings optimise."""
    return task_types()[task].metric


def unit_text(unit: str) -> str:
    """A cost's unit, for axes."""
    if (quantity := quantity_of(unit)) is not None:
        return " in ".join(quantity)
    return {"macs": "multiply-adds", "params": "parameters", "ms": "predicted latency in ms"}.get(unit, unit)


def cost_text(value: float, unit: str) -> str:
    """A cost with its unit."""
    return format_cost(value, unit)


def scaled(cost: float, unit: str) -> float:
    """A cost in the unit of ``axis_label``."""
    return cost / 1e6 if _in_millions(unit) else cost


def axis_label(unit: str) -> str:
    """The title of an axis of costs."""
    return f"{unit_text(unit)}, millions" if _in_millions(unit) else unit_text(unit)


def _in_millions(unit: str) -> bool:
    return unit.split()[-1] != "ms" and quantity_of(unit) is None

"""The networks that a search chooses from, as a user names them: a space and budgets, or one architecture file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.costs.budgets import Budget, parse_budgets
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.stages import StageSpace


def searched_networks(
    task: str, budgets: Mapping[str, str], *, arch: Path | None, space: str, width: float
) -> dict[str, Any]:
    """The fields ``space``, ``fixed`` and ``budgets`` of ``NarsConfig``.

    Args:
        task: of the network.
        budgets: texts by unit, such as {"macs": "40M@64x64"}; without any, an architecture's own cost is its budget.
            One without a resolution is for that of the architecture.
        arch: architecture file, if its recipe alone is searched.
        space: name of the space otherwise: "stages" or "four-path".
        width: factor of the widths of "stages".

    Raises:
        UserError: an option is wrong, or the file is refused.
    """
    if arch is not None and (space, width) != ("stages", 1.0):
        raise UserError("--arch names the only architecture: leave out --space and --width")
    fields: dict[str, Any] = {"space": _space(space, width)} if arch is None else _only_architecture(arch, task)
    if not budgets:
        return fields
    resolutions = {} if arch is None else {"network": fields["budgets"][0].resolution}
    return {**fields, "budgets": parse_budgets(budgets, tasks=("network",), resolutions=resolutions)["network"]}


def _space(name: str, width: float) -> Space:
    if name == "stages":
        return StageSpace(width=width)
    if name != "four-path":
        raise UserError(f"unknown space {name!r}; there are: stages, four-path")
    if width != 1.0:
        raise UserError("--width is for the space of stages")
    return FourPathSpace()


def _only_architecture(file: Path, task: str) -> dict[str, Any]:
    """The space, the choices and the cost, as its budget, of an architecture file, whose network must be of the task.

    Raises:
        UserError: the file is refused, or of another task.
    """
    architecture = load_architecture(file)
    if architecture.task != task:
        raise UserError(f"{file} is a network for {architecture.task}: add --task {architecture.task}")
    budget = Budget(limit=float(architecture.cost.macs), unit="macs", resolution=architecture.resolution)
    return {"space": architecture.space, "fixed": architecture.choices[task], "budgets": (budget,)}

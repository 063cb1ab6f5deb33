"""Cost files: the cost of every block in a quantity that the user measured or computed, such as energy in mJ.

A cost file has a value per block and head, by the keys of latency tables. The cost of a network is the sum over its
live blocks and its head, as for multiply-adds: the quantity must be additive, and a value must hold for one image at
the deploy resolution that its key names. Nothing is ever guessed: a block without a value is an error.

File: {"schema": 1, "kind": "cost", "name": "energy", "unit": "mJ", "values": {"stem_c16@224x224": 0.31, ...}}. A value
is null until it is filled in. ``fbnetv5 space --cost-template`` writes the keys of a space.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from export.document import Document
from export.errors import UserError
from export.files import check_schema, read_json_object, write_json
from fbnetv5.costs.budgets import NAME_OF_QUANTITY, UNIT_OF_QUANTITY, with_memory
from fbnetv5.costs.tables import CostTable, keyed_table, table_keys
from fbnetv5.data.resolution import Resolution
from fbnetv5.spaces.space import Space
from fbnetv5.tasks.task import Task

SCHEMA = 1
KIND = "cost"
SHOWN = 3
"""Number of keys that an error names."""


def _check_name(name: str) -> str:
    if not NAME_OF_QUANTITY.fullmatch(name):
        raise ValueError("must be up to 31 letters, digits and hyphens, such as 'energy' or 'memory-traffic'")
    return name


def _check_unit(unit: str) -> str:
    if not UNIT_OF_QUANTITY.fullmatch(unit):
        raise ValueError("must be up to 12 letters and digits, such as 'mJ' or 'MB'")
    return unit


def _check_values(values: Any) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"values must be an object with a number per key, not {type(values).__name__}")
    if wrong := [key for key, value in values.items() if not (value is None or _is_cost(value))]:
        first = ", ".join(f"{key}: {values[key]!r}" for key in wrong[:SHOWN])
        raise UserError(f"{len(wrong)} of {len(values)} values are no finite numbers of 0 or more, first: {first}")
    return values


def _is_cost(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


class CostFile(Document):
    """The values of one quantity."""

    title: ClassVar[str] = "cost file"
    name: Annotated[str, AfterValidator(_check_name)]
    """The quantity, such as "energy"."""
    unit: Annotated[str, AfterValidator(_check_unit)]
    """Unit of the values, such as "mJ"."""
    values: Annotated[dict[str, Annotated[float, Field(ge=0.0)] | None], BeforeValidator(_check_values)]
    """Value of each block and head for one image, by its key with resolution; null until it is filled in."""

    @property
    def key(self) -> str:
        """The unit of the budgets of this cost, such as "energy_mJ"."""
        return f"{self.name}_{self.unit}"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a cost file.

        Raises:
            UserError: it is missing, damaged, of another kind, or has a value that is no cost.
        """
        document = _read(path)
        if empty := [field for field in ("name", "unit") if document.get(field) is None]:
            raise UserError(f'cost file {path} has no {" and no ".join(empty)}: fill in, such as "energy" and "mJ"')
        try:
            return cls(**{name: value for name, value in document.items() if name not in ("schema", "kind")})
        except UserError as error:
            raise UserError(f"cost file {path} is refused: {error}") from None

    @classmethod
    def schema_of_files(cls) -> dict[str, Any]:
        """The JSON Schema of the file, for editors."""
        header = {"schema": {"const": SCHEMA}, "kind": {"const": KIND}}
        schema = cls.model_json_schema()
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **schema,
            "title": "cost file of --cost",
            "properties": header | schema["properties"],
            "required": [*header, *schema["required"]],
        }

    def values_of(self, keys: Iterable[str]) -> dict[str, float]:
        """The value of each of ``keys``.

        Raises:
            UserError: a key has no value.
        """
        values = {key: self.values.get(key) for key in keys}
        if missing := [key for key, value in values.items() if value is None]:
            raise UserError(
                f"the cost file of {self.name} has no value for {len(missing)} of the {len(values)} blocks and heads "
                f"of the networks, first: {', '.join(missing[:SHOWN])}. Fill them in; fbnetv5 space --cost-template "
                "FILE, with the space, resolution, tasks and images of the search, adds its keys to the file"
            )
        return {key: value for key, value in values.items() if value is not None}


CostFiles = Annotated[tuple[CostFile, ...], Strict(False)]


def _read(path: Path) -> dict[str, Any]:
    document = read_json_object(path, what="cost")
    if (kind := document.get("kind")) != KIND:
        raise UserError(f"{path} is no cost file: its kind is {kind!r}, not {KIND!r}")
    check_schema(document, path, what="cost", schema=SCHEMA)
    return document


def file_table(space: Space, task: Task, resolution: Resolution, cost: CostFile) -> CostTable:
    """The task's table of a cost file.

    Raises:
        UserError: a block of the space, or a head of the task, has no value.
    """
    cost.values_of(table_keys(space, task, resolution))
    return keyed_table(space, task, resolution, cost.values_of, unit=cost.key)


def unused_text(cost: CostFile, space: Space, tasks: Iterable[tuple[Task, Resolution]]) -> str:
    """A line on the keys that no network of these tasks at these resolutions has; empty if there is none."""
    used = {key for task, resolution in tasks for key in table_keys(space, task, resolution)}
    if not (unused := [key for key in cost.values if key not in used]):
        return ""
    first = ", ".join(unused[:SHOWN])
    return f"{len(unused)} keys of the cost file of {cost.name} are of no block of this search and not used: {first}"


def write_template(path: Path, space: Space, tasks: Iterable[Task], resolution: Resolution) -> list[str]:
    """Write a cost file with every key of a space, or add those that an existing file lacks; their value is null.

    Returns:
        The keys that have no value yet.

    Raises:
        UserError: the file that exists is no cost file, or the file cannot be written.
    """
    new: dict[str, Any] = {"schema": SCHEMA, "kind": KIND, "name": None, "unit": None, "values": {}}
    document = _read(path) if path.exists() else new
    try:
        _check_values(document.get("values"))
    except UserError as error:
        raise UserError(f"cost file {path} is refused: {error}") from None
    keys = [key for task in tasks for key in table_keys(space, task, resolution)]
    document["values"] |= dict.fromkeys(key for key in keys if key not in document["values"])
    write_json(path, document)
    return [key for key, value in document["values"].items() if value is None]


def open_costs(
    budgets: Mapping[Any, Any] | None, of_run: Sequence[CostFile] = (), *, memory: Any = None
) -> tuple[tuple[CostFile, ...], dict[str, Any]]:
    """The cost files of budgets, and the budgets by the unit that each file defines, with that of memory.

    Args:
        budgets: by the path of a file, or by the name of a cost in ``of_run``.
        of_run: costs of the run that networks are derived from.
        memory: the budget of memory; None if there is none.

    Raises:
        UserError: a file is missing or refused, or two files define the same quantity.
    """
    costs: dict[str, CostFile] = {}
    by_unit: dict[str, Any] = {}
    for path, amount in (budgets or {}).items():
        cost = _open(Path(path), {cost.name: cost for cost in of_run})
        if cost.name in costs:
            raise UserError(f"{path} is a second cost file of {cost.name}: name each quantity differently")
        costs[cost.name] = cost
        by_unit[cost.key] = amount
    return tuple(costs.values()), with_memory(by_unit, memory)


def _open(path: Path, of_run: Mapping[str, CostFile]) -> CostFile:
    if path.is_file() or not of_run:
        return CostFile.load(path)
    if str(path) not in of_run:
        raise UserError(f"{path} is neither a cost file nor a cost of the run, which has: {', '.join(of_run)}")
    return of_run[str(path)]

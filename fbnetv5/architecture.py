"""The architecture file: everything that rebuilds one task's network, and nothing that is not checked on reading."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import UserError
from export.files import read_json, write_json
from fbnetv5.costs.tables import Counter
from fbnetv5.data.resolution import Resolution, check_resolution
from fbnetv5.networks.backbone import TaskNetwork
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks import make_tasks
from fbnetv5.tasks.task import ClassNames, Task

SCHEMA = 2
OLD_CLASSES = {"labels": "label", "boxes": "boxes", "masks": "mask"}
"""Names of the targets in schema 1, which listed all three, and what they are called now."""
_FIELDS = {"schema", "space", "task", "classes", "choices", "resolution", "cost", "provenance"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One task's network: one choice per slot of a space, and what it costs when deployed."""

    space: Space
    task: str
    classes: ClassNames
    """Of the targets that the network's run learned from."""
    choices: tuple[int, ...]
    resolution: Resolution
    """Of the deployed network."""
    macs: int
    params: int
    latency_ms: Mapping[str, Any] | None
    """{"value", "table"}: predicted by that table; None where no table was given."""
    provenance: Mapping[str, Any]
    """Where it comes from: version, seed, budget, score."""

    @property
    def latency_text(self) -> str:
        """For people: "8.94 ms", saying so where it is only estimated; "-" where there is none."""
        if self.latency_ms is None:
            return "-"
        estimated = " estimated" if self.latency_ms["table"].endswith("-estimated") else ""
        return f"{self.latency_ms['value']:.2f} ms{estimated}"

    @property
    def choices_array(self) -> Choices:
        """[S]."""
        return np.array(self.choices, dtype=np.int64)

    def make_task(self) -> Task:
        """The task on this architecture's classes."""
        return make_tasks((self.task,), self.classes)[self.task]

    def build(self) -> TaskNetwork:
        """The network, with fresh weights."""
        return TaskNetwork(self.make_task(), self.space, self.choices_array)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The file's document."""
        return {
            "schema": SCHEMA,
            "space": self.space.to_json(),
            "task": self.task,
            "classes": {target: list(names) for target, names in self.classes.items()},
            "choices": list(self.choices),
            "resolution": list(self.resolution),
            "cost": {"macs": self.macs, "params": self.params, "latency_ms": self.latency_ms},
            "provenance": dict(self.provenance),
        }


def load_architecture(path: Path) -> Architecture:
    """Read an architecture file and check that it fits its space and costs what it says.

    Raises:
        UserError: missing, damaged, unfit, or edited so that its cost no longer agrees.
    """
    document = read_json(path, what="architecture", schema=(1, SCHEMA))
    try:
        architecture = _from_json(document)
        _check_cost(architecture)
    except UserError as error:
        raise UserError(f"architecture file {path} is refused: {error}") from None
    return architecture


def _from_json(document: Mapping[str, Any]) -> Architecture:
    if set(document) != _FIELDS:
        wrong = ", ".join(sorted(set(document) ^ _FIELDS))
        raise UserError(f"its fields are not those of an architecture; missing or unknown: {wrong}")
    space = Space.from_json(document["space"])
    if not isinstance(document["choices"], list):
        raise UserError("choices is not a list")
    choices = space.check(document["choices"])
    resolution = document["resolution"]
    if not isinstance(resolution, list) or any(not isinstance(side, int) for side in resolution):
        raise UserError(f"resolution must be [height, width], not {resolution!r}")
    cost = document["cost"]
    if not isinstance(cost, dict) or set(cost) != {"macs", "params", "latency_ms"}:
        raise UserError("cost must hold macs, params and latency_ms")
    if not isinstance(document["task"], str):
        raise UserError(f"task must be a name, not {document['task']!r}")
    if not isinstance(document["provenance"], dict):
        raise UserError("provenance is not an object")
    return Architecture(
        space=space,
        task=document["task"],
        classes=_classes(document["classes"], document["schema"]),
        choices=tuple(int(choice) for choice in choices),
        resolution=check_resolution((*resolution,)),
        macs=_whole(cost, "macs"),
        params=_whole(cost, "params"),
        latency_ms=_latency(cost["latency_ms"]),
        provenance=document["provenance"],
    )


def _whole(cost: Mapping[str, Any], unit: str) -> int:
    value = cost[unit]
    if type(value) is not int:
        raise UserError(f"{unit} must be a whole number, not {value!r}")
    return value


def _latency(document: Any) -> Mapping[str, Any] | None:
    if document is None:
        return None
    if not isinstance(document, dict) or set(document) != {"value", "table"}:
        raise UserError(f"latency_ms must be null or hold value and table, not {document!r}")
    if type(document["value"]) not in (int, float):
        raise UserError(f"latency_ms: value must be a number, not {document['value']!r}")
    return document


def _classes(document: Any, schema: int) -> ClassNames:
    if not isinstance(document, dict):
        raise UserError(f"classes must hold the names of each target's classes, not {document!r}")
    for target, names in document.items():
        if not isinstance(names, list) or any(not isinstance(name, str) for name in names):
            raise UserError(f"classes: {target} is not a list of names")
    classes = {target: tuple(names) for target, names in document.items()}
    if schema > 1:
        return classes
    if set(classes) != set(OLD_CLASSES):
        raise UserError(f"classes must hold {', '.join(OLD_CLASSES)}")
    return {OLD_CLASSES[kind]: names for kind, names in classes.items() if names}


def _check_cost(architecture: Architecture) -> None:
    task = architecture.make_task()
    counter = Counter(architecture.resolution)
    for unit in ("macs", "params"):
        counted = int(counter.table(architecture.space, task, unit).one(architecture.choices_array))
        stated = getattr(architecture, unit)
        if stated != counted:
            raise UserError(f"it states {stated} {unit}, but its choices make {counted}")
